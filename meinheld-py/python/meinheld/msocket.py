"""Sockets that park the coroutine instead of blocking; `meinheld.patch` puts them in the place of the standard ones.

`socket` is a `socket.socket`. In a coroutine (a request, a spawned call) an operation that would block lets the
others run until it can go on. Anywhere else it does what the standard one does, and so does a socket whose
time-out is 0. `getaddrinfo` blocks: give numeric hosts, or names of /etc/hosts, where that matters.

A socket keeps its own mode: its descriptor is not made non-blocking. In a coroutine each operation is tried on a
*view*, a second object of the same descriptor with a time-out of 0, and after EAGAIN again when epoll tells so.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket as _standard
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socket import AF_UNIX, MSG_DONTWAIT, MSG_WAITALL, SO_ERROR, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET
from time import monotonic
from typing import Any, TypeVar

from meinheld import server
from meinheld._meinheld import in_coroutine

_Result = TypeVar("_Result")

error = OSError

#: Whether this module's sockets are cooperative, which old programs ask.
patched = True

# How long to wait for room in the queue of a unix listener, which nothing tells of, between two tries.
_QUEUE_SECONDS = 0.005

_DEFAULT_TIMEOUT = object()


def __getattr__(name: str) -> Any:
    """Everything else is the standard module's."""
    return getattr(_standard, name)


def wait_read(fileno: int, timeout: float | None = None) -> None:
    """Wait until a descriptor can be read."""
    server.trampoline(fileno, read=True, timeout=timeout)


def wait_write(fileno: int, timeout: float | None = None) -> None:
    """Wait until a descriptor can be written."""
    server.trampoline(fileno, write=True, timeout=timeout)


def wait_readwrite(fileno: int, timeout: float | None = None) -> None:
    """Wait until a descriptor can be read or written."""
    server.trampoline(fileno, read=True, write=True, timeout=timeout)


class _View(_socket.socket):
    """A second object of a descriptor, which it never closes."""

    __slots__ = ()

    def __del__(self) -> None:
        self.detach()


class socket(_standard.socket):  # noqa: N801
    """A socket whose operations park the coroutine instead of blocking."""

    __slots__ = ("_view", "_waiting")

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        """Make a socket, or take over a descriptor."""
        super().__init__(family, type, proto, fileno)
        self._view: _View | None = None
        self._waiting = 0

    # How an operation waits.

    def _parks(self) -> bool:
        return in_coroutine() and self.gettimeout() != 0

    def _now(self) -> _View:
        """The view, to try an operation on now."""
        fd = self.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._view is None or self._view.fileno() != fd:
            self._view = _View(self.family, self.type | SOCK_NONBLOCK, self.proto, fd)
        return self._view

    def _deadline(self) -> float | None:
        seconds = self.gettimeout()
        return None if seconds is None else monotonic() + seconds

    def _wait(self, deadline: float | None, *, write: bool) -> None:
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self._waiting += 1
        try:
            server.trampoline(self.fileno(), not write, write, left)
        except server.timeout:
            raise TimeoutError("timed out") from None
        except OSError as ended:
            # It was closed; the next try tells.
            if ended.errno != errno.ECANCELED:
                raise
        finally:
            self._waiting -= 1

    def _retry(
        self, attempt: Callable[[], _Result], *, write: bool, deadline: float | None
    ) -> _Result:
        while True:
            try:
                return attempt()
            except BlockingIOError:
                self._wait(deadline, write=write)

    def _read(self, attempt: Callable[[], _Result]) -> _Result:
        return self._retry(attempt, write=False, deadline=self._deadline())

    def _write(self, attempt: Callable[[], _Result]) -> _Result:
        return self._retry(attempt, write=True, deadline=self._deadline())

    @contextmanager
    def _unblocked(self) -> Iterator[_View]:
        """The view, for a system call that has no flag for not blocking."""
        view = self._now()
        fd = view.fileno()
        blocking = os.get_blocking(fd)
        if blocking:
            os.set_blocking(fd, False)
        try:
            yield view
        finally:
            if blocking:
                os.set_blocking(fd, True)

    # Receiving.

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to `bufsize` bytes."""
        if not self._parks():
            return super().recv(bufsize, flags)
        if flags & MSG_WAITALL:
            data = bytearray(bufsize)
            return bytes(data[: self.recv_into(data, 0, flags)])
        return self._read(lambda: self._now().recv(bufsize, flags | MSG_DONTWAIT))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer."""
        if not self._parks():
            return super().recv_into(buffer, nbytes, flags)
        deadline = self._deadline()
        if not flags & MSG_WAITALL:
            return self._receive_once(buffer, nbytes, flags, deadline)
        with memoryview(buffer).cast("B") as view:
            wanted, received = nbytes or len(view), 0
            while received < wanted:
                more = self._receive_once(view[received:wanted], 0, flags, deadline)
                if more == 0:
                    break
                received += more
            return received

    def _receive_once(self, buffer: Any, nbytes: int, flags: int, deadline: float | None) -> int:
        return self._retry(
            lambda: self._now().recv_into(buffer, nbytes, flags | MSG_DONTWAIT),
            write=False,
            deadline=deadline,
        )

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive a message, and the address of who sent it."""
        if not self._parks():
            return super().recvfrom(bufsize, flags)
        return self._read(lambda: self._now().recvfrom(bufsize, flags | MSG_DONTWAIT))

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a message into a buffer, and the address of who sent it."""
        if not self._parks():
            return super().recvfrom_into(buffer, nbytes, flags)
        return self._read(
            lambda: self._now().recvfrom_into(buffer, nbytes, flags | MSG_DONTWAIT)
        )

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive a message with its ancillary data."""
        if not self._parks():
            return super().recvmsg(bufsize, ancbufsize, flags)
        return self._read(
            lambda: self._now().recvmsg(bufsize, ancbufsize, flags | MSG_DONTWAIT)
        )

    def recvmsg_into(
        self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receive a message into buffers, with its ancillary data."""
        buffers = list(buffers)
        if not self._parks():
            return super().recvmsg_into(buffers, ancbufsize, flags)
        return self._read(
            lambda: self._now().recvmsg_into(buffers, ancbufsize, flags | MSG_DONTWAIT)
        )

    # Sending.

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send some of the data; tell how many bytes."""
        if not self._parks():
            return super().send(data, flags)
        return self._write(lambda: self._now().send(data, flags | MSG_DONTWAIT))

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of the data."""
        if not self._parks():
            return super().sendall(data, flags)
        deadline = self._deadline()
        with memoryview(data) as given, given.cast("B") as view:
            sent = 0
            while sent < len(view):
                with view[sent:] as rest:
                    sent += self._send_once(rest, flags, deadline)

    def _send_once(self, data: memoryview, flags: int, deadline: float | None) -> int:
        return self._retry(
            lambda: self._now().send(data, flags | MSG_DONTWAIT), write=True, deadline=deadline
        )

    def sendto(self, data: Any, *rest: Any) -> int:
        """Send a message: `sendto(data, address)` or `sendto(data, flags, address)`."""
        if not self._parks() or not 1 <= len(rest) <= 2:
            return super().sendto(data, *rest)
        flags, address = (0, *rest)[-2:]
        return self._write(lambda: self._now().sendto(data, flags | MSG_DONTWAIT, address))

    def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[tuple[int, int, Any]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """Send a message with ancillary data."""
        buffers, ancdata = list(buffers), list(ancdata)
        if not self._parks():
            return super().sendmsg(buffers, ancdata, flags, address)
        return self._write(
            lambda: self._now().sendmsg(buffers, ancdata, flags | MSG_DONTWAIT, address)
        )

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file, by sendfile(2) where the thread may block."""
        if not self._parks():
            return super().sendfile(file, offset, count)
        return int(self._sendfile_use_send(file, offset, count))  # type: ignore[attr-defined]

    # Connecting, accepting, and the end.

    def connect(self, address: Any, /) -> None:
        """Connect to an address."""
        if not self._parks():
            return super().connect(address)
        number = self._connect(address)
        if number:
            raise OSError(number, os.strerror(number))

    def connect_ex(self, address: Any, /) -> int:
        """Connect to an address; the number of the error instead of an exception."""
        if not self._parks():
            return super().connect_ex(address)
        try:
            return self._connect(address)
        except TimeoutError:
            return errno.EAGAIN

    def _connect(self, address: Any) -> int:
        deadline = self._deadline()
        while True:
            with self._unblocked() as view:
                number = view.connect_ex(address)
            if number != errno.EAGAIN or self.family != AF_UNIX:
                break
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError("timed out")
            server.sleep(_QUEUE_SECONDS)
        if number != errno.EINPROGRESS:
            return number
        self._wait(deadline, write=True)
        return self.getsockopt(SOL_SOCKET, SO_ERROR)

    def accept(self) -> tuple[socket, Any]:
        """Wait for a connection; the new socket, and the address of the other side."""
        if self._parks():
            fd, address = self._read(self._accept_now)
        else:
            fd, address = self._accept()  # type: ignore[attr-defined]
        accepted = socket(self.family, self.type, self.proto, fd)
        if _standard.getdefaulttimeout() is None and self.gettimeout():
            accepted.setblocking(True)
        return accepted, address

    def _accept_now(self) -> tuple[int, Any]:
        with self._unblocked() as view:
            accepted: tuple[int, Any] = view._accept()  # type: ignore[attr-defined]
            return accepted

    def detach(self) -> int:
        """Give the descriptor away."""
        self._forget()
        return super().detach()

    def _real_close(self, *args: Any) -> None:
        self._forget()
        super()._real_close(*args)  # type: ignore[misc]

    def _forget(self) -> None:
        """Wake the coroutine that waits for the descriptor, which is closed or given away."""
        if self._waiting:
            server.cancel_wait(self.fileno())
        if self._view is not None:
            self._view.detach()
            self._view = None


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """Make a socket of a copy of a descriptor."""
    return socket(family, type, proto, _socket.dup(fd))


def socketpair(
    family: int | None = None, type: int = SOCK_STREAM, proto: int = 0
) -> tuple[socket, socket]:
    """Make two sockets that are connected with each other."""
    pair = _socket.socketpair(AF_UNIX if family is None else family, type, proto)
    one, other = (socket(each.family, each.type, each.proto, each.detach()) for each in pair)
    return one, other


def create_connection(
    address: tuple[str | None, int],
    timeout: Any = _DEFAULT_TIMEOUT,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to a host and port, trying each of its addresses; see `socket.create_connection`."""
    failures: list[Exception] = []
    for family, kind, proto, _, target in _standard.getaddrinfo(*address, 0, SOCK_STREAM):
        made = socket(family, kind, proto)
        try:
            if timeout is not _DEFAULT_TIMEOUT:
                made.settimeout(timeout)
            if source_address:
                made.bind(source_address)
            made.connect(target)
        except OSError as failure:
            made.close()
            failures = [*failures, failure] if all_errors else [*failures, failure][:1]
        except BaseException:
            made.close()
            raise
        else:
            return made
    if not failures:
        raise OSError("getaddrinfo returns an empty list")
    if all_errors:
        raise ExceptionGroup("create_connection failed", failures)
    raise failures[0]


__all__ = [
    *_standard.__all__,
    "create_connection",
    "error",
    "fromfd",
    "socket",
    "socketpair",
    "wait_read",
    "wait_readwrite",
    "wait_write",
]
