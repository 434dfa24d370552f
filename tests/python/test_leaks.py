"""Requests leave no references behind and no memory, however they end."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from routes import ROUTES
from wire import Client

WARM_UP = 2_000
REQUESTS = int(os.environ.get("LEAK_REQUESTS", "20000"))
BATCH = 100
RSS_KIB_MAX = 1024
# Coroutines that were made after the warm-up keep a few objects each; a request that leaks is far above.
OBJECTS_MAX = 500

LEAKS = (
    ROUTES
    + """
import contextvars, gc, os, threading

variable = contextvars.ContextVar("variable", default=None)
local = threading.local()
server.set_keepalive(60)

class Odd(Exception):
    pass

def do_plain(c, environ):
    return "plain"

def do_times_out(c, environ):
    try:
        c.suspend(1e-6)
    except server.timeout as error:
        return "timed out"

def do_raises(c, environ):
    try:
        raise Odd(c, environ)
    except Odd as error:
        try:
            c.suspend(1e-6)
        except server.timeout:
            return "raised"

def do_resumed(c, environ):
    thread_free = environ[CLIENT_KEY].continuation()
    waker = environ[CLIENT_KEY].continuation()
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
        done.set()
    done = threading.Event()
    thread = threading.Thread(target=drop)
    thread.start()
    finish.append((gate, done, thread))
    del environ, c
    return "kept"

finish = []

def do_finish(c, environ):
    while finish:
        gate, done, thread = finish.pop()
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
    return json.dumps([len(gc.get_objects()), rss, descriptors])
"""
)

# How often growth is measured before it counts as a leak.
WINDOWS = 3


def ask(clients: list[Client], path: str, times: int) -> None:
    for _ in range(times // len(clients)):
        for client in clients:
            client.send(path)
        for client in clients:
            response = client.response()
            assert response.status == 200, response


@pytest.mark.parametrize(
    "path",
    [
        "/plain",
        "/times_out",
        "/raises",
        "/resumed",
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
    clients = [Client(server.port, seconds=30) for _ in range(BATCH)]
    stats = Client(server.port, seconds=30)
    requests = REQUESTS // 2 if threads else REQUESTS

    def run(count: int) -> None:
        for _ in range(count // 1000):
            ask(clients, path, 1000)
            stats.get("/finish")

    def growth() -> tuple[int, int]:
        objects, rss, descriptors = stats.get("/stats").json()
        run(requests)
        objects_after, rss_after, descriptors_after = stats.get("/stats").json()
        assert descriptors_after == descriptors
        return objects_after - objects, rss_after - rss

    run(WARM_UP * 4 if threads else WARM_UP)
    # A leak is in every window; a heap that still settles is not.
    windows: list[tuple[int, int]] = []
    while len(windows) < WINDOWS:
        windows.append(growth())
        if windows[-1][0] <= OBJECTS_MAX and windows[-1][1] <= RSS_KIB_MAX:
            break
    print(f"{path}: {windows[-1][0]} objects, {windows[-1][1]} KiB")
    for client in clients:
        client.finish()
    stats.finish()
    assert windows[-1][0] <= OBJECTS_MAX, windows
    assert windows[-1][1] <= RSS_KIB_MAX, windows
