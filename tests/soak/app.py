"""The application that is soaked: each path is one way to answer, or to fail."""

from __future__ import annotations

import json
import threading

BODY = b"Hello\n"
PIECE = b"x" * 65536
LARGE_PIECES = 64

counts = {"parked": 0, "closed": 0, "begun": 0, "pieces": 0}


def answer(start_response, body, status="200 OK"):
    """One piece, with its length."""
    start_response(status, [("Content-Type", "text/plain")])
    return [body]


def small(environ, start_response):
    """What a healthy client asks for."""
    return answer(start_response, BODY)


def state(environ, start_response):
    """What the application knows to be unfinished."""
    return answer(start_response, json.dumps(counts).encode())


def echo(environ, start_response):
    """The request's body, read in pieces."""
    pieces = iter(lambda: environ["wsgi.input"].read(8192), b"")
    return answer(start_response, b"".join(pieces))


class Pieces:
    """An iterable of pieces whose close() is counted."""

    def __init__(self, pieces):
        counts["begun"] += 1
        self._pieces = iter(pieces)

    def __iter__(self):
        return self._pieces

    def close(self):
        counts["closed"] += 1


def generate(environ, start_response):
    """A few chunks."""
    start_response("200 OK", [])
    return Pieces([b"one ", b"two ", b"three"])


def large(environ, start_response):
    """4 MiB in pieces, each made when the one before is sent."""

    def pieces():
        for _ in range(LARGE_PIECES):
            counts["pieces"] += 1
            yield PIECE

    start_response("200 OK", [("Content-Length", str(LARGE_PIECES * len(PIECE)))])
    return Pieces(pieces())


def fail(environ, start_response):
    """An exception before anything is sent."""
    raise RuntimeError("as asked for")


def fail_midway(environ, start_response):
    """An exception in the middle of the response."""

    def pieces():
        yield b"so far"
        raise RuntimeError("as asked for, midway")

    start_response("200 OK", [])
    return Pieces(pieces())


def expire(environ, start_response):
    """A suspension that nobody resumes."""
    environ["meinheld.client"].continuation().suspend(timeout=0.01)
    return answer(start_response, b"resumed")


def park(environ, start_response):
    """A suspension that ends when the client goes."""
    counts["parked"] += 1
    try:
        environ["meinheld.client"].continuation().suspend(timeout=600)
    finally:
        counts["parked"] -= 1
    return answer(start_response, b"resumed")


def slow(environ, start_response):
    """Half a second of waiting, then an answer."""
    continuation = environ["meinheld.client"].continuation()
    threading.Timer(0.5, continuation.resume).start()
    continuation.suspend(timeout=30)
    return answer(start_response, BODY)


def upgrade(environ, start_response):
    """An Upgrade that is not granted."""
    return answer(start_response, b"no", "403 Forbidden")


ROUTES = {
    "/": small,
    "/state": state,
    "/echo": echo,
    "/generate": generate,
    "/large": large,
    "/fail": fail,
    "/fail-midway": fail_midway,
    "/expire": expire,
    "/park": park,
    "/slow": slow,
    "/upgrade": upgrade,
}


def app(environ, start_response):
    """By path."""
    route = ROUTES.get(environ["PATH_INFO"])
    if route is None:
        return answer(start_response, b"nowhere", "404 Not Found")
    return route(environ, start_response)
