"""Memory that runs out inside a request is that request's MemoryError, and nobody else's.

CPython's own allocators are made to fail, the N-th allocation from here on and some after it, for every N that
the work has; the response is the result or a 500, and the server goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from conftest import Server
from routes import ROUTES
from wire import Client, Response

pytest.importorskip("_testcapi", reason="this CPython cannot be told to run out of memory")

# How many allocations fail in a row, and from which one on; heavier with STRESS_SECONDS.
FAILURES = (1, 3, 40)
STARTS = range(200) if "STRESS_SECONDS" in os.environ else range(60)

INJECTED = (
    ROUTES
    + r'''
import _testcapi, os

errors = []

class Odd(Exception):
    pass

def fail(start, count):
    _testcapi.set_nomemory(start, start + count)

def do_inject(c, environ, kind, start, count):
    work = globals()["fails_" + kind](c, environ)
    next(work)
    fail(int(start), int(count))
    try:
        next(work)
    except StopIteration:
        return "done"
    finally:
        _testcapi.remove_mem_hooks()
    return "done"

def do_leave(c, environ, start, count):
    # It goes on failing when this request has ended.
    fail(int(start), int(count))
    return "left"

def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path, query, target = environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"]
    return [f"{path}?{query} {target.partition('?')[2]}".encode()]

def do_over(c, environ):
    _testcapi.remove_mem_hooks()
    return "over"

def do_errors(c, environ):
    return json.dumps(errors)

def fails_suspend(c, environ):
    yield
    try:
        c.suspend(0.001)
        errors.append("suspend returned")
    except server.timeout:
        pass

def fails_resumed(c, environ):
    # Whoever has resumed once must have woken it.
    resumed = []
    def wake():
        server.sleep(0)
        while not resumed:
            try:
                c.resume("value")
                resumed.append(True)
            except MemoryError:
                pass
            except server.ContinuationError:
                return  # it never came to suspend
    server.spawn(wake)
    yield
    try:
        value = c.suspend(3)
    except server.timeout:
        errors.append(f"a wake-up was lost, resumed {resumed}")
    else:
        if value != "value":
            errors.append(f"woken with {value!r}")

def fails_thrown(c, environ):
    odd = Odd()
    def wake():
        server.sleep(0)
        while True:
            try:
                return c.throw(odd)
            except MemoryError:
                pass
            except server.ContinuationError:
                return
    server.spawn(wake)
    yield
    try:
        c.suspend(3)
    except Odd:
        pass
    except server.timeout:
        errors.append("an exception was lost")

def fails_spawn(c, environ):
    def work(value):
        return value
    yield
    task = server.spawn(work, (5,))
    try:
        value = task.join(3)
    except server.timeout:
        errors.append(f"{task} has not ended")
        return
    if value != 5 and task.exception is None:
        errors.append(f"a spawned call returned {value!r}")

def fails_joined(c, environ):
    def work():
        server.sleep(0)
        server.sleep(0.001)
        return [1, 2]
    task = server.spawn(work)
    yield
    try:
        task.join(3)
    except server.timeout:
        errors.append(f"{task} has not ended")

def fails_killed(c, environ):
    ended = [False]
    def work():
        try:
            server.sleep(3)
        finally:
            ended[0] = True
    task = server.spawn(work)
    server.sleep(0)
    yield
    for _ in range(100):
        try:
            task.kill()
            break
        except MemoryError:
            pass
    for _ in range(100):
        try:
            task.join(2)
            if not ended[0]:
                errors.append(f"{task} was killed and its finally block was not run")
            return
        except server.timeout:
            errors.append(f"{task} was killed and lives")
        except MemoryError:
            pass

def fails_timer(c, environ):
    called = []
    yield
    timer = server.schedule_call(0.001, called.append, 1)
    timer.cancel()
    timer = server.schedule_call(0, called.append, 1)
    server.sleep(0)

def fails_trampoline(c, environ):
    reading, writing = os.pipe()
    try:
        yield
        try:
            server.trampoline(reading, read=True, timeout=0.001)
            errors.append("an empty pipe was ready")
        except server.timeout:
            pass
        os.write(writing, b"1")
        server.trampoline(reading, read=True, timeout=3)
    finally:
        os.close(reading)
        os.close(writing)

def fails_continuation(c, environ):
    client = environ[CLIENT_KEY]
    yield
    made = client.continuation()
    try:
        made.suspend(0.0001)
    except server.timeout:
        pass
    repr(made), made.suspended, made.connected, client.get_fd()

def fails_refused(c, environ):
    # What is refused with an exception of the server's own. CPython to 3.13 dies of a lambda without memory.
    calls = [c.resume, lambda: c.suspend(-1), lambda: c.throw(1), lambda: server.spawn(1), lambda: server.stop("x")]
    yield
    for call in calls:
        try:
            call()
        except (server.ContinuationError, ValueError, TypeError):
            pass

def do_pieces(c, environ, start, count):
    def pieces():
        yield b"first "
        fail(int(start), int(count))
        yield b"second "
        try:
            c.suspend(0.0001)
        except server.timeout:
            pass
        yield b"third"
        _testcapi.remove_mem_hooks()
    return pieces()

dispatch = app

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/echo"):
        # Without what the dispatcher does: CPython to 3.13 dies of a function that is made without memory.
        return echo(environ, start_response)
    if path not in ("/responds", "/reads"):
        return dispatch(environ, start_response)
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    fail(int(query["start"]), int(query["count"]))
    try:
        if path == "/reads":
            got = environ["wsgi.input"].read(3), environ["wsgi.input"].readline(), environ["wsgi.input"].read()
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Number", "1" * 5)])
        write(b"written ")
        return [b"and returned"]
    finally:
        _testcapi.remove_mem_hooks()
'''
)

KINDS = [
    "suspend",
    "resumed",
    "thrown",
    "spawn",
    "joined",
    "killed",
    "timer",
    "trampoline",
    "continuation",
    "refused",
]


class Asker:
    """One client after the other: a connection whose response failed is closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client: Client | None = None

    def ask(self, request: bytes) -> Response | None:
        """The response, or None if the connection ended without one."""
        if self.client is None:
            self.client = Client(self.port)
        self.client.send_bytes(request)
        try:
            response = self.client.response()
        except EOFError:
            response = None
        if response is None or not response.complete or response.headers.get("connection") == "close":
            self.client.finish()
            self.client = None
        return response

    def get(self, target: str) -> Response | None:
        return self.ask(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def asker(serve: Callable) -> tuple[Server, Asker]:
    # What fails is to be the server's, not the validator's.
    server = serve(INJECTED, validate=False)
    server.expects_traceback = True
    return server, Asker(server.port)


def check(server: Server, asker: Asker) -> None:
    response = asker.get("/errors")
    assert response is not None and response.json() == [], server.output()[-4000:]
    assert "left behind" not in server.output() and "Fatal" not in server.output(), server.output()[-4000:]


@pytest.mark.parametrize("count", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
def test_memory_runs_out_in_a_call(serve: Callable, kind: str, count: int) -> None:
    server, one = asker(serve)
    # What is made once is there then.
    assert one.get(f"/inject?kind={kind}&start=100000&count=1").status == 200
    statuses = []
    for start in STARTS:
        response = one.get(f"/inject?kind={kind}&start={start}&count={count}")
        assert response is not None and response.status in (200, 500), (start, server.output()[-4000:])
        statuses.append(response.status)
        after = one.get("/parked")
        assert after is not None and (after.status, after.text) == (200, "0"), (start, server.output()[-4000:])
    check(server, one)
    assert 500 in statuses and statuses[-1] == 200, statuses


@pytest.mark.parametrize("count", FAILURES)
@pytest.mark.parametrize("path", ["responds", "reads", "pieces"])
def test_memory_runs_out_in_a_response(serve: Callable, path: str, count: int) -> None:
    server, one = asker(serve)
    seen = []
    for start in [100_000, *STARTS]:
        target = f"/{path}?start={start}&count={count}"
        request = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab\ncd\nefg"
        response = one.ask(request.encode())
        seen.append(response)
        if response is not None and response.complete and response.status != 500:
            assert response.text in ("written and returned", "first second third"), response
        wait_for_memory(one)
    check(server, one)
    assert seen[0].complete and seen[-1].complete
    assert any(response is None or response.status == 500 or not response.complete for response in seen)


@pytest.mark.parametrize("count", FAILURES)
def test_memory_runs_out_around_a_request(serve: Callable, count: int) -> None:
    """Where the environ is built, the response is ended and what has failed is logged."""
    server, one = asker(serve)
    clients = [one, Asker(server.port)]
    statuses = []
    for start in [100_000, *STARTS]:
        one.get(f"/leave?start={start}&count={count}")
        for number in range(6):
            response = clients[number % 2].get(f"/echo{number // 2}?{start}")
            statuses.append(0 if response is None else response.status)
            if statuses[-1] != 500 and response is not None:
                assert response.text == f"/echo{number // 2}?{start} {start}"
        wait_for_memory(one)
        # What was built halfway is nobody's environ.
        for client in clients:
            for number in range(3):
                assert client.get(f"/echo{number}?{start}").text == f"/echo{number}?{start} {start}"
    check(server, one)
    assert 500 in statuses and 200 in statuses


def wait_for_memory(one: Asker) -> None:
    for _ in range(200):
        over = one.get("/over")
        if over is not None and over.status == 200:
            return
    raise AssertionError("memory stays short")
