"""The requests that are counted, and the clients that send them.

A scenario sends rounds: each round sends one request, or a batch, on every connection, and then receives all
answers, as many clients at once would. What comes back is checked to the byte.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

W1 = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"

BROWSER = (
    b"GET /%s HTTP/1.1\r\n"
    b"Host: www.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/131.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: session=6f1e2a7c9b3d4f5e8a0b1c2d3e4f5a6b; theme=dark; _ga=GA1.2.1234567890.17000%s\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: none\r\n"
    b"Cache-Control: max-age=0\r\n\r\n"
)
W4 = BROWSER % (b"", b"00000")

BODY = bytes(range(256)) * 64
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CLOSE = b"GET / HTTP/1.0\r\nHost: 127.0.0.1:8000\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n"

Address = tuple[str, int]


class Connection:
    """A client's connection, with what was received beyond the last answer."""

    def __init__(self, address: Address) -> None:
        """Connect."""
        self.address = address
        self._socket = socket.create_connection(address, timeout=120)
        self._received = bytearray()

    def send(self, request: bytes) -> None:
        """Send a request, or several."""
        self._socket.sendall(request)

    def expect(self, status: bytes, body: bytes) -> None:
        """Receive an answer, and check it."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive()
        head = bytes(self._received[: end + 4])
        del self._received[: end + 4]
        if not head.startswith(b"HTTP/1.1 " + status):
            raise AssertionError(f"not {status!r} but {head!r}")
        received = self._chunked() if b"chunked" in head else self._take(len(body))
        if received != body:
            raise AssertionError(f"another body than expected: {received[:80]!r}")

    def expect_end(self) -> None:
        """The server has closed."""
        if self._received or self._socket.recv(1):
            raise AssertionError("there is more after the answer")

    def close(self) -> None:
        """Close."""
        self._socket.close()

    def _receive(self) -> None:
        received = self._socket.recv(1 << 18)
        if not received:
            raise AssertionError("the server closed the connection")
        self._received += received

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _chunked(self) -> bytes:
        body = b""
        while True:
            while (end := self._received.find(b"\r\n")) < 0:
                self._receive()
            size = int(self._take(end + 2), 16)
            data = self._take(size + 2)
            if size == 0:
                return body
            body += data[:-2]


@dataclass(frozen=True)
class Scenario:
    """A kind of request, how it is sent and how often."""

    title: str
    # How often a round is sent when it is counted.
    rounds: int
    # Sends a round on every connection, and receives; the round's number makes requests differ.
    exchange: Callable[[list[Connection], int], None]
    # How many requests a round has on each connection.
    batch: int = 1
    connections: int = 16
    application: str = "hello"
    access_log: bool = False
    # How many other requests are parked meanwhile.
    parked: int = 0


def _each(request: Callable[[int], bytes], body: bytes = b"Hello, world!", times: int = 1) -> Callable[..., None]:
    def exchange(connections: list[Connection], number: int) -> None:
        for connection in connections:
            connection.send(request(number) * times)
        for connection in connections:
            for _ in range(times):
                connection.expect(b"200", body)

    return exchange


def _varying(number: int) -> bytes:
    return BROWSER % (b"page/%d?n=%d" % (number, number), b"%05d" % number)


def _get(path: bytes) -> Callable[[int], bytes]:
    return lambda _: b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path


def _park_and_wake(connections: list[Connection], _number: int) -> None:
    """All but the last wait, and the last wakes them."""
    *waiters, waker = connections
    for waiter in waiters:
        waiter.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    waker.send(b"GET /wake HTTP/1.1\r\nHost: a\r\n\r\n")
    for connection in connections:
        connection.expect(b"200", b"Hello, world!")


def _without_keep_alive(connections: list[Connection], _number: int) -> None:
    """The connections only tell where the server is, and how many come at once."""
    fresh = [Connection(connection.address) for connection in connections]
    for connection in fresh:
        connection.send(CLOSE)
    for connection in fresh:
        connection.expect(b"200", b"Hello, world!")
        connection.expect_end()
        connection.close()


def hold(address: Address, count: int) -> list[Connection]:
    """Park requests, and keep them so."""
    held = [Connection(address) for _ in range(count)]
    for connection in held:
        connection.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    return held


CHUNKS = b"a small chunk of text\n" * 100
hello = _each(lambda _: W1)

SCENARIOS = {
    "w1": Scenario("GET / as wrk sends it (W1)", 60, hello),
    "w1-alone": Scenario("the same, one client", 500, hello, connections=1),
    "w4": Scenario("with a browser's 12 headers (W4)", 60, _each(lambda _: W4)),
    "w4-varying": Scenario("W4, path and cookie differ each time", 60, _each(_varying)),
    "pipelined": Scenario("W1 pipelined by 16", 40, _each(lambda _: W1, times=16), batch=16, connections=4),
    "close": Scenario("ab's request, no keep-alive", 40, _without_keep_alive),
    "log": Scenario("W1 with the access log on", 60, hello, access_log=True),
    "parked": Scenario("W1 beside 2,000 parked requests", 60, _each(_get(b"/wake")), application="all", parked=2_000),
    "routed": Scenario("the same with none parked", 60, _each(_get(b"/wake")), application="all"),
    "park": Scenario("park and wake", 60, _park_and_wake, application="all"),
    "post": Scenario("POST of 16 KiB, echoed", 40, _each(lambda _: POST, BODY), connections=4, application="all"),
    "large": Scenario("a body of 1 MiB", 10, _each(_get(b"/large"), bytes(1 << 20)), connections=4, application="all"),
    "file": Scenario("a file of 10 MiB", 4, _each(_get(b"/file"), bytes(10 << 20)), connections=2, application="all"),
    "chunks": Scenario("100 small chunks", 20, _each(_get(b"/chunks"), CHUNKS), connections=4, application="all"),
}
