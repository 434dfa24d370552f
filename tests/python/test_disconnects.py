"""Clients that go after each byte of a request or of its response, or stand still: nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from routes import ROUTES
from wire import Client, get, wait_until

APP = (
    ROUTES
    + """
counts = {"made": 0, "closed": 0}

class Body:
    def __init__(self, pieces):
        counts["made"] += 1
        self.pieces = pieces
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.pieces)
    def close(self):
        counts["closed"] += 1

def do_counts(c, environ):
    return json.dumps({**counts, "parked": len(parked)})

def do_read(c, environ):
    def pieces():
        yield environ["wsgi.input"].read(10)
        yield environ["wsgi.input"].read(10)
    return Body(pieces())

def do_big(c, environ):
    # More than the sockets between server and client hold.
    return Body(b"x" * 65536 for _ in range(200))

def do_wait(c, environ):
    def pieces():
        yield b"some"
        park(c, counts["made"])
    return Body(pieces())
"""
)

HEAD = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n"
BODY = b"0123456789abcdefghij"
REQUESTS = {
    # The server has a small body whole before the application begins.
    "collected": HEAD + b"\r\n" + BODY,
    # That of a client which waits to be asked is read by the application, as it comes.
    "streamed": HEAD + b"Expect: 100-continue\r\n\r\n" + BODY,
    "chunked": b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + BODY + b"\r\n0\r\nA: b\r\n\r\n",
}
GET_BIG = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
#: As many bytes as the head of the response has, and the framing of its first chunk, and some.
RESPONSE_BYTES = 220


@pytest.mark.parametrize("go", [Client.finish, Client.reset])
def test_clients_that_go_after_each_byte(serve: Callable, go: Callable[[Client], None]) -> None:
    server = serve(APP)
    get(server.port, "/counts")
    before = server.descriptors()
    for request in REQUESTS.values():
        for count in range(len(request) + 1):
            go(Client(server.port).send_bytes(request[:count]))
    for count in range(RESPONSE_BYTES):
        client = Client(server.port).send_bytes(GET_BIG)
        left = count
        while left > 0:
            piece = client.socket.recv(left)
            assert piece, f"the server closed {left} bytes before {count}"
            left -= len(piece)
        go(client)
    for _ in range(20):
        client = Client(server.port).send("/wait")
        client.until(b"some")
        go(client)

    def settled() -> bool:
        counts = get(server.port, "/counts").json()
        return counts["made"] == counts["closed"] and counts["parked"] == 0

    wait_until(settled, "every response closed, and no request waiting")
    wait_until(lambda: server.descriptors() <= before, "the descriptors as before")
    counts = get(server.port, "/counts").json()
    # All that were parked, those that read something of their response, and whole requests at the least.
    assert counts["made"] >= 20 + RESPONSE_BYTES - 1, counts
    assert counts["made"] == counts["closed"], "each once"


IMPATIENT = (
    APP
    + """
server.set_body_timeout(0.2)
server.set_send_timeout(0.2)

def do_told(c, environ):
    def pieces():
        try:
            yield environ["wsgi.input"].read(100)
        except OSError as error:
            notes.append([type(error).__name__, isinstance(error, TimeoutError)])
            raise
    return Body(pieces())

def do_endless(c, environ):
    def pieces():
        try:
            while True:
                yield b"x" * 65536
        finally:
            # The server's close() ends it where it stands: GeneratorExit.
            notes.append(sys.exc_info()[0].__name__)
    generator = pieces()
    body = Body(generator)
    counted = body.close
    def close():
        counted()
        generator.close()
    body.close = close
    return body
"""
)


def test_clients_that_stand_still_time_out(serve: Callable) -> None:
    server = serve(IMPATIENT)
    with Client(server.port) as sending, Client(server.port) as reading:
        # A body of this size is read as it comes.
        sending.send_bytes(b"POST /told HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome")
        reading.send("/endless")
        assert sending.response().status == 500

        def closed() -> bool:
            counts = get(server.port, "/counts").json()
            return counts["made"] == counts["closed"] == 2

        wait_until(closed, "both bodies closed")
        assert sorted(map(str, get(server.port, "/notes").json())) == ["GeneratorExit", "['timeout', True]"]
