"""The application that parks requests, on each server by that server's own means.

`/wait` waits until `/wake` comes, and answers its query; `/pair` waits for the next `/pair`, which
wakes it; `/parked` tells how many wait. COMPARE_PARKING names the means.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

PLAIN = [("Content-Type", "text/plain")]


def _event(module: str) -> Callable[[dict[str, Any]], Any]:
    """What makes an event of this module's."""
    return lambda _environ: importlib.import_module(module).Event()


#: What a request waits in, and the names of the methods by which it waits and is woken. Nothing else is
#: kept for it, so that its memory is the server's.
MEANS: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "meinheld": (itemgetter("meinheld.continuation"), "suspend", "resume"),
    "gevent": (_event("gevent.event"), "wait", "set"),
    "eventlet": (_event("eventlet.event"), "wait", "send"),
    # In a thread of the server's pool.
    "threads": (_event("threading"), "wait", "set"),
}
means = os.environ.get("COMPARE_PARKING", "meinheld")
place, WAIT, WAKE = MEANS[means]

waiting: list[Any] = []
partners: list[Any] = []


def park(environ: dict[str, Any], crowd: list[Any]) -> None:
    """Wait in `crowd`."""
    here = place(environ)
    crowd.append(here)
    try:
        getattr(here, WAIT)()
    finally:
        if here in crowd:
            # Nobody woke it: its client has gone.
            crowd.remove(here)


def wake_all() -> None:
    """Wake all who wait."""
    crowd, waiting[:] = waiting[:], []
    for there in crowd:
        getattr(there, WAKE)()


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
            getattr(partners.pop(), WAKE)()
        else:
            park(environ, partners)
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(answer)))])
    return [answer.encode()]


if means == "meinheld":
    middleware = importlib.import_module("meinheld.middleware")
    app = getattr(middleware, "SpawnMiddleware", middleware.ContinuationMiddleware)(app)
