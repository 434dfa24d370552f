"""Memory that runs out while a process does something for the first time ends no process.

What is made once is made then, and what was not made must not be missing for ever. A process that has imported
everything and served nothing forks for each trial: the child lets some allocations of CPython's fail, from the N-th
on, before its first request comes, whatever that is; it must answer the next one.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

pytest.importorskip("_testcapi", reason="this CPython cannot be told to run out of memory")

if hasattr(sys, "gettotalrefcount"):
    reason = "a debug build's own objects do not survive it, those of logging at first: it asserts, or crashes"
    pytest.skip(reason, allow_module_level=True)

SEED = int(os.environ.get("STRESS_SEED", random.randrange(1 << 30)))
# How many trials each kind gets; more with STRESS_SECONDS.
TRIALS = 150 if "STRESS_SECONDS" in os.environ else 12
STARTS = range(160)
# How many allocations fail in a row.
COUNTS = (1, 2, 3, 6, 40)

PROGRAM = r'''
import logging, os, select, socket, sys, tempfile, _testcapi

from meinheld import server, websocket
from meinheld.middleware import CLIENT_KEY, CONTINUATION_KEY, ContinuationMiddleware, WebSocketMiddleware

HEADERS = [("Content-Type", "text/plain")]
parked = []
nothing = ()

class Odd(Exception):
    pass

def plain(environ, start_response):
    start_response("200 OK", HEADERS)
    return [b"plain"]

def over(environ, start_response):
    _testcapi.remove_mem_hooks()
    return plain(environ, start_response)

def quit(environ, start_response):
    server.stop(0.5)
    return plain(environ, start_response)

def post(environ, start_response):
    body = environ["wsgi.input"]
    start_response("200 OK", HEADERS)
    return [body.read(2), body.readline(), *body.readlines(), body.read()]

def iterated(environ, start_response):
    start_response("200 OK", HEADERS)
    return list(environ["wsgi.input"])

def suspend(environ, start_response):
    try:
        environ[CONTINUATION_KEY].suspend(0.0001)
    except server.timeout:
        pass
    return plain(environ, start_response)

def uncaught(environ, start_response):
    environ[CONTINUATION_KEY].suspend(0.0001)

def waits(environ, start_response):
    parked.append(environ[CONTINUATION_KEY])
    try:
        environ[CONTINUATION_KEY].suspend(0.3)
    except (server.timeout, server.ClientDisconnected):
        pass
    return plain(environ, start_response)

def wakes(environ, start_response):
    for c in parked:
        c.resume(1, key=2)
    parked.clear()
    return plain(environ, start_response)

def throws(environ, start_response):
    for c in parked:
        c.throw(server.timeout)
    parked.clear()
    return plain(environ, start_response)

def raises(environ, start_response):
    raise Odd

def raises_late(environ, start_response):
    start_response("200 OK", HEADERS)
    yield b"plain"
    raise Odd

def work(value):
    server.sleep(0)
    return value

def fails():
    raise Odd

def spawns(environ, start_response):
    task, failing, killed = server.spawn(work, (1,)), server.spawn(fails), server.spawn(server.sleep, (5,))
    for each in (task, failing):
        each.join(1)
    repr(task), task.done, task.value, failing.exception
    server.sleep(0)
    killed.kill()
    killed.join(1)
    return plain(environ, start_response)

def timers(environ, start_response):
    server.schedule_call(0.0001, work, 1)
    server.schedule_call(0, fails)
    repr(server.schedule_call(5, work, 1)), server.schedule_call(5, work, 1).cancel()
    server.sleep(0.001)
    return plain(environ, start_response)

def trampolines(environ, start_response):
    reading, writing = os.pipe()
    try:
        try:
            server.trampoline(reading, read=True, timeout=0.0001)
        except server.timeout:
            pass
        os.write(writing, b"1")
        server.trampoline(reading, read=True, timeout=1)
    finally:
        os.close(reading)
        os.close(writing)
    return plain(environ, start_response)

def misuses(environ, start_response):
    c = environ[CONTINUATION_KEY]
    calls = (c.resume, nothing), (c.suspend, (-1,)), (c.throw, (1,)), (server.spawn, (1,)), (server.stop, ("x",))
    for call, args in calls:
        try:
            call(*args)
        except (server.ContinuationError, TypeError, ValueError):
            pass
    return plain(environ, start_response)

def looks(environ, start_response):
    c, client = environ[CONTINUATION_KEY], environ[CLIENT_KEY]
    made = client.continuation()
    repr(c), repr(made), c.suspended, c.connected, client.get_fd(), client.connected
    server.get_ident(), server.addresses(), server.get_keepalive(), server.get_max_content_length()
    return plain(environ, start_response)

def writes(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a>")])
    write = start_response("200 OK", HEADERS)
    write(b"pl")
    write(b"ain")
    return []

def twice(environ, start_response):
    start_response("200 OK", HEADERS)
    try:
        raise Odd
    except Odd:
        start_response("500 Odd", HEADERS, sys.exc_info())
    return plain(environ, start_response)

def refused(environ, start_response):
    start_response("200 OK", [("Bad Name", "x")])
    return []

def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return [b"plain"]

class Closing:
    def __iter__(self):
        return iter([b"pl", b"ain"])
    def close(self):
        raise Odd

def closes(environ, start_response):
    start_response("200 OK", HEADERS)
    return Closing()

def wrong(environ, start_response):
    start_response("200 OK", HEADERS)
    return [1]

def file(environ, start_response):
    start_response("200 OK", HEADERS)
    return environ["wsgi.file_wrapper"](open(FILE, "rb"))

def temporary(environ, start_response):
    start_response("200 OK", HEADERS)
    kept = tempfile.TemporaryFile()
    kept.write(b"plain")
    kept.seek(0)
    return environ["wsgi.file_wrapper"](kept)

class Pieces:
    left = b"plain"
    def read(self, size):
        taken, self.left = self.left, b""
        return taken

def filelike(environ, start_response):
    start_response("200 OK", HEADERS)
    return environ["wsgi.file_wrapper"](Pieces(), 3)

@WebSocketMiddleware
def talks(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.send(ws.wait(1))
    ws.ping()
    repr(ws), ws.path, ws.origin, ws.protocol, ws.version, ws.closed, ws.close_code, ws.close_reason, ws.environ
    ws.close()
    return []

APPS = {"/" + app.__name__: app for app in (plain, over, quit, post, iterated, suspend, uncaught, waits, wakes, throws,
    raises, raises_late, spawns, timers, trampolines, misuses, looks, writes, twice, refused, short, closes, wrong,
    file, temporary, filelike)}
APPS["/talks"] = talks

@ContinuationMiddleware
def app(environ, start_response):
    return APPS[environ["PATH_INFO"]](environ, start_response)

FILE = os.path.abspath(__file__)
server.set_keepalive(5)
server.set_stop_idle_timeout(0)
access = logging.getLogger("meinheld.access")
access.addHandler(logging.FileHandler("access.log"))
access.setLevel(logging.INFO)
logging.basicConfig(filename="error.log", level=logging.DEBUG)
access.propagate = False

def serve(start, count, logged):
    access.disabled = not logged
    server.listen("server.sock")
    def arm():
        os.write(1, b"armed\n")
        _testcapi.set_nomemory(start, start + count)
    server.schedule_call(0, arm)
    server.run(app)

for line in sys.stdin:
    start, count, logged = map(int, line.split())
    pid = os.fork()
    if pid == 0:
        try:
            serve(start, count, logged)
        finally:
            os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(1, b"ended %d\n" % status)
'''

# The server closes, so that its answer has an end.
HEAD = "{} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def get(path: str, more: str = "") -> bytes:
    return HEAD.format("GET", path, more).encode()


# What a client does first, by name: what it sends on each of its connections, in turn.
KINDS: dict[str, list[bytes]] = {
    name: [get("/" + name)]
    for name in (
        "plain suspend uncaught raises raises_late spawns timers trampolines misuses looks writes twice refused "
        "short closes wrong file temporary filelike"
    ).split()
} | {
    "post": [HEAD.format("POST", "/post", "Content-Length: 9\r\n").encode() + b"ab\ncd\nefg"],
    "iterated": [HEAD.format("POST", "/iterated", "Content-Length: 9\r\n").encode() + b"ab\ncd\nefg"],
    "chunked": [HEAD.format("PUT", "/post", "Transfer-Encoding: chunked\r\n").encode() + b"3\r\nab\n\r\n0\r\n\r\n"],
    "new_header": [get("/plain", "X-New: 1\r\nCookie: a\r\nCookie: b\r\nX_Under: 1\r\n")],
    "query": [get("/plain?a=%20b", "Referer: x\r\nUser-Agent: y\r\n")],
    "absolute": [b"GET http://y/plain?z HTTP/1.0\r\nHost: x\r\n\r\n"],
    "odd_method": [HEAD.format("PROPFIND", "/plain", "").encode()],
    "malformed": [b"GET /plain HTTP/1.1\r\nBad Name: x\r\n\r\n"],
    "pipelined": [2 * b"GET /suspend HTTP/1.1\r\nHost: x\r\n\r\n" + get("/plain")],
    "resumed": [get("/waits"), get("/wakes")],
    "thrown": [get("/waits"), get("/throws")],
    "websocket": [get("/talks", UPGRADE) + b"\x81\x84\0\0\0\0ping" + b"\x88\x80\0\0\0\0"],
    "no_websocket": [get("/talks", "Connection: Upgrade\r\nUpgrade: websocket\r\n")],
    # Its client goes.
    "gone": [get("/waits")],
}

SECONDS = 20
STATUS_LENGTH = len("HTTP/1.1 200")


class Trials:
    """The process that forks, and the client of its children."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "program.py").write_text(PROGRAM)
        with (directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "program.py"],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def run(self, kind: str, start: int, count: int, logged: int) -> bytes:
        """What came back first; afterwards the child has answered, and ended well."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        (self.directory / "server.sock").unlink(missing_ok=True)
        stdin.write(f"{start} {count} {logged}\n")
        stdin.flush()
        assert stdout.readline() == "armed\n", self.output()
        answers = b""
        failure = None
        try:
            answers = self.first(KINDS[kind], leaves=kind == "gone")
            self.until_over()
            assert self.ask(get("/plain")).endswith(b"\r\n\r\nplain")
            self.ask(get("/quit"))
        except (OSError, AssertionError) as error:
            failure = error
        ended = stdout.readline()
        assert ended == "ended 3\n" and failure is None, f"{ended}{failure!r}\n{self.output()}"
        return answers

    def output(self) -> str:
        """What the process has said that tells most: of a backtrace, its own lines."""
        lines = (self.directory / "stderr").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if "  0x" not in line and "   at ./" not in line)[-6000:]

    def first(self, requests: list[bytes], leaves: bool) -> bytes:
        """The answers to the first requests, each on a connection of its own."""
        with ExitStack() as stack:
            connections = [stack.enter_context(self.connect()) for _ in requests]
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request)
            if leaves:
                return self.ask(get("/plain"))
            return b"".join(map(rest, connections))

    def until_over(self) -> None:
        """Ask until no allocation fails any more."""
        for _ in range(100):
            if self.ask(get("/over")).endswith(b"\r\n\r\nplain"):
                return
        raise AssertionError("memory stays short")

    def ask(self, request: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(request)
            return rest(connection)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SECONDS)
        connection.connect(str(self.directory / "server.sock"))
        return connection

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            assert self.process.wait(SECONDS) == 0, self.output()
        finally:
            # A child that has not ended is in the way of nothing else.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Trials]:
    running = Trials(tmp_path)
    yield running
    running.end()


@pytest.mark.timeout(60 + TRIALS)
@pytest.mark.parametrize("kind", KINDS)
def test_memory_runs_out_at_the_first(trials: Trials, kind: str) -> None:
    print(f"STRESS_SEED={SEED}")
    whole = trials.run(kind, 1_000_000, 1, 1)
    possible = [(start, count) for start in STARTS for count in COUNTS]
    for start, count in random.Random(f"{SEED} {kind}").sample(possible, TRIALS):
        answers = trials.run(kind, start, count, (start + count) % 2)
        print(start, count, answers[:60])
    assert trials.run(kind, 1_000_000, 1, 1)[:STATUS_LENGTH] == whole[:STATUS_LENGTH]
