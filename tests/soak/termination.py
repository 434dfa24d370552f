"""SIGTERM while requests are being answered."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from dataclasses import dataclass

from outcome import Outcome
from target import Target

HAMMERS = 40
WAITERS = 40
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
END_SECONDS = 10


@dataclass
class Client:
    """A keep-alive client that asks again as soon as it is answered."""

    peer: socket.socket
    request: bytes
    asked: float = 0.0
    received: bytes = b""

    def ask(self) -> None:
        """Send the request."""
        self.asked, self.received = time.monotonic(), b""
        self.peer.sendall(self.request)

    def is_answered(self) -> bool:
        """Whether the whole answer is here."""
        return self.received.endswith(b"\r\n\r\nHello\n")


def termination(seconds: float) -> Outcome:
    """Several times, since the moment matters."""
    outcome = Outcome("SIGTERM")
    ends: Counter[str] = Counter()
    statuses = []
    for number in range(max(int(seconds / 2), 3)):
        with Target() as target:
            statuses.append(_fire(target, ends, 0.2 + number * 0.013))
    outcome.note(", ".join(f"{how} {count}" for how, count in sorted(ends.items())))
    outcome.note(f"exit {statuses}")
    outcome.promise(set(statuses) == {0}, f"exit statuses {statuses}")
    bad = {how: count for how, count in ends.items() if how.startswith("before it, ")}
    outcome.promise(not bad, f"requests sent before SIGTERM and not answered: {bad}")
    outcome.promise(ends["stuck"] == 0, f"{ends['stuck']} connections were left open")
    return outcome


def _fire(target: Target, ends: Counter[str], delay: float) -> int | None:
    requests = [GET] * HAMMERS + [SLOW] * WAITERS
    clients = {}
    epoll = select.epoll()
    for request in requests:
        client = Client(target.connect(), request)
        clients[client.peer.fileno()] = client
        epoll.register(client.peer, select.EPOLLIN)
        client.ask()
    _run(epoll, clients, Counter(), time.monotonic() + delay, float("inf"))
    # These may wait to be accepted still when the signal comes.
    for _ in range(20):
        client = Client(target.connect(), GET)
        clients[client.peer.fileno()] = client
        epoll.register(client.peer, select.EPOLLIN)
        client.ask()
    signalled = time.monotonic()
    target.terminate()
    _run(epoll, clients, ends, signalled + END_SECONDS, signalled)
    ends["stuck"] += len(clients)
    for client in clients.values():
        client.peer.close()
    epoll.close()
    return target.wait(END_SECONDS)


def _run(
    epoll: select.epoll,
    clients: dict[int, Client],
    ends: Counter[str],
    until: float,
    signalled: float,
) -> None:
    """Move the clients on until all connections have ended, or the time has come."""
    while clients and time.monotonic() < until:
        for fd, _ in epoll.poll(0.01):
            client = clients[fd]
            how = _receive(client, signalled)
            if how is not None:
                ends[how] += 1
                del clients[fd]
                client.peer.close()


def _receive(client: Client, signalled: float) -> str | None:
    """Go on with a client; how its connection has ended, if it has."""
    try:
        piece = client.peer.recv(65536)
        client.received += piece
        if piece and client.is_answered() and b"Connection: close" not in client.received:
            client.ask()
        if piece:
            return None
        reset = False
    except ConnectionError:
        reset = True
    if client.is_answered():
        return "answered"
    when = "before it, " if client.asked < signalled else "after it, "
    if client.received:
        return "before it, cut off"
    return when + ("reset" if reset else "closed")
