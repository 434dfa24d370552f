"""No server, but the least that one does for requests that wait: it sends each an answer that was made before.

It reads nothing but the path of a request that comes in one piece, keeps no connection's state, and runs no
application. What it takes to wake all, no server that sends each answer by a call of its own can undercut by much.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nServer: sends/1.0.0.0.0.0\r\n"
    b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: keep-alive\r\n\r\n%s"
)
WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Sends:
    """The connections, and the answers that wait."""

    def __init__(self, port: int) -> None:
        """Listen."""
        self.listener = socket.create_server(("127.0.0.1", port), backlog=20_000)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.clients: dict[int, socket.socket] = {}
        self.waiting: list[tuple[socket.socket, bytes]] = []

    def run(self) -> None:
        """Serve until it is ended."""
        while True:
            for fd, _ in self.epoll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    with contextlib.suppress(BlockingIOError):
                        self.receive(fd)

    def accept(self) -> None:
        """Take all connections that are there."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self.listener.accept()
                client.setblocking(False)
                self.clients[client.fileno()] = client
                self.epoll.register(client, WATCHED)

    def receive(self, fd: int) -> None:
        """Take a request, or the end of a connection."""
        client = self.clients[fd]
        request = client.recv(65536)
        path, _, query = (request.split(b" ", 2)[1] if request else b"").partition(b"?")
        if path == b"/wait":
            self.waiting.append((client, ANSWER % (len(query), query)))
            return
        if path == b"/wake":
            for there, answer in self.waiting:
                there.send(answer)
            self.waiting.clear()
        text = b"%d" % len(self.waiting) if path == b"/parked" else b"hello"
        if request:
            client.send(ANSWER % (len(text), text))
        if not request or b"HTTP/1.0" in request:
            self.clients.pop(fd).close()


if __name__ == "__main__":
    Sends(int(sys.argv[1])).run()
