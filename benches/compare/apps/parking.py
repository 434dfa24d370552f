"""The application that parks requests, on each server by that server's own means.

`/wait` waits until `/wake` comes, and answers its query; `/pair` waits for the next `/pair`, which
wakes it; `/parked` tells how many wait. COMPARE_PARKING names the means.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any

PLAIN = [("Content-Type", "text/plain")]


class Meinheld:
    """A continuation."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._continuation = environ["meinheld.continuation"]
        self.wait = self._continuation.suspend
        self.wake = self._continuation.resume


class Gevent:
    """An event of gevent's."""

    def __init__(self, _environ: dict[str, Any]) -> None:
        event = importlib.import_module("gevent.event").Event()
        self.wait = event.wait
        self.wake = event.set


class Eventlet:
    """An event of eventlet's."""

    def __init__(self, _environ: dict[str, Any]) -> None:
        event = importlib.import_module("eventlet.event").Event()
        self.wait = event.wait
        self.wake = event.send


class Threads:
    """An event of the standard library's, in a thread of the server's pool."""

    def __init__(self, _environ: dict[str, Any]) -> None:
        event = importlib.import_module("threading").Event()
        self.wait = event.wait
        self.wake = event.set


PLACES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "meinheld": Meinheld,
    "gevent": Gevent,
    "eventlet": Eventlet,
    "threads": Threads,
}
place = PLACES[os.environ.get("COMPARE_PARKING", "meinheld")]

waiting: list[Any] = []
partners: list[Any] = []


def park(environ: dict[str, Any], crowd: list[Any]) -> None:
    """Wait in `crowd`."""
    here = place(environ)
    crowd.append(here)
    try:
        here.wait()
    finally:
        if here in crowd:
            # Nobody woke it: its client has gone.
            crowd.remove(here)


def wake_all() -> None:
    """Wake all who wait."""
    crowd, waiting[:] = waiting[:], []
    for there in crowd:
        there.wake()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request; any other path answers at once."""
    path = environ["PATH_INFO"]
    answer = "hello"
    if path == "/wait":
        park(environ, waiting)
        answer = environ["QUERY_STRING"]
    elif path == "/wake":
        wake_all()
    elif path == "/parked":
        answer = str(len(waiting))
    elif path == "/pair":
        if partners:
            partners.pop().wake()
        else:
            park(environ, partners)
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(answer)))])
    return [answer.encode()]


if place is Meinheld:
    middleware = importlib.import_module("meinheld.middleware")
    app = getattr(middleware, "SpawnMiddleware", middleware.ContinuationMiddleware)(app)
