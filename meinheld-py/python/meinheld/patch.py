"""Put cooperative functions in the places of the standard library's that block.

Call `patch_all()` first of all, before other modules keep the originals. What is put in place parks a coroutine,
and does what the original does anywhere else. It is not taken back.
"""

from __future__ import annotations

import select as _select
import socket as _socket
import time as _time
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, TypeVar

from meinheld import server
from meinheld._meinheld import in_coroutine

__all__ = ["patch_all", "patch_select", "patch_socket", "patch_ssl", "patch_time"]

_Result = TypeVar("_Result")

_standard_select = _select.select
_standard_poll = _select.poll
_standard_epoll = _select.epoll
_standard_sleep = _time.sleep


def patch_all(
    socket: bool = True,
    aggressive: bool = True,
    time: bool = True,
    select: bool = True,
    ssl: bool = True,
) -> None:
    """Patch everything that there is a patch for."""
    if socket:
        patch_socket(aggressive)
    if time:
        patch_time()
    if select:
        patch_select()
    if ssl:
        patch_ssl()


def patch_socket(aggressive: bool = False) -> None:
    """Have `socket.socket`, and what the module makes of it, park. `aggressive` means nothing any more."""
    from meinheld import msocket

    module: Any = _socket
    module.socket = msocket.socket
    module.patched = True


def patch_time() -> None:
    """Have `time.sleep` park."""
    _time.sleep = sleep  # type: ignore[assignment]


def patch_select() -> None:
    """Have `select.select` and `select.poll` park."""
    _select.select = select
    _select.poll = poll  # type: ignore[misc,assignment]


def patch_ssl() -> None:
    """Have the sockets that contexts of `ssl` wrap park. Does nothing on a Python without `ssl`."""
    try:
        import ssl
    except ImportError:
        return
    from meinheld import mssl

    ssl.SSLContext.sslsocket_class = mssl.SSLSocket


def sleep(seconds: float, /) -> None:
    """Wait for so many seconds."""
    if in_coroutine():
        server.sleep(+seconds)
    else:
        _standard_sleep(seconds)


def select(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """Wait until some of the descriptors are ready; see `select.select`."""
    if not in_coroutine() or (timeout is not None and timeout <= 0):
        return _standard_select(rlist, wlist, xlist, timeout)
    lists = (list(rlist), list(wlist), list(xlist))
    masks: dict[Any, int] = {}
    for each, mask in zip(lists, (_select.EPOLLIN, _select.EPOLLOUT, _select.EPOLLPRI), strict=True):
        for one in each:
            number = _number(one)
            masks[number] = masks.get(number, 0) | mask
    return _wait(masks, timeout, lambda: _standard_select(*lists, 0), any)


class poll:  # noqa: N801
    """Waits until some of the descriptors that are registered are ready; see `select.poll`."""

    def __init__(self) -> None:
        """Begin with no descriptors."""
        self._poll = _standard_poll()
        self._masks: dict[int, int] = {}

    def register(
        self, fd: Any, eventmask: int = _select.POLLIN | _select.POLLPRI | _select.POLLOUT, /
    ) -> None:
        """Add a descriptor, or change what it is watched for."""
        self._poll.register(fd, eventmask)
        self._masks[_number(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Change what a descriptor is watched for."""
        self._poll.modify(fd, eventmask)
        self._masks[_number(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Take a descriptor out."""
        self._poll.unregister(fd)
        del self._masks[_number(fd)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait for so many milliseconds at the most; tell which are ready, and for what."""
        if not in_coroutine():
            return self._poll.poll(timeout)
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        return _wait(self._masks, seconds, lambda: self._poll.poll(0), bool)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


def _wait(
    masks: dict[int, int],
    seconds: float | None,
    look: Callable[[], _Result],
    is_ready: Callable[[_Result], bool],
) -> _Result:
    """Park until `look` finds something. An epoll of the descriptors is itself one to wait for."""
    deadline = None if seconds is None else monotonic() + seconds
    ready = look()
    if is_ready(ready) or seconds == 0:
        return ready
    with _standard_epoll() as epoll:
        for fd, mask in masks.items():
            epoll.register(fd, mask)
        while not is_ready(ready):
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            try:
                server.trampoline(epoll.fileno(), read=True, timeout=left)
            except server.timeout:
                pass
            ready = look()
    return ready
