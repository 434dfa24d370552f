"""A request suspends, and comes back with what it was resumed with, in the order of the resumes.

The promises of `Continuation.suspend`, `resume`, `throw`, `suspended` and `connected` between requests of one
thread; time-outs included.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get

from meinheld import server as meinheld_server


# How long


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "0",
        "0.0",
        "None",
        "timeout=None",
        "False",
        "10**12",
        "10**400",
        "1e300",
        "float('inf')",
        "__import__('fractions').Fraction(10**9)",
        "__import__('decimal').Decimal('1e9')",
    ],
)
def test_a_wait_without_a_near_end(serve: Callable, arguments: str) -> None:
    server = serve(
        ROUTES
        + f"""
def do_wait(c, environ):
    parked["it"] = c
    return c.suspend({arguments})
"""
    )
    with Client(server.port) as client:
        client.send("/wait")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/wake", name="it").text == "resumed"
        assert client.response().text == "woken"


TIMED = (
    ROUTES
    + """
import time

def do_time_out(c, environ, seconds):
    begin = time.monotonic()
    try:
        c.suspend(eval(seconds))
    except server.timeout as error:
        kinds = [isinstance(error, kind) for kind in (OSError, TimeoutError)]
        elapsed = time.monotonic() - begin
        notes.append(seconds)
        return json.dumps([kinds, elapsed, str(error), c.suspended])
    return "not timed out"

def do_refused(c, environ, seconds):
    try:
        c.suspend(eval(seconds))
    except (ValueError, TypeError) as error:
        refusal = [type(error).__name__, str(error)]
        parked["it"] = c
        return json.dumps([*refusal, c.suspend(5)])
    return "not refused"
"""
)


@pytest.mark.parametrize(("seconds", "least"), [("0.05", 0.05), ("1", 1), ("1e-9", 0), ("True", 1)])
def test_a_wait_ends_at_its_deadline(serve: Callable, seconds: str, least: float) -> None:
    server = serve(TIMED)
    kinds, elapsed, text, suspended = get(server.port, "/time_out", seconds=seconds).json()
    assert kinds == [True, True]
    assert least - 0.001 <= elapsed < least + 3
    assert "timed out" in text
    assert not suspended


def test_deadlines_are_kept_in_their_order(serve: Callable) -> None:
    server = serve(TIMED)
    every = ["0.3", "0.1", "0.4", "0.2"]
    clients = [Client(server.port).send("/time_out", seconds=seconds) for seconds in every]
    for client in clients:
        assert client.response().json()[0] == [True, True]
        client.finish()
    assert get(server.port, "/notes").json() == sorted(every)


def test_another_request_runs_while_one_waits_for_its_deadline(serve: Callable) -> None:
    server = serve(TIMED)
    with Client(server.port) as client:
        client.send("/time_out", seconds="0.5")
        for _ in range(20):
            assert get(server.port, "/parked").text == "0"
        assert client.response().json()[0] == [True, True]


def test_the_exceptions_are_what_programs_catch() -> None:
    assert issubclass(meinheld_server.timeout, OSError)
    assert issubclass(meinheld_server.timeout, TimeoutError)
    assert issubclass(meinheld_server.ClientDisconnected, ConnectionError)
    assert issubclass(meinheld_server.ContinuationError, OSError)
    assert not issubclass(meinheld_server.Stopped, Exception)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        ("-1", "ValueError"),
        ("-1e-9", "ValueError"),
        ("-10**400", "ValueError"),
        ("float('-inf')", "ValueError"),
        ("float('nan')", "ValueError"),
        ("'1'", "TypeError"),
        ("b'1'", "TypeError"),
        ("[]", "TypeError"),
        ("object()", "TypeError"),
        ("1j", "TypeError"),
    ],
)
def test_a_wait_of_no_length(serve: Callable, seconds: str, error: str) -> None:
    server = serve(TIMED)
    with Client(server.port) as client:
        client.send("/refused", seconds=seconds)
        wait_for_parked(server.port, 1)
        get(server.port, "/wake", name="it")
        name, text, woken = client.response().json()
    assert (name, woken) == (error, "woken")
    assert text


def test_an_error_of_the_timeout_itself_comes_through(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
class Odd:
    def __float__(self):
        raise LookupError("no number today")

def do_odd(c, environ):
    try:
        c.suspend(Odd())
    except LookupError as error:
        return str(error)
"""
    )
    assert get(server.port, "/odd").text == "no number today"


# What comes back


VALUES = (
    ROUTES
    + """
def do_value(c, environ, arguments):
    def passing(*args, **kwargs):
        result = parked["it"].resume(*args, **kwargs)
        notes.append(repr(result))
    eval(f"passing({arguments})", {"passing": passing})
    return "resumed"
"""
)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("", "()"),
        ("1", "1"),
        ("None", "None"),
        ("1, 2", "(1, 2)"),
        ("()", "()"),
        ("(1, 2)", "(1, 2)"),
        ("k=3", "{'k': 3}"),
        ("1, k=2", "((1,), {'k': 2})"),
        ("1, 2, k=3, m=4", "((1, 2), {'k': 3, 'm': 4})"),
        ("*range(100)", repr(tuple(range(100)))),
        ("**{}", "()"),
    ],
)
def test_what_resume_passes_suspend_returns(serve: Callable, arguments: str, value: str) -> None:
    server = serve(VALUES)
    with Client(server.port) as client:
        client.send("/park", name="it")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/value", arguments=arguments).text == "resumed"
        assert client.response().text == value
    assert get(server.port, "/notes").json() == ["None"], "resume returns None"


def test_the_very_object_is_passed(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
passed = object()

def do_receive(c, environ):
    return str(park(c, "it") is passed)

def do_pass(c, environ):
    notes.append(sys.getrefcount(passed))
    parked["it"].resume(passed)
    return "resumed"

def do_count(c, environ):
    return str(sys.getrefcount(passed) == notes[0])
"""
    )
    with Client(server.port) as client:
        client.send("/receive")
        wait_for_parked(server.port, 1)
        get(server.port, "/pass")
        assert client.response().text == "True"
    assert get(server.port, "/count").text == "True", "nothing still refers to what was passed"


def test_a_request_suspends_many_times_on_one_or_on_several(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
def do_many(c, environ, count):
    own = [c, environ[CLIENT_KEY].continuation(), environ[CLIENT_KEY].continuation()]
    seen = []
    for number in range(int(count)):
        seen.append(park(own[number % 3], "it"))
    return json.dumps(seen)
"""
    )
    with Client(server.port) as client, Client(server.port) as other:
        client.send("/many", count=9)
        for number in range(9):
            wait_for_parked(server.port, 1)
            other.get("/wake", name="it", value=number)
        assert client.response().json() == list(range(9))


# The order


ORDER = (
    ROUTES
    + """
def do_in_line(c, environ, name):
    park(c, name)
    notes.append(f"{name} runs")
    return name

def do_wake_in_order(c, environ, names):
    for name in names:
        parked[name].resume()
        notes.append(f"{name} resumed")
    notes.append("resumer ends")
    return names
"""
)


@pytest.mark.parametrize("names", ["abcdef", "fedcba", "cafebd"])
def test_resume_never_switches_and_the_first_resumed_runs_first(
    serve: Callable, names: str
) -> None:
    server = serve(ORDER)
    clients = {name: Client(server.port).send("/in_line", name=name) for name in "abcdef"}
    wait_for_parked(server.port, len(names))
    assert get(server.port, "/wake_in_order", names=names).text == names
    for name, client in clients.items():
        assert client.response().text == name
        client.finish()
    resumed = [f"{name} resumed" for name in names]
    ran = [f"{name} runs" for name in names]
    assert get(server.port, "/notes").json() == [*resumed, "resumer ends", *ran]


def test_two_requests_pass_the_turn_to_each_other(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
def do_ping(c, environ, rounds):
    return json.dumps([pass_on(c, "ping", "pong", number) for number in range(int(rounds))])

def do_pong(c, environ, rounds):
    first = park(c, "pong")
    got = [first] + [pass_on(c, "pong", "ping", number) for number in range(int(rounds) - 1)]
    parked["ping"].resume("last")
    return json.dumps(got)

def pass_on(c, own, other, number):
    parked[other].resume(number)
    return park(c, own)
"""
    )
    with Client(server.port) as pong, Client(server.port) as ping:
        pong.send("/pong", rounds=1000)
        wait_for_parked(server.port, 1)
        ping.send("/ping", rounds=1000)
        assert pong.response().json() == list(range(1000))
        assert ping.response().json() == [*range(999), "last"]


# Throwing


THROWN = (
    ROUTES
    + """
class Stop(BaseException):
    pass

class NeedsNothing(Exception):
    def __init__(self):
        super().__init__("made by its class")

class NeedsMore(Exception):
    def __init__(self, needed):
        super().__init__(needed)

instance = ValueError("an instance")

def do_catch(c, environ):
    try:
        park(c, "it")
    except BaseException as error:
        frames = []
        traceback = error.__traceback__
        while traceback:
            frames.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        return json.dumps([type(error).__name__, str(error), error is instance, frames])
    return "nothing raised"

def do_throw(c, environ, what):
    try:
        return repr(parked["it"].throw(eval(what)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""
)


@pytest.mark.parametrize(
    ("what", "name", "text", "same"),
    [
        ("instance", "ValueError", "an instance", True),
        ("KeyError('k')", "KeyError", "'k'", False),
        ("NeedsNothing", "NeedsNothing", "made by its class", False),
        ("ZeroDivisionError", "ZeroDivisionError", "", False),
        ("Stop", "Stop", "", False),
        ("Stop('now')", "Stop", "now", False),
        ("SystemExit(3)", "SystemExit", "3", False),
        ("server.timeout('by hand')", "timeout", "by hand", False),
        ("StopIteration(1)", "StopIteration", "1", False),
    ],
)
def test_what_throw_passes_is_raised(
    serve: Callable, what: str, name: str, text: str, same: bool
) -> None:
    server = serve(THROWN)
    with Client(server.port) as client:
        client.send("/catch")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/throw", what=what).text == "None"
        assert client.response().json() == [name, text, same, ["do_catch", "park"]]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("'a string'", "TypeError"),
        ("None", "TypeError"),
        ("int", "TypeError"),
        ("object()", "TypeError"),
        ("NeedsMore", "TypeError"),
    ],
)
def test_what_cannot_be_thrown(serve: Callable, what: str, error: str) -> None:
    server = serve(THROWN)
    with Client(server.port) as client:
        client.send("/catch")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/throw", what=what).text.startswith(error)
        assert get(server.port, "/parked").text == "1", "the request still waits"
        get(server.port, "/throw", what="instance")
        assert client.response().json()[0] == "ValueError"


# What they say


def test_suspended_and_connected_tell_the_truth(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
def do_flags(c, environ):
    kept["c"], kept["client"] = c, environ[CLIENT_KEY]
    notes.append(flags())
    try:
        park(c, "it")
    finally:
        notes.append(flags())
    return "ended"

kept = {}

def flags():
    return [kept["c"].suspended, kept["c"].connected, kept["client"].connected, kept["client"].get_fd() > 2]

def do_look(c, environ):
    return json.dumps(flags())
"""
    )
    with Client(server.port) as client:
        client.send("/flags")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/look").json() == [True, True, True, True]
        get(server.port, "/wake", name="it")
        assert client.response().text == "ended"
        client.get("/parked")
        look = client.get("/look").json()
        assert look == [False, False, False, False], "the request has ended, whatever follows it"
    assert get(server.port, "/notes").json() == [[False, True, True, True]] * 2


# What nobody catches


UNCAUGHT = (
    ROUTES
    + """
def do_before(c, environ):
    c.suspend(0.05)
    return "never"

def do_after(c, environ):
    def pieces():
        yield b"first"
        c.suspend(0.05)
        yield b"never"
    return pieces()
"""
)


def test_an_uncaught_timeout_is_a_500_and_one_line(serve: Callable) -> None:
    server = serve(UNCAUGHT)
    before = server.output()
    response = get(server.port, "/before")
    assert response.status == 500
    assert b"never" not in response.body
    lines = server.output().removeprefix(before).splitlines()
    assert len(lines) == 1, lines
    assert "GET /before" in lines[0]
    assert "timed out" in lines[0]


def test_an_uncaught_timeout_after_the_head_closes_the_connection(serve: Callable) -> None:
    server = serve(UNCAUGHT)
    before = server.output()
    with Client(server.port) as client:
        response = client.get("/after")
        assert response.status == 200
        assert response.body == b"first"
        assert not response.complete
        assert client.end() == b""
    lines = server.output().removeprefix(before).splitlines()
    assert len(lines) == 1, lines
    assert "GET /after" in lines[0]
    assert get(server.port, "/parked").text == "0"
