"""An application for tests, in source form: `do_NAME(c, environ, **query)` answers `/NAME?query`.

`park(c, name)` suspends under a name, `/wake?name=` resumes it, `/parked` tells how many are suspended.
"""

from __future__ import annotations

from wire import get, wait_until

ROUTES = '''\
import json, sys
from urllib.parse import parse_qsl

from meinheld import server
from meinheld.middleware import CLIENT_KEY, CONTINUATION_KEY, ContinuationMiddleware

parked = {}
notes = []


def park(c, name, timeout=0):
    parked[name] = c
    try:
        return c.suspend(timeout)
    finally:
        del parked[name]


def do_parked(c, environ):
    return str(sum(each.suspended for each in parked.values()))


def do_park(c, environ, name, timeout="0"):
    return repr(park(c, name, eval(timeout)))


def do_wake(c, environ, name, value="'woken'"):
    parked[name].resume(eval(value))
    return "resumed"


def do_wake_all(c, environ):
    names = list(parked)
    for name in names:
        parked[name].resume(name)
    return str(len(names))


def do_notes(c, environ):
    taken = json.dumps(notes)
    notes.clear()
    return taken


@ContinuationMiddleware
def app(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    handler = globals()["do_" + environ["PATH_INFO"].lstrip("/")]
    answer = handler(environ[CONTINUATION_KEY], environ, **query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()] if isinstance(answer, str) else answer


'''


def wait_for_parked(port: int, count: int) -> None:
    """Return when so many requests are suspended."""
    wait_until(
        lambda: get(port, "/parked").text == str(count), f"{count} requests suspended"
    )
