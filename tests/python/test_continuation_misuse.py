"""Misuse of a continuation is a ContinuationError that says what was wrong, and harms no other request."""

from __future__ import annotations

import threading
import urllib.request
import wsgiref.simple_server
import wsgiref.validate
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

from meinheld.middleware import (
    CLIENT_KEY,
    CONTINUATION_KEY,
    ContinuationMiddleware,
    SpawnMiddleware,
)

REFUSALS = (
    ROUTES
    + """
import threading
import weakref

kept = {}

def refusal(call, *args):
    try:
        return f"not refused: {call(*args)!r}"
    except server.ContinuationError as error:
        assert isinstance(error, OSError)
        return str(error)

def do_resume_itself(c, environ):
    return refusal(c.resume)

def do_throw_itself(c, environ):
    return refusal(c.throw, ValueError())

def do_resume_twice(c, environ):
    other = parked["it"]
    other.resume("once"); first = sys._getframe().f_lineno
    texts = [refusal(other.resume, "twice"), refusal(other.throw, ValueError)]
    return json.dumps([texts, f"{__file__}:{first}"])

def do_throw_twice(c, environ):
    other = parked["it"]
    other.throw(ValueError("thrown")); first = sys._getframe().f_lineno
    texts = [refusal(other.resume, "twice"), refusal(other.throw, KeyError)]
    return json.dumps([texts, f"{__file__}:{first}"])

def do_keep(c, environ):
    kept["c"], kept["client"] = c, environ[CLIENT_KEY]
    return "kept"

def do_use_ended(c, environ):
    old = kept["c"]
    return json.dumps([
        refusal(old.resume), refusal(old.throw, ValueError), refusal(old.suspend, 1), in_thread(old.resume),
        old.suspended, old.connected, repr(old).startswith("<meinheld.Continuation of task "),
    ])

def in_thread(call, *args):
    results = []
    thread = threading.Thread(target=lambda: results.append(refusal(call, *args)))
    thread.start()
    thread.join(10)
    return results[0]

def do_suspend_other(c, environ):
    return refusal(parked["it"].suspend, 1)

def do_suspend_in_thread(c, environ):
    return in_thread(c.suspend, 1)

def do_make_in_thread(c, environ):
    return in_thread(environ[CLIENT_KEY].continuation)

def do_idle(c, environ):
    # The one waits, the other does not: both belong to this request.
    kept["idle"] = environ[CLIENT_KEY].continuation()
    return park(c, "it")

def do_suspend_idle(c, environ):
    return refusal(kept["idle"].suspend, 1)

class Value:
    pass

def do_keep_client(c, environ):
    kept["client"] = environ[CLIENT_KEY]
    return "kept"

def do_make_for_ended(c, environ):
    made, value = kept["client"].continuation(), Value()
    gone = weakref.ref(value)
    thread = threading.Thread(target=made.resume, args=(value,))
    thread.start()
    thread.join(10)
    del made, value, thread
    return str(gone() is None)

def do_in_greenlet(c, environ):
    def wait():
        try:
            c.suspend(0.001)
        except server.timeout:
            return "waited"
    assert "greenlet" not in sys.modules
    before = wait()
    import greenlet
    inside = greenlet.greenlet(lambda: refusal(c.suspend, 0.001)).switch()
    return json.dumps([before, inside, wait()])

def wrong(call, *args, **kwargs):
    try:
        return f"not refused: {call(*args, **kwargs)!r}"
    except TypeError as error:
        return str(error)

def do_wrong_arguments(c, environ):
    return json.dumps([wrong(c.suspend, 1, 2), wrong(c.suspend, seconds=1), wrong(c.suspend, 1, timeout=1)])

def do_upload(c, environ):
    kept["idle"] = c
    return str(len(environ["wsgi.input"].read(-1)))

def do_upload_begun(c, environ):
    return str("idle" in kept)
"""
)


@pytest.mark.parametrize("path", ["/resume_itself", "/throw_itself"])
def test_resuming_what_does_not_wait(serve: Callable, path: str) -> None:
    assert get(serve(REFUSALS).port, path).text == "not suspended"


def test_suspending_in_a_greenlet_that_is_imported_late(serve: Callable) -> None:
    pytest.importorskip("greenlet")
    refused = "cannot suspend inside a child greenlet"
    assert get(serve(REFUSALS).port, "/in_greenlet").json() == ["waited", refused, "waited"]


def test_suspend_names_the_arguments_that_it_does_not_take(serve: Callable) -> None:
    assert get(serve(REFUSALS).port, "/wrong_arguments").json() == [
        "suspend() takes at most one argument (2 given)",
        "suspend() got an unexpected keyword argument 'seconds'",
        "suspend() takes at most one argument (2 given)",
    ]


@pytest.mark.parametrize(("path", "status"), [("/resume_twice", 200), ("/throw_twice", 500)])
def test_resuming_twice_names_the_line_of_the_first_time(
    serve: Callable, path: str, status: int
) -> None:
    server = serve(REFUSALS)
    server.expects_traceback = status == 500
    with Client(server.port) as client:
        client.send("/park", name="it")
        wait_for_parked(server.port, 1)
        texts, place = get(server.port, path).json()
        for text in texts:
            assert text.startswith("already resumed")
            assert place in text
            assert f"in do_{path[1:]}" in text
        response = client.response()
        assert response.status == status
        assert status == 500 or response.text == "'once'", "the first value counts"


def test_using_the_continuation_of_a_request_that_has_ended(serve: Callable) -> None:
    server = serve(REFUSALS)
    with Client(server.port) as client:
        assert client.get("/keep").text == "kept"
        *texts, suspended, connected, shown = client.get("/use_ended").json()
    for text in texts:
        assert "has ended" in text or "another request" in text
    assert [suspended, connected, shown] == [False, False, True]


def test_what_is_made_by_the_client_of_a_request_that_has_ended_is_not_kept(serve: Callable) -> None:
    server = serve(REFUSALS)
    with Client(server.port) as client:
        assert client.get("/keep_client").text == "kept"
        assert client.get("/make_for_ended").text == "True"


def test_suspending_in_another_request(serve: Callable) -> None:
    server = serve(REFUSALS)
    with Client(server.port) as client:
        client.send("/idle")
        wait_for_parked(server.port, 1)
        assert "already suspended" in get(server.port, "/suspend_other").text
        assert "another request" in get(server.port, "/suspend_idle").text
        get(server.port, "/wake", name="it")
        assert client.response().text == "woken"


def test_suspending_in_another_thread(serve: Callable) -> None:
    server = serve(REFUSALS)
    assert "thread" in get(server.port, "/suspend_in_thread").text
    assert "inside a request" in get(server.port, "/make_in_thread").text


def test_a_refused_suspend_leaves_the_watch_on_a_client_alone(serve: Callable) -> None:
    server = serve(REFUSALS)
    client = Client(server.port).send("/idle")
    wait_for_parked(server.port, 1)
    assert "another request" in get(server.port, "/suspend_idle").text
    client.finish()
    wait_for_parked(server.port, 0)


def test_a_refused_suspend_leaves_a_read_that_waits_alone(serve: Callable) -> None:
    server = serve(REFUSALS)
    size = 1 << 20
    with Client(server.port) as client:
        client.send_bytes(
            f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * 99
        )
        wait_until(lambda: get(server.port, "/upload_begun").text == "True", "the upload has begun")
        assert "another request" in get(server.port, "/suspend_idle").text
        client.send_bytes(b"x" * (size - 99))
        assert client.response().text == str(size)


def test_the_continuation_of_an_ended_request_leaves_the_next_on_its_connection_alone(
    serve: Callable,
) -> None:
    server = serve(REFUSALS)
    client = Client(server.port)
    assert client.get("/keep").text == "kept"
    client.send("/park", name="it")
    wait_for_parked(server.port, 1)
    get(server.port, "/use_ended")
    client.finish()
    wait_for_parked(server.port, 0)


# Where no coroutine may be left


CALLBACKS = (
    ROUTES
    + """
import ctypes, functools, sqlite3

def attempt(c):
    try:
        return c.suspend(5)
    except server.ContinuationError as error:
        return str(error)

def do_ctypes(c, environ):
    texts = []
    callback = ctypes.CFUNCTYPE(None)(lambda: texts.append(attempt(c)))
    callback()
    return texts[0]

def do_qsort(c, environ):
    texts = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    def compare(one, other):
        texts.append(attempt(c))
        return one[0] - other[0]
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), kind(compare))
    assert list(numbers) == [1, 2, 3]
    return texts[0]

def do_sqlite(c, environ):
    with sqlite3.connect(":memory:") as database:
        database.create_function("attempt", 0, lambda: attempt(c))
        return database.execute("select attempt()").fetchone()[0]

def do_afterwards(c, environ):
    do_ctypes(c, environ)
    return park(c, "it")

def do_sorted(c, environ):
    return json.dumps(sorted([3, 1, 2], key=lambda number: number + park(c, "it")))

def do_reduce(c, environ):
    return str(functools.reduce(lambda one, other: one + other + park(c, "it"), [1, 2, 3]))

def do_lazy(c, environ):
    return json.dumps(list(map(lambda number: number + park(c, "it"), filter(None, [1, 2]))))

def do_substitute(c, environ):
    import re
    return re.sub(r"x", lambda match: str(park(c, "it")), "axbx")

def do_default(c, environ):
    return json.dumps([object(), 1], default=lambda it: park(c, "it"))
"""
)


@pytest.mark.parametrize("path", ["/ctypes", "/qsort", "/sqlite"])
def test_suspending_in_a_callback_from_c(serve: Callable, path: str) -> None:
    server = serve(CALLBACKS)
    assert get(server.port, path).text == "cannot suspend inside a callback from a C library"
    assert get(server.port, path).text == "cannot suspend inside a callback from a C library"


READ_IN_A_CALLBACK = """
import ctypes

said = []

def app(environ, start_response):
    def read():
        try:
            said.append(repr(environ["wsgi.input"].read(1)))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    if environ["REQUEST_METHOD"] == "GET":
        body = said[0] if said else ""
    else:
        ctypes.CFUNCTYPE(None)(read)()
        body = str(len(environ["wsgi.input"].read(-1)))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


def test_a_read_that_would_wait_in_a_callback_is_refused_and_loses_nothing(serve: Callable) -> None:
    server = serve(READ_IN_A_CALLBACK)
    with Client(server.port) as client:
        # A body of this size is not collected before the request begins.
        client.send_bytes(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        wait_until(lambda: get(server.port, "/").text != "", "the read has ended")
        said = get(server.port, "/").text
        assert said.startswith("ContinuationError: cannot wait here: inside a callback from a C")
        client.send_bytes(b"x" * 100_000)
        assert client.response().text == "100000"


def test_a_request_suspends_again_once_the_callback_is_over(serve: Callable) -> None:
    server = serve(CALLBACKS)
    with Client(server.port) as client:
        client.send("/afterwards")
        wait_for_parked(server.port, 1)
        get(server.port, "/wake", name="it")
        assert client.response().text == "woken"


@pytest.mark.parametrize(
    ("path", "wakes", "answer"),
    [
        ("/sorted", ["-10", "20", "0"], "[3, 2, 1]"),
        ("/reduce", ["10", "20"], "36"),
        ("/lazy", ["10", "20"], "[11, 22]"),
        ("/substitute", ["1", "2"], "a1b2"),
        ("/default", ["'d'"], '["d", 1]'),
    ],
)
def test_suspending_under_python_s_own_c_code(
    serve: Callable, path: str, wakes: list[str], answer: str
) -> None:
    server = serve(CALLBACKS)
    with Client(server.port) as client:
        client.send(path)
        for value in wakes:
            wait_for_parked(server.port, 1)
            get(server.port, "/wake", name="it", value=value)
        assert client.response().text == answer


# Without the middleware, and without the server


def test_a_plain_application_has_a_client_and_no_continuation(serve: Callable) -> None:
    server = serve(
        """
        from meinheld.middleware import CLIENT_KEY, CONTINUATION_KEY

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            has = [CLIENT_KEY in environ, CONTINUATION_KEY in environ, environ.get(CONTINUATION_KEY)]
            return [repr(has).encode()]
        """
    )
    assert server.get() == (200, b"[True, False, None]")


def test_the_keys_are_the_documented_ones() -> None:
    assert (CLIENT_KEY, CONTINUATION_KEY) == ("meinheld.client", "meinheld.continuation")


class Silent(wsgiref.simple_server.WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_args: object) -> None:
        pass


@pytest.mark.parametrize("middleware", [SpawnMiddleware, ContinuationMiddleware])
def test_under_another_server_the_key_is_absent(middleware: Callable) -> None:
    seen: list[tuple[object, object]] = []

    def plain(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        seen.append((environ.get(CONTINUATION_KEY), environ.get(CLIENT_KEY)))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"answered"]

    app = wsgiref.validate.validator(middleware(plain))
    with wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=10) as response:
            assert response.read() == b"answered"
        thread.join(10)
    assert seen == [(None, None)]
