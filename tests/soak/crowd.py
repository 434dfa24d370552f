"""Many slow clients, all of them in one epoll loop: one byte a second each, out or in."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = tuple[str, int]

#: What each kind sends at once. After that a reader reads, and any other sends, a byte a second.
KINDS = {
    "head": b"GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ",
    "chunked": b"POST /echo HTTP/1.1\r\nHost: slow\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
    "length": b"POST /echo HTTP/1.1\r\nHost: slow\r\nContent-Length: 99999\r\n\r\n",
    "reader": b"GET /large HTTP/1.1\r\nHost: slow\r\n\r\n",
}
SECOND = 1.0


@dataclass
class Slow:
    """One of them."""

    kind: str
    peer: socket.socket
    due: float
    received: bytearray = field(default_factory=bytearray)


class Crowd:
    """Slow clients, moved on by `run`; `ends` counts how those ended that have."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._clients: dict[int, Slow] = {}
        self.ends: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def join(self, kinds: Iterable[str]) -> None:
        """Connect one client of each kind; they are due at different moments of a second."""
        for number, kind in enumerate(kinds):
            peer = socket.socket()
            if kind == "reader":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(10)
            peer.connect(self._address)
            peer.sendall(KINDS[kind])
            peer.setblocking(False)
            due = time.monotonic() + number % 1000 / 1000
            self._clients[peer.fileno()] = Slow(kind, peer, due)
            if kind != "reader":
                self._epoll.register(peer, select.EPOLLIN)

    def run(self, seconds: float) -> None:
        """Let them go on for so long."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for slow in [slow for slow in self._clients.values() if slow.due <= now]:
                slow.due += SECOND
                self._move(slow)
            for fd, _ in self._epoll.poll(0.02):
                if fd in self._clients:
                    self._receive(self._clients[fd], 65536)

    def _move(self, slow: Slow) -> None:
        if slow.kind == "reader":
            self._receive(slow, 1)
            return
        try:
            slow.peer.send(b"s")
        except BlockingIOError:
            pass
        except OSError:
            self._receive(slow, 65536)

    def _receive(self, slow: Slow, count: int) -> None:
        try:
            piece = slow.peer.recv(count)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        slow.received += piece
        if not piece:
            self._end(slow)

    def _end(self, slow: Slow) -> None:
        status = bytes(slow.received[9:12]).decode() or "closed"
        self.ends[slow.kind, status] += 1
        del self._clients[slow.peer.fileno()]
        slow.peer.close()

    def leave(self) -> None:
        """Close all of them."""
        for slow in self._clients.values():
            slow.peer.close()
        self._clients.clear()
        self._epoll.close()
