"""A request that forks, or has multiprocessing do so: the child's end is its own, whatever it does; what is parked
is the parent's alone, which serves on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

FORKING = """
import os, sys
from meinheld import middleware

class Body:
    # Forks while it is iterated, or closed.
    def __init__(self, how):
        self.how = how
    def __iter__(self):
        yield b"in the parent: "
        if self.how == "in_body":
            if os.fork() == 0:
                return
            os.wait()
        yield b"more"
    def close(self):
        if self.how == "in_close" and os.fork() > 0:
            os.wait()

def app(environ, start_response):
    how = environ["PATH_INFO"].strip("/")
    if how in ("in_body", "in_close"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body(how)
    if how:
        pid = os.fork()
        if pid == 0:
            if how == "exit":
                sys.exit(3)
            if how == "raise":
                raise ValueError("in the child")
            if how == "return":
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"child"]
            environ["meinheld.continuation"].suspend()
        status = os.waitpid(pid, 0)[1]
        body = str(os.waitstatus_to_exitcode(status))
    else:
        body = "here"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]

app = middleware.SpawnMiddleware(app)
"""


@pytest.mark.parametrize(
    ("how", "status"), [("exit", "3"), ("raise", "1"), ("return", "0"), ("suspend", "1")]
)
def test_a_forked_child_that_comes_back_ends_alone(
    serve: Callable, how: str, status: str
) -> None:
    server = serve(FORKING)
    server.expects_traceback = True
    with Client(server.port) as client:
        assert client.send(f"/{how}").response().text == status
        # The connection is in step, and new ones are taken.
        assert client.send("/").response().text == "here"
    assert get(server.port, "/").text == "here"


@pytest.mark.parametrize("how", ["in_body", "in_close"])
def test_a_body_that_forks_is_sent_once(serve: Callable, how: str) -> None:
    # The validator wants its own way with an iterable.
    server = serve(FORKING, validate=False)
    with Client(server.port) as client:
        for _ in range(3):
            assert client.get(f"/{how}").text == "in the parent: more"
        assert client.get("/").text == "here"


PROCESSES = (
    ROUTES
    + """
import concurrent.futures, multiprocessing, os, signal, time
import helper

fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
lasting = []

def do_wait(c, environ, name):
    try:
        return park(c, name)
    finally:
        # Whose `finally` this is.
        with open("finally", "a") as file:
            file.write(f"{name} {os.getpid()}\\n")

def do_finally(c, environ):
    return open("finally").read() if os.path.exists("finally") else ""

def put(queue, value):
    queue.put(value * 2)

def fails():
    raise ValueError("in a child")

def do_process(c, environ):
    queue = fork.Queue()
    process = fork.Process(target=put, args=(queue, 21))
    process.start()
    value = queue.get(timeout=20)
    process.join(20)
    return f"{value} {process.exitcode}"

def do_failing(c, environ):
    process = fork.Process(target=fails)
    process.start()
    process.join(20)
    return str(process.exitcode)

def do_pool(c, environ):
    with fork.Pool(2) as pool:
        return str(pool.map(helper.square, range(5)))

def do_executor(c, environ):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as executor:
        return str(list(executor.map(helper.square, range(5))))

def do_manager(c, environ):
    with fork.Manager() as manager:
        shared = manager.dict()
        process = fork.Process(target=shared.__setitem__, args=("key", 5))
        process.start()
        process.join(20)
        return str(dict(shared))

def do_spawned_pool(c, environ):
    with spawn.Pool(1) as pool:
        return str(pool.map(helper.square, range(5)))

def do_spawned_executor(c, environ):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as executor:
        return str(list(executor.map(helper.square, range(5))))

def do_last(c, environ):
    # A child that outlives its request.
    process = fork.Process(target=time.sleep, args=(60,))
    process.start()
    lasting.append(process)
    return str(process.pid)

def do_outlive(c, environ):
    # Nobody waits for this one when the server ends, as multiprocessing does.
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return str(pid)

def do_terminate(c, environ):
    process = lasting.pop()
    process.terminate()
    process.join(20)
    return str(process.exitcode)

def told(call):
    try:
        return repr(call())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def uses(c, queue):
    calls = [lambda: c.suspend(1), lambda: server.sleep(0.001), lambda: server.spawn(print).join(1), server.stop,
        lambda: server.listen(("127.0.0.1", 0)), lambda: server.run(app)]
    queue.put([told(call) for call in calls])

def do_child_uses(c, environ):
    queue = fork.Queue()
    process = fork.Process(target=uses, args=(c, queue))
    process.start()
    texts = queue.get(timeout=20)
    process.join(20)
    return json.dumps([*texts, process.exitcode])
"""
)

HELPER = "def square(number):\n    return number * number\n"

ANSWERS = {
    "process": "42 0",
    "failing": "1",
    "pool": "[0, 1, 4, 9, 16]",
    "executor": "[0, 1, 4, 9, 16]",
    "manager": "{'key': 5}",
    "spawned_pool": "[0, 1, 4, 9, 16]",
    "spawned_executor": "[0, 1, 4, 9, 16]",
}


@pytest.fixture
def processes(serve: Callable, tmp_path: Path) -> Server:
    (tmp_path / "helper.py").write_text(HELPER)
    return serve("import sys\nsys.path.insert(0, '..')\n" + PROCESSES)


def test_multiprocessing_works_in_a_request(processes: Server) -> None:
    processes.expects_traceback = True
    with Client(processes.port, seconds=40) as other, Client(processes.port, seconds=40) as client:
        other.send("/wait", name="other")
        wait_for_parked(processes.port, 1)
        for path, answer in ANSWERS.items():
            assert client.get(f"/{path}").text == answer, path
        # What is parked has been left alone by every child.
        assert get(processes.port, "/finally").text == ""
        get(processes.port, "/wake", name="other")
        assert other.response().text == "woken"
    assert get(processes.port, "/finally").text == f"other {processes.pid}\n"


def test_what_a_child_cannot_do_it_is_told(processes: Server) -> None:
    suspend, sleep, join, stop, listen, run, status = get(processes.port, "/child_uses").json()
    assert suspend == "ContinuationError: cannot suspend here: this process was forked by the request"
    assert (sleep, stop, status) == ("None", "None", 0)
    assert join.startswith("ContinuationError: cannot join here")
    for text in (listen, run):
        assert text.startswith("RuntimeError: this process was forked by a running server and cannot serve")
    assert get(processes.port, "/parked").text == "0"


def test_a_child_that_lasts_keeps_no_connection_open(processes: Server) -> None:
    idle = Client(processes.port)
    assert idle.get("/parked").text == "0"
    with Client(processes.port) as client:
        client.send_bytes(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        child = int(client.response().text)
        assert client.end() == b""
    with Client(processes.port) as client:
        client.send_bytes(b"GET /parked HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.response().text == "0"
        assert client.end() == b""
    assert get(processes.port, "/terminate").text == str(-signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    idle.finish()


def test_a_child_that_outlives_the_server_keeps_no_connection_open(
    processes: Server, tmp_path: Path
) -> None:
    with Client(processes.port) as parked, Client(processes.port) as idle:
        parked.send("/wait", name="it")
        wait_for_parked(processes.port, 1)
        child = int(idle.get("/outlive").text)
        try:
            assert processes.stop(signal.SIGINT) == 0
            assert idle.end() == b""
            parked.end()
            assert (tmp_path / "server0" / "finally").read_text() == f"it {processes.pid}\n"
        finally:
            os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_alive(child), "SIGTERM ends the child")


SIGNALLED_EARLY = """
import os, signal
from collections.abc import Callable

at_birth: list[Callable[[], None]] = []
# Hooks run in the order of their registration: this one before the server's.
os.register_at_fork(after_in_child=lambda: [each() for each in at_birth])

from meinheld import server

def status():
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def main():
    try:
        statuses = [status()]
        for number in (signal.SIGTERM, signal.SIGINT):
            at_birth[:] = [lambda: os.kill(os.getpid(), number)]
            statuses.append(status())
        print(statuses, signal.pthread_sigmask(signal.SIG_BLOCK, []))
    finally:
        server.stop()

server.listen(("127.0.0.1", 0))
server.spawn(main)
server.run(lambda environ, start_response: [])
"""


def test_a_child_that_is_signalled_while_it_is_forked_is_ended_by_that(tmp_path: Path) -> None:
    """As soon as there is a process it may be sent a signal, which is not the server's."""
    (tmp_path / "program.py").write_text(SIGNALLED_EARLY)
    command = [sys.executable, "program.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    # SIGINT raises KeyboardInterrupt, which a hook that is run by `fork` only tells of.
    assert done.stdout == f"[7, {-signal.SIGTERM}, 7] set()\n", done.stderr
    assert "KeyboardInterrupt" in done.stderr


def is_alive(pid: int) -> bool:
    """Whether it runs; who has ended, and is not waited for by anybody, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
