"""Requests leave no references behind and no memory, however they end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from routes import ROUTES
from wire import Client, wait_until

WARM_UP = 2_000
# A debug build counts references: fewer show a leak there, and each takes much longer.
REQUESTS = int(os.environ.get("LEAK_REQUESTS", "5000" if hasattr(sys, "gettotalrefcount") else "20000"))
BATCH = 100
# Those that take their time: a thread each, a connection each. All are made if a number is given.
SLOW = {} if "LEAK_REQUESTS" in os.environ else {"/kept_by_thread": 2, "/departs": 4}
RSS_KIB_MAX = 1024
# Coroutines that were made after the warm-up keep a few objects each; a request that leaks is far above.
OBJECTS_MAX = 500
# Of debug builds, which count every reference. An object has a few.
REFERENCES_MAX = 4 * OBJECTS_MAX

#: What there is more of after many requests: objects that the collector knows, KiB, references.
Growth = tuple[int, int, int]

LEAKS = (
    ROUTES
    + """
import contextvars, gc, os, threading

variable = contextvars.ContextVar("variable", default=None)
local = threading.local()
# The idle clients stay for as long as the slowest kind takes.
server.set_keepalive(3600)

class Odd(Exception):
    pass

def do_plain(c, environ):
    return "plain"

def do_times_out(c, environ):
    try:
        c.suspend(1e-6)
    except server.timeout:
        return "timed out"

def do_raises(c, environ):
    try:
        raise Odd(c, environ)
    except Odd:
        try:
            c.suspend(1e-6)
        except server.timeout:
            return "raised"

def do_resumed(c, environ):
    unused = [environ[CLIENT_KEY].continuation() for _ in range(2)]
    parked[id(c)] = c
    line.append(c)
    if len(line) >= 2:
        for each in list(line):
            if each is not c:
                each.resume(object(), key=[each])
                line.remove(each)
    try:
        return type(c.suspend(0.005)).__name__
    except server.timeout:
        if c in line:
            line.remove(c)
        return "alone"
    finally:
        del parked[id(c)]

line = []

def do_thrown(c, environ):
    line.append(c)
    for each in line[:-1]:
        each.throw(Odd(c))
    del line[:-1]
    try:
        c.suspend(0.005)
    except Odd:
        return "thrown"
    except server.timeout:
        line.remove(c)
        return "alone"

def do_killed(c, environ):
    def work():
        try:
            server.sleep(60)
        finally:
            local.value = [c]
    tasks = [server.spawn(work) for _ in range(2)]
    server.sleep(0)
    tasks[0].kill()
    tasks[1].kill(Odd(c))
    for task in tasks:
        task.join()
    return type(tasks[1].exception).__name__

def do_departs(c, environ):
    # Its client goes while it waits.
    return park(c, object())

def do_state(c, environ):
    variable.set([c])
    local.value = bytes(1000)
    def generator():
        try:
            yield 1
            c.suspend(1e-6)
        except server.timeout:
            yield 2
    return "".join(map(str, generator()))

def do_streams(c, environ):
    def pieces():
        for _ in range(3):
            yield b"piece"
            try:
                c.suspend(1e-6)
            except server.timeout:
                pass
    return pieces()

def do_misuses(c, environ):
    for call in (c.resume, lambda: c.suspend(-1), lambda: c.throw(1)):
        try:
            call()
        except (ValueError, TypeError, server.ContinuationError):
            pass
    return "misused"

def do_cycle(c, environ):
    environ["cycle"] = environ
    environ["own"] = lambda: (c, environ)
    return "cycle"

def do_kept_by_thread(c, environ):
    # The last reference to what the request was given goes on another thread.
    gate = threading.Event()
    keep = [environ, c]
    def drop():
        gate.wait(10)
        keep.clear()
    thread = threading.Thread(target=drop)
    thread.start()
    finish.append((gate, thread))
    del environ, c
    return "kept"

finish = []

def do_finish(c, environ):
    while finish:
        gate, thread = finish.pop()
        gate.set()
        thread.join(10)
    return "finished"

def do_stats(c, environ):
    do_finish(c, environ)
    for _ in range(3):
        gc.collect()
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    descriptors = len(os.listdir("/proc/self/fd"))
    references = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0
    return json.dumps([len(gc.get_objects()), rss, descriptors, references])
"""
)

# How often growth is measured before it counts as a leak.
WINDOWS = 3


def is_leak(growth: Growth) -> bool:
    return any(more > most for more, most in zip(growth, (OBJECTS_MAX, RSS_KIB_MAX, REFERENCES_MAX), strict=True))


def settle(growth: Callable[[], Growth]) -> list[Growth]:
    """Measure until nothing grows, or in all windows something did."""
    windows = [growth()]
    while is_leak(windows[-1]) and len(windows) < WINDOWS:
        windows.append(growth())
    return windows


def ask(clients: list[Client], path: str, times: int) -> None:
    if path == "/departs":
        depart(clients[0], times)
        return
    for _ in range(times // len(clients)):
        for client in clients:
            client.send(path)
        for client in clients:
            response = client.response()
            assert response.status == 200, response


def depart(control: Client, times: int) -> None:
    port = control.socket.getpeername()[1]
    for _ in range(times // BATCH):
        leaving = [Client(port).send("/departs") for _ in range(BATCH)]
        wait_until(lambda: control.get("/parked").text == str(BATCH), "all wait")
        for number, client in enumerate(leaving):
            # Those that go with a FIN keep their port for a minute.
            if number % 10 == 0:
                client.finish()
            else:
                client.reset()
        wait_until(lambda: control.get("/parked").text == "0", "all have been told")


@pytest.mark.parametrize(
    "path",
    [
        "/plain",
        "/times_out",
        "/raises",
        "/resumed",
        "/thrown",
        "/killed",
        "/departs",
        "/state",
        "/streams",
        "/misuses",
        "/cycle",
        "/kept_by_thread",
    ],
)
def test_requests_leave_nothing_behind(
    serve: Callable, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    # With an arena for each thread, malloc itself grows for as long as threads come and go.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    server = serve(LEAKS)
    threads = path == "/kept_by_thread"
    # A connection that never has a request is closed after a while.
    clients = [Client(server.port, seconds=30) for _ in range(1 if path == "/departs" else BATCH)]
    stats = Client(server.port, seconds=30)
    requests = REQUESTS // SLOW.get(path, 1)

    def run(count: int) -> None:
        for _ in range(count // 1000):
            ask(clients, path, 1000)
            stats.get("/finish")

    def growth() -> Growth:
        objects, rss, descriptors, references = stats.get("/stats").json()
        run(requests)
        objects_after, rss_after, descriptors_after, references_after = stats.get("/stats").json()
        assert descriptors_after == descriptors
        return objects_after - objects, rss_after - rss, references_after - references

    run(WARM_UP * 4 if threads else WARM_UP)
    # A leak is in every window; a heap that still settles is not.
    windows = settle(growth)
    objects, rss, references = windows[-1]
    print(f"{path}, {requests} requests: {objects} objects, {rss} KiB, {references} references")
    for client in clients:
        client.finish()
    stats.finish()
    assert not is_leak(windows[-1]), windows


STOPPED = """
import gc, os, sys
from meinheld import middleware, server

waiting = []

def app(environ, start_response):
    c = environ[middleware.CONTINUATION_KEY]
    waiting.append([c, environ])
    if len(waiting) == COUNT:
        server.stop(1e-6)
    try:
        c.suspend()
    finally:
        waiting.pop()

def stats():
    for _ in range(3):
        gc.collect()
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    references = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0
    return len(gc.get_objects()), rss, references, len(os.listdir("/proc/self/fd"))

app = middleware.SpawnMiddleware(app)
for line in sys.stdin:
    for _ in range(int(line)):
        server.listen("server.sock")
        print("listens", flush=True)
        server.run(app)
        assert waiting == []
    print(*stats(), flush=True)
"""

STOPPED_AT_ONCE = 100


def test_requests_that_a_stop_ends_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    (tmp_path / "program.py").write_text(f"COUNT = {STOPPED_AT_ONCE}\n{STOPPED}")
    process = subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    runs = REQUESTS // STOPPED_AT_ONCE

    def stats() -> list[int]:
        process.stdin.write(f"{runs}\n")
        process.stdin.flush()
        for _ in range(runs):
            assert process.stdout.readline() == "listens\n"
            serve_until_stopped(str(tmp_path / "server.sock"))
        return [int(word) for word in process.stdout.readline().split()]

    def growth() -> Growth:
        nonlocal before
        earlier, before = before, stats()
        assert before[3] == earlier[3], "descriptors"
        return before[0] - earlier[0], before[1] - earlier[1], before[2] - earlier[2]

    try:
        before = stats()
        windows = settle(growth)
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(20) == 0
    print(f"stopped, {runs * STOPPED_AT_ONCE} requests: {windows[-1]}")
    assert not is_leak(windows[-1]), windows


def serve_until_stopped(path: str) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(STOPPED_AT_ONCE)]
    for client in clients:
        client.settimeout(20)
        client.connect(path)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in clients:
        with suppress(ConnectionResetError):
            while client.recv(4096):
                pass
        client.close()
