"""How an interpreter ends in which a server has run: with parked requests, daemon threads, and handlers at exit.

Every ending is orderly: the `finally` blocks of parked requests have run, the status is the program's, and nothing
is on stderr but what the program itself was to say there.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wire import Client

END_SECONDS = 20

PROGRAM = """
import atexit, faulthandler, os, sys, threading
from meinheld import middleware, server

faulthandler.enable()

def app(environ, start_response):
    c = environ[middleware.CONTINUATION_KEY]
    path = environ["PATH_INFO"].strip("/")
    try:
        if path == "park":
            c.suspend()
        elif path == "sleep":
            server.sleep(3600)
        elif path == "generator":
            return pieces(c)
        elif path == "exit":
            sys.exit(7)
        elif path == "stop":
            server.stop(0.05)
    finally:
        print("finally", path, flush=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

def pieces(c):
    try:
        c.suspend()
        yield b""
    finally:
        print("finally pieces", flush=True)

def task():
    try:
        server.sleep(3600)
    finally:
        print("finally task", flush=True)

def spin():
    while True:
        pass

def block():
    threading.Event().wait()

def read():
    os.read(os.pipe()[0], 1)

def recurse():
    def down(n):
        return n and down(n - 1)
    while True:
        down(500)

def allocate():
    while True:
        [[] for _ in range(1000)]

for work in {threads}:
    threading.Thread(target=globals()[work], daemon=True).start()

atexit.register(lambda: print("atexit", flush=True))
server.set_graceful_timeout(0.05)
server.listen(("127.0.0.1", 0))
server.spawn(task)
print("port", server.addresses()[0][1], flush=True)
{run}
"""

RUN = "server.run(middleware.SpawnMiddleware(app))"
RUN_ON_A_THREAD = f"threading.Thread(target=lambda: {RUN}, daemon=True).start()\nwhile sys.stdin.read(1): pass"

# What a request does to end the server, or the signal that is sent.
ENDINGS = {
    "returns": ("/stop", RUN, 0, ""),
    "sigterm": (signal.SIGTERM, RUN, 0, ""),
    "sigint": (signal.SIGINT, RUN, -signal.SIGINT, "KeyboardInterrupt"),
    "exit_in_a_request": ("/exit", RUN, 7, "SystemExit: 7"),
    "exit_afterwards": ("/stop", f"{RUN}\nsys.exit(5)", 5, ""),
    "raises_afterwards": ("/stop", f"{RUN}\nraise LookupError('afterwards')", 1, "LookupError: afterwards"),
    "on_a_daemon_thread": ("/stop_main", RUN_ON_A_THREAD, 0, ""),
    "on_a_thread_and_main_exits": ("/stop_main", f"{RUN_ON_A_THREAD}\nsys.exit(6)", 6, ""),
    "on_a_thread_and_main_raises": ("/stop_main", f"{RUN_ON_A_THREAD}\nraise LookupError('in main')", 1, "LookupError: in main"),
}

THREADS = [[], ["spin", "block", "read", "allocate", "recurse"]]


@contextmanager
def running(directory: Path, source: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (directory / "program.py").write_text(source)
    with (directory / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:1] == ["port"], (directory / "errors").read_text()
        yield process, int(words[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("threads", THREADS, ids=["alone", "beside_busy_threads"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interpreter_ends_in_order(tmp_path: Path, ending: str, threads: list[str]) -> None:
    how, run, status, said = ENDINGS[ending]
    source = PROGRAM.format(threads=threads, run=run)
    paths = ["/park", "/sleep", "/generator"]
    with running(tmp_path, source) as (process, port):
        clients = [Client(port).send(path) for path in paths for _ in range(3)]
        # A request that has been answered tells that those before it have begun.
        Client(port).get("/nothing")
        if isinstance(how, signal.Signals):
            process.send_signal(how)
        elif how == "/stop_main":
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        else:
            clients.append(Client(port).send(how))
        output, _ = process.communicate(timeout=END_SECONDS)
        errors = (tmp_path / "errors").read_text()
        assert process.returncode == status, (process.returncode, output, errors)
    lines = output.splitlines()
    for line in ("park", "sleep", "pieces"):
        assert lines.count(f"finally {line}") == 3, output
    assert lines.count("finally task") == 1
    assert lines[-1] == "atexit"
    if said:
        assert errors.strip().splitlines()[-1] == said, errors
    else:
        assert errors == ""
    assert "Fatal" not in errors and "unraisable" not in errors.lower(), errors
    for client in clients:
        client.finish()


BUSY = """
import builtins, os, socket, sys, threading, time
from meinheld import middleware, server

def sleeps():
    while True:
        server.sleep(0.0002)

def joins():
    task = server.spawn(print)
    while True:
        try:
            task.join(0.0002)
        except server.timeout:
            pass

def waits():
    reading, writing = os.pipe()
    while True:
        try:
            server.trampoline(reading, read=True, timeout=0.001)
        except server.timeout:
            pass

def computes():
    began = threading.Event()
    def app(environ, start_response):
        while True:
            try:
                began.set()
                while True:
                    pass
            except server.Stopped:
                pass
    server._EXIT_SECONDS = server._BREAK_SECONDS = 0.05
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    threading.Thread(target=server.run, args=(middleware.SpawnMiddleware(app),), daemon=True).start()
    builtins.client = socket.create_connection(address)
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    began.wait()

for _ in range(1 if sys.argv[1] == "computes" else 4):
    threading.Thread(target=globals()[sys.argv[1]], daemon=True).start()
time.sleep(0.2)

class Last:
    def __del__(self, sleep=time.sleep):
        # The interpreter is as good as gone, and the threads want the GIL back.
        sleep(0.05)

builtins.last = Last()
"""


@pytest.mark.parametrize("what", ["sleeps", "joins", "waits", "computes"])
def test_daemon_threads_at_the_very_end(tmp_path: Path, what: str) -> None:
    (tmp_path / "program.py").write_text(BUSY)
    command = [sys.executable, "-W", "ignore", "program.py", what]
    for _ in range(2):
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=END_SECONDS)
        assert (ended.returncode, ended.stdout) == (0, "")
        # A request that goes on in spite of all may be broken off where nothing catches it.
        assert what == "computes" or ended.stderr == ""
        assert "fatal" not in ended.stderr.lower(), ended.stderr


COMPUTES = """
import socket, sys, threading
from meinheld import middleware, server

began = threading.Event()

def app(environ, start_response):
    began.set()
    try:
        while True:
            pass
    finally:
        print("finally", flush=True)

server.listen(("127.0.0.1", 0))
address = server.addresses()[0]
server._EXIT_SECONDS = 0.2
threading.Thread(target=server.run, args=(middleware.SpawnMiddleware(app),), daemon=True).start()
client = socket.create_connection(address)
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
assert began.wait(10)
sys.exit(3)
"""


def test_a_request_that_computes_at_exit_is_broken_off(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(COMPUTES)
    command = [sys.executable, "-W", "ignore", "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=END_SECONDS)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "finally\n", "")
