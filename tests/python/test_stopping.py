"""How a server stops: requests in flight have their time, suspended ones run their `finally`, and `run` returns.

By SIGTERM, by SIGINT, from a request, from a thread, by an exception; and again in the same process.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import VALIDATED
from process import Running
from program import PANIC
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

STOPPING = (
    ROUTES
    + """
import threading, time

def do_clean(c, environ, name):
    try:
        return park(c, name)
    finally:
        print("cleaned", name, sys.exc_info()[0].__name__ if sys.exc_info()[0] else "no exception", flush=True)

def do_suspends_in_finally(c, environ, name):
    try:
        return park(c, name)
    finally:
        try:
            c.suspend(0.05)
        finally:
            print("cleaned", name, flush=True)

def do_stubborn(c, environ, name):
    parked[name] = c
    while True:
        try:
            c.suspend()
        except server.Stopped:
            pass

def do_catches(c, environ, name):
    try:
        park(c, name)
    except server.Stopped as error:
        assert not isinstance(error, Exception)
        return "goodbye"

def do_works(c, environ, name):
    # Goes on by itself, several suspensions long.
    parked[name] = c
    for _ in range(10):
        try:
            c.suspend(0.05)
        except server.timeout:
            pass
    return "worked"

def do_streams(c, environ, name):
    def pieces():
        yield b"first "
        for _ in range(3):
            try:
                c.suspend(0.05)
            except server.timeout:
                yield b"more "
        yield b"last"
    return pieces()

def do_stop(c, environ, timeout):
    result = server.stop(eval(timeout))
    return f"stopping {result}"

def do_stop_by_thread(c, environ, timeout):
    threading.Thread(target=server.shutdown, args=(eval(timeout),)).start()
    return "stopping"

def do_exit(c, environ):
    raise SystemExit(5)

def do_interrupt(c, environ):
    raise KeyboardInterrupt
"""
)

PROGRAM = (
    STOPPING
    + VALIDATED
    + """
def listen():
    server.listen(("127.0.0.1", 0))
    print("http://%s:%d" % server.addresses()[0], flush=True)

"""
)


class Program(Running):
    """A Python program that serves by itself."""

    def __init__(self, directory: Path, source: str) -> None:
        (directory / "program.py").write_text(source)
        super().__init__([sys.executable, "program.py"], directory / "program.log", cwd=directory)

    def port_of_run(self, number: int) -> int:
        """The port of its run of that number, from 0 on, once it listens."""
        self.wait_for("http://127.0.0.1:", number + 1)
        return int(re.findall(r"http://127\.0\.0\.1:(\d+)$", self.output(), re.MULTILINE)[number])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Start a program; it is ended by its id if the test leaves it running."""
    started: list[Program] = []

    def start(source: str) -> Program:
        directory = tmp_path / f"program{len(started)}"
        directory.mkdir()
        started.append(Program(directory, source))
        return started[-1]

    yield start
    for one in started:
        one.stop(signal.SIGKILL)


def answer_or_end(client: Client) -> int:
    """The status that came, or 0 if the connection was closed."""
    try:
        return client.response().status
    except EOFError:
        return 0


# SIGTERM


def test_sigterm_ends_what_is_left_after_the_grace(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=1)
    names = ["a", "b", "c"]
    clients = [Client(server.port).send("/clean", name=name) for name in names]
    wait_for_parked(server.port, 3)
    begin = time.monotonic()
    assert server.stop() == 0
    assert 0.9 <= time.monotonic() - begin < 8
    for client in clients:
        assert answer_or_end(client) in (0, 503)
        client.finish()
    for name in names:
        assert server.output().count(f"cleaned {name} Stopped") == 1


def test_no_grace_at_all(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=0)
    with Client(server.port).send("/clean", name="a") as client:
        wait_for_parked(server.port, 1)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 5
        assert answer_or_end(client) in (0, 503)
    assert "cleaned a Stopped" in server.output()


def test_a_finally_that_suspends_is_ended_too(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=0)
    with Client(server.port).send("/suspends_in_finally", name="a"):
        wait_for_parked(server.port, 1)
        assert server.stop() == 0
    assert "cleaned a" in server.output()


def test_requests_in_flight_finish_and_new_ones_are_refused(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=20)
    with (
        Client(server.port).send("/works", name="a") as works,
        Client(server.port).send("/streams", name="b") as streams,
        Client(server.port) as idle,
    ):
        assert idle.get("/parked").status == 200
        streams.head()
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert idle.end() == b"", "an idle connection is closed"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)
        assert works.response().text == "worked"
        assert streams.until(b"last\r\n0\r\n\r\n").count(b"more") == 3
    # A second signal would come too late for the server, and end what is left of the process.
    assert server.wait_for_end() == 0
    assert time.monotonic() - begin < 15, "it does not wait for the end of its grace"


def test_a_second_sigterm_ends_at_once(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=60)
    with Client(server.port).send("/clean", name="a"), Client(server.port) as idle:
        wait_for_parked(server.port, 1)
        idle.get("/parked")
        server.send_signal(signal.SIGTERM)
        assert idle.end() == b""
        assert server.stop() == 0
    assert "cleaned a Stopped" in server.output()


def test_an_application_may_say_goodbye(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=0)
    with Client(server.port).send("/catches", name="a") as client:
        wait_for_parked(server.port, 1)
        assert server.stop() == 0
        response = client.response()
        assert (response.status, response.text) == (200, "goodbye")
        assert response.headers["connection"] == "close"


def test_a_request_that_will_not_end_is_abandoned_with_one_line(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=0)
    with (
        Client(server.port).send("/stubborn", name="a") as stubborn,
        Client(server.port).send("/clean", name="b"),
    ):
        wait_for_parked(server.port, 2)
        before = server.output()
        assert server.stop() == 0
        assert answer_or_end(stubborn) == 0
    lines = server.output().removeprefix(before).splitlines()
    assert "cleaned b Stopped" in lines
    said = [line for line in lines if "abandoned" in line]
    assert len(said) == 1
    assert "1 coroutine could not be ended and was abandoned" in said[0]


# SIGINT


def test_sigint_ends_suspended_requests_at_once_and_the_others_finish(serve: Callable) -> None:
    server = serve(STOPPING, graceful_timeout=30)
    with Client(server.port).send("/clean", name="a") as client:
        wait_for_parked(server.port, 1)
        begin = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - begin < 5
        assert answer_or_end(client) in (0, 503)
    assert "cleaned a Stopped" in server.output()


@pytest.mark.parametrize(("silent", "says"), [("0", "interrupted"), ("1", "returned")])
def test_sigint_is_a_keyboard_interrupt_unless_silent(
    program: Callable, silent: str, says: str
) -> None:
    running = program(
        PROGRAM
        + f"""
listen()
try:
    server.run(app, {silent})
    print("returned")
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    port = running.port
    with Client(port).send("/clean", name="a"):
        wait_for_parked(port, 1)
        running.send_signal(signal.SIGINT)
        assert running.wait_for_end() == 0
    assert running.output().splitlines()[1:] == ["cleaned a Stopped", says]


def test_sigterm_is_no_keyboard_interrupt(program: Callable) -> None:
    running = program(PROGRAM + "\nlisten()\nserver.run(app)\nprint('returned')\n")
    get(running.port, "/parked")
    running.send_signal(signal.SIGTERM)
    assert running.wait_for_end() == 0
    assert running.output().endswith("returned\n")


# From within


@pytest.mark.parametrize("path", ["/stop", "/stop_by_thread"])
@pytest.mark.parametrize("timeout", ["0.3", "1"])
def test_stop_gives_the_time_that_it_is_told(program: Callable, path: str, timeout: str) -> None:
    running = program(PROGRAM + "\nlisten()\nserver.run(app)\nprint('returned')\n")
    port = running.port
    with Client(port).send("/clean", name="a") as client:
        wait_for_parked(port, 1)
        begin = time.monotonic()
        assert get(port, path, timeout=timeout).text.startswith("stopping")
        assert running.wait_for_end() == 0
        assert float(timeout) - 0.1 <= time.monotonic() - begin < float(timeout) + 5
        assert answer_or_end(client) in (0, 503)
    assert running.output().splitlines()[1:] == ["cleaned a Stopped", "returned"]


@pytest.mark.parametrize("timeout", ["0", "None"])
def test_stop_without_a_limit_waits_for_all(program: Callable, timeout: str) -> None:
    running = program(PROGRAM + "\nlisten()\nserver.run(app)\nprint('returned')\n")
    port = running.port
    with Client(port).send("/works", name="a") as client:
        wait_for_parked(port, 1)
        get(port, "/stop", timeout=timeout)
        assert client.response().text == "worked"
    assert running.wait_for_end() == 0


def test_stop_without_a_server_does_nothing(program: Callable) -> None:
    running = program(
        PROGRAM
        + """
server.stop()
server.shutdown(1)
listen()
server.stop(1)
print("nothing")
"""
    )
    assert running.wait_for_end() == 0
    assert running.output().endswith("nothing\n")


def test_a_server_runs_twice_in_one_process(program: Callable) -> None:
    running = program(
        PROGRAM
        + """
import gc, os
kept = []

def do_keep(c, environ):
    kept.append(c)
    return "kept"

def told(call, *args):
    try:
        return f"no error: {call(*args)!r}"
    except server.ContinuationError as error:
        return "refused"

for number in range(3):
    listen()
    server.run(app)
    # What is left of a server that has stopped harms nobody.
    print("returned", [told(c.suspend, 1) + " " + told(c.resume) + f" {c.suspended} {c.connected}" for c in kept])
    if number == 1:
        kept.clear()
gc.collect()
print("sockets", sum("socket" in os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
                      if os.path.exists("/proc/self/fd/" + fd)))
"""
    )
    for number in range(3):
        port = running.port_of_run(number)
        assert get(port, "/keep").text == "kept"
        with Client(port).send("/clean", name="a"):
            wait_for_parked(port, 1)
            get(port, "/stop", timeout="0.05")
            wait_until(
                lambda number=number: running.output().count("returned") > number,
                "run has returned",
            )
    assert running.wait_for_end() == 0
    lines = [line for line in running.output().splitlines() if line.startswith(("returned", "sock"))]
    assert lines == [
        "returned ['refused refused False False']",
        "returned ['refused refused False False', 'refused refused False False']",
        "returned ['refused refused False False']",
        "sockets 0",
    ]


# Exceptions


@pytest.mark.parametrize("error", ["LookupError('by hand')", "KeyboardInterrupt('by hand')"])
def test_what_a_handler_of_the_program_s_own_raises_leaves_run(
    program: Callable, error: str
) -> None:
    running = program(
        PROGRAM
        + f"""
import signal

def handle(number, frame):
    raise {error}

signal.signal(signal.SIGUSR1, handle)
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)
listen()
try:
    server.run(app)
except BaseException as error:
    print("raised", repr(error))
assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1))
"""
    )
    port = running.port
    with Client(port).send("/clean", name="a"):
        wait_for_parked(port, 1)
        running.send_signal(signal.SIGUSR1)
        assert running.wait_for_end() == 0
    assert running.output().splitlines()[1:] == ["cleaned a Stopped", f"raised {error}"]


PANICKING = (
    PANIC
    + """
import signal

def do_panic(c, environ):
    raise Panic("in a request")

def do_panic_midway(c, environ):
    try:
        yield b"some"
        raise Panic("in a body")
    finally:
        notes.append("ended")

def handle(number, frame):
    raise Panic("in the loop")

signal.signal(signal.SIGUSR1, handle)
"""
)


def test_a_panic_in_a_request_is_its_500(program: Callable) -> None:
    running = program(PROGRAM + PANICKING + "\nlisten()\nserver.run(app)\n")
    port = running.port
    with Client(port) as client, Client(port) as other:
        assert client.get("/panic").status == 500
        assert client.end() == b""
        assert other.get("/parked").text == "0"
        response = other.get("/panic_midway")
        assert (response.status, response.body, response.complete) == (200, b"some", False)
    assert get(port, "/notes").json() == ["ended"]
    running.send_signal(signal.SIGTERM)
    assert running.wait_for_end() == 0
    assert "the application panicked on a request from 127.0.0.1" in running.output()


def test_a_panic_of_the_server_ends_the_process_and_says_so(program: Callable) -> None:
    running = program(
        PROGRAM
        + PANICKING
        + """
listen()
try:
    server.run(app)
except Exception:
    print("an exception that programs catch")
"""
    )
    port = running.port
    with Client(port).send("/clean", name="a") as client:
        wait_for_parked(port, 1)
        running.send_signal(signal.SIGUSR1)
        assert running.wait_for_end() == 1
        assert client.end() == b""
    lines = running.output().splitlines()
    assert "the server has failed and cannot go on, please report it: in the loop" in lines
    assert lines[-1].endswith("PanicException: in the loop")
    assert "an exception that programs catch" not in lines


def test_the_command_ends_with_a_status_when_the_server_panics(serve: Callable) -> None:
    server = serve(ROUTES + PANICKING)
    server.expects_traceback = True
    with Client(server.port).send("/park", name="a"):
        wait_for_parked(server.port, 1)
        assert server.stop(signal.SIGUSR1) == 1
    assert "ERROR the server has failed and cannot go on, please report it: in the loop" in server.output()


def test_a_program_that_catches_a_panic_can_serve_again(program: Callable) -> None:
    running = program(
        PROGRAM
        + PANICKING
        + """
for _ in range(2):
    listen()
    try:
        server.run(app)
    except Panic as panic:
        print("caught", panic)
"""
    )
    for number in range(2):
        port = running.port_of_run(number)
        assert get(port, "/parked").text == "0"
        running.send_signal(signal.SIGUSR1)
        wait_until(lambda number=number: running.output().count("caught") > number, "caught")
    assert running.wait_for_end() == 0


def test_a_handler_that_does_not_raise_changes_nothing(program: Callable) -> None:
    running = program(
        PROGRAM
        + """
import signal

signal.signal(signal.SIGUSR1, lambda *_: notes.append("handled"))
signal.signal(signal.SIGTERM, lambda *_: server.stop(0.1))
listen()
server.run(app)
print("returned")
"""
    )
    port = running.port
    for _ in range(20):
        running.send_signal(signal.SIGUSR1)
        wait_until(lambda: get(port, "/notes").json() != [], "the handler has run")
    running.send_signal(signal.SIGTERM)
    assert running.wait_for_end() == 0
    assert running.output().endswith("returned\n")


@pytest.mark.parametrize(("path", "error"), [("/exit", "SystemExit(5)"), ("/interrupt", "KeyboardInterrupt()")])
def test_what_ends_a_program_ends_the_server(program: Callable, path: str, error: str) -> None:
    running = program(
        PROGRAM
        + """
listen()
try:
    server.run(app)
except BaseException as error:
    print("raised", repr(error))
"""
    )
    port = running.port
    with Client(port).send("/clean", name="a"), Client(port) as client:
        wait_for_parked(port, 1)
        assert answer_or_end(client.send(path)) in (0, 500)
        assert running.wait_for_end() == 0
    assert running.output().endswith(f"raised {error}\n")
    assert "cleaned a Stopped" in running.output()


def test_an_exit_status_is_the_process_s(program: Callable) -> None:
    running = program(PROGRAM + "\nlisten()\nserver.run(app)\n")
    with Client(running.port) as client:
        client.send("/exit").end()
    assert running.wait_for_end() == 5


def test_a_server_runs_on_a_thread_that_is_not_the_main_one(program: Callable) -> None:
    running = program(
        PROGRAM
        + """
listen()
thread = threading.Thread(target=server.run, args=(app,))
thread.start()
thread.join(30)
print("returned", thread.is_alive())
"""
    )
    port = running.port
    with Client(port).send("/clean", name="a"):
        wait_for_parked(port, 1)
        get(port, "/stop", timeout="0.1")
        assert running.wait_for_end() == 0
    assert running.output().splitlines()[1:] == ["cleaned a Stopped", "returned False"]


def test_run_inside_a_request_is_refused(program: Callable) -> None:
    running = program(
        PROGRAM
        + """
def do_nested(c, environ):
    try:
        server.run(app)
    except RuntimeError as error:
        return str(error)

listen()
server.run(app)
"""
    )
    port = running.port
    assert get(port, "/nested").text == "the server runs already"
    running.send_signal(signal.SIGTERM)
    assert running.wait_for_end() == 0


ON_A_DAEMON_THREAD = """
import threading, time, urllib.request, socket
from wsgiref.validate import validator
from meinheld import middleware, server

parked = threading.Event()

def app(environ, start_response):
    try:
        parked.set()
        environ["meinheld.continuation"].suspend()
    finally:
        print("cleaned up", flush=True)

server.listen(("127.0.0.1", 0))
port = server.addresses()[0][1]
application = validator(middleware.SpawnMiddleware(app))
threading.Thread(target=server.run, args=(application,), daemon=True).start()
client = socket.create_connection(("127.0.0.1", port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
assert parked.wait(10)
"""


def test_a_server_on_a_daemon_thread_cleans_up_when_the_program_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ON_A_DAEMON_THREAD)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "cleaned up\n"), done.stderr
