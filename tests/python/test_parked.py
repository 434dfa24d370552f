"""Parked requests by the thousand: each is answered with its own body, costs little, and leaves nothing behind.

The crowds are held by a client in a process of its own, whose descriptors are not the tests'.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

CROWD_MAX = 10_000
DESCRIPTORS = 12_000
RSS_KIB_A_REQUEST_MAX = 32
STACKS_BYTES_MIN = 512 << 20

PARKED = (
    ROUTES
    + """
import gc, os, resource

def do_stats(c, environ):
    with open("/proc/self/status") as status:
        lines = [line for line in status if line.startswith(("VmRSS", "Threads"))]
    rss, threads = (int(line.split()[1]) for line in lines)
    return json.dumps({
        "suspended": sum(each.suspended for each in parked.values()),
        "parked": len(parked),
        "rss_kib": rss,
        "threads": threads,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "soft": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "hard": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    })

def do_collect(c, environ):
    gc.collect()
    return str(sum(type(each).__name__ == "Continuation" for each in gc.get_objects()))
"""
)

CROWD = '''
"""Opens COUNT connections, sends a request on each, and says "sent"; then obeys the lines of its input."""

import resource, select, socket, struct, sys

port, count = int(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
clients = []
for number in range(count):
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(f"GET /park?name={number} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
    clients.append(client)
print("sent", flush=True)
order = sys.stdin.readline().strip()
if order == "read":
    for number, client in enumerate(clients):
        got = b""
        while b"\\r\\n\\r\\n" not in got or not got.endswith(b"'"):
            piece = client.recv(4096)
            assert piece, (number, got)
            got += piece
        head, _, body = got.partition(b"\\r\\n\\r\\n")
        assert head.startswith(b"HTTP/1.1 200 "), (number, got)
        assert body == repr(str(number)).encode(), (number, got)
elif order == "reset":
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
for client in clients:
    client.close()
print("done", flush=True)
'''


class Crowd:
    """A process with many connections."""

    def __init__(self, port: int, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CROWD, str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word, "the crowd has failed"

    def obeys(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        self.says("done")


@contextmanager
def crowd(port: int, count: int) -> Iterator[Crowd]:
    """A crowd whose requests have been sent."""
    one = Crowd(port, count)
    try:
        one.says("sent")
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def stats(port: int) -> dict[str, int]:
    return get(port, "/stats").json()


def test_a_thousand_wait_and_one_wakes_them_all(serve: Callable) -> None:
    # The crowd tells the ends of responses by their lengths, which the validator would hide.
    server = serve(PARKED, validate=False)
    with crowd(server.port, 1000) as waiting:
        wait_for_parked(server.port, 1000)
        assert get(server.port, "/wake_all").text == "1000"
        waiting.obeys("read")
    wait_for_parked(server.port, 0)


def stack_pages(pid: int) -> int:
    """How many pages are there of the mappings that stacks are cut from, which nothing else is as large as."""
    pages, low, high = 0, 0, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *fields = line.split()
        if not name.endswith(":"):
            low, high = (int(bound, 16) for bound in name.split("-"))
        elif name == "Rss:" and high - low >= STACKS_BYTES_MIN:
            pages += int(fields[0]) * 1024 // resource.getpagesize()
    return pages


#: The plainest application that parks: what it calls before has frames on the same stack.
PLAIN = """
from meinheld.middleware import CONTINUATION_KEY, ContinuationMiddleware

parked = []

def respond(start_response, text):
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
    start_response("200 OK", headers)
    return [text.encode()]

@ContinuationMiddleware
def app(environ, start_response):
    if environ["PATH_INFO"] == "/parked":
        return respond(start_response, str(sum(c.suspended for c in parked)))
    if environ["PATH_INFO"] == "/wake_all":
        for c in parked:
            c.resume()
        return respond(start_response, str(len(parked)))
    c = environ[CONTINUATION_KEY]
    parked.append(c)
    c.suspend()
    return respond(start_response, repr(environ["QUERY_STRING"].removeprefix("name=")))
"""


@pytest.mark.skipif(hasattr(sys, "gettotalrefcount"), reason="frames are larger in a debug build")
def test_a_request_that_waits_and_is_answered_takes_one_page_of_stack(serve: Callable) -> None:
    """The frames of C and of Python, and what is kept of the thread state, share it. A second page for the
    answer would be a fault for each request that is woken: from 3.14 on, whose C frames are larger, there is one."""
    server = serve(PLAIN, validate=False)
    count = 500
    wait_for_parked(server.port, 0)
    before = stack_pages(server.pid)
    assert before > 0, "the mapping is recognised"
    with crowd(server.port, count) as waiting:
        wait_for_parked(server.port, count)
        waiting_pages = stack_pages(server.pid) - before
        assert get(server.port, "/wake_all").text == str(count)
        waiting.obeys("read")
        answered_pages = stack_pages(server.pid) - before
    # The collector's frames lie deeper, and where it runs is chance.
    assert count * 0.9 <= waiting_pages <= count * 1.1
    if sys.version_info < (3, 14):
        assert answered_pages <= count * 1.1


def test_ten_thousand_wait_in_one_process(serve: Callable) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= DESCRIPTORS, f"this test needs ulimit -Hn of {DESCRIPTORS}, and it is {hard}"
    # The server is to raise its soft limit by itself.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        # What a request costs is the server's, not the validator's.
        server = serve(PARKED, validate=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    before = stats(server.port)
    assert before["soft"] == before["hard"] == hard
    with crowd(server.port, CROWD_MAX) as waiting:
        wait_until(
            lambda: get(server.port, "/parked").text == str(CROWD_MAX), "all suspended", 30
        )
        during = stats(server.port)
        kib = (during["rss_kib"] - before["rss_kib"]) / CROWD_MAX
        print(f"RSS of a parked request: {kib:.1f} KiB")
        assert kib <= RSS_KIB_A_REQUEST_MAX
        assert during["threads"] == before["threads"], "no thread for a request"
        assert get(server.port, "/wake_all").text == str(CROWD_MAX)
        waiting.obeys("read")
    wait_until(
        lambda: stats(server.port)["descriptors"] <= before["descriptors"], "descriptors closed"
    )
    assert stats(server.port)["parked"] == 0


@pytest.mark.parametrize("way", ["close", "reset"])
def test_clients_that_vanish_leave_nothing(serve: Callable, way: str) -> None:
    server = serve(PARKED)
    quiet = server.output()
    before = server.descriptors()
    continuations = get(server.port, "/collect").text
    rss = []
    for _ in range(3):
        with crowd(server.port, 500) as waiting:
            wait_for_parked(server.port, 500)
            waiting.obeys(way)
            # Each was told: its `finally` has run.
            wait_until(lambda: stats(server.port)["parked"] == 0, "all have been told", 10)
        wait_until(lambda: server.descriptors() <= before, "all descriptors closed", 10)
        assert get(server.port, "/collect").text == continuations
        rss.append(stats(server.port)["rss_kib"])
    # A second and a third crowd find the coroutines of the first.
    assert rss[-1] - rss[0] <= 1024, rss
    assert server.output() == quiet, "a client that goes is no error"
    assert get(server.port, "/parked").text == "0"


@pytest.mark.parametrize("way", ["finish", "reset"])
def test_a_request_is_told_at_once_that_its_client_is_gone(serve: Callable, way: str) -> None:
    server = serve(
        ROUTES
        + """
def do_watch(c, environ):
    try:
        park(c, "it")
    except ConnectionError as error:
        notes.append([type(error).__name__, c.connected, c.suspended, str(error)])
        try:
            c.suspend(30)
        except server.ClientDisconnected:
            notes.append("told again")
        raise
"""
    )
    quiet = server.output()
    client = Client(server.port).send("/watch")
    wait_for_parked(server.port, 1)
    getattr(client, way)()
    wait_for_parked(server.port, 0)
    told, again = get(server.port, "/notes").json()
    assert told[:3] == ["ClientDisconnected", False, False]
    assert told[3]
    assert again == "told again"
    assert server.output() == quiet, "an uncaught ClientDisconnected is no error"


def test_a_client_that_has_gone_before_the_suspend(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
import time

def do_late(c, environ):
    deadline = time.monotonic() + 10
    while c.connected and time.monotonic() < deadline:
        time.sleep(0.001)
    notes.append(c.connected)
    try:
        c.suspend(30)
    except server.ClientDisconnected:
        notes.append("told")
    return "late"
"""
    )
    client = Client(server.port).send("/late")
    client.finish()
    seen: list[object] = []
    wait_until(
        lambda: seen.extend(get(server.port, "/notes").json()) or seen[-1:] == ["told"], "it was told"
    )
    assert seen == [False, "told"]


def test_a_resume_and_a_departure_at_once_lose_neither(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
def do_both(c, environ):
    notes.append(park(c, "it"))
    try:
        c.suspend(30)
    except server.ClientDisconnected:
        notes.append("told")
    return "both"

def do_wake_when_gone(c, environ):
    # The departure is there, and the loop has not looked yet.
    import time
    other = parked["it"]
    deadline = time.monotonic() + 10
    while other.connected and time.monotonic() < deadline:
        time.sleep(0.001)
    other.resume("resumed")
    return "woken"
"""
    )
    client = Client(server.port).send("/both")
    wait_for_parked(server.port, 1)
    with Client(server.port) as other:
        other.send("/wake_when_gone")
        client.finish()
        assert other.response().text == "woken"
    wait_until(lambda: get(server.port, "/parked").text == "0", "it has gone on")
    assert get(server.port, "/notes").json() == ["resumed", "told"]


def test_input_that_comes_while_a_request_waits_is_the_next_request(serve: Callable) -> None:
    server = serve(ROUTES)
    with Client(server.port) as client:
        client.send("/park", name="it")
        wait_for_parked(server.port, 1)
        client.send("/parked").send("/parked")
        assert get(server.port, "/parked").text == "1", "input is no departure"
        get(server.port, "/wake", name="it")
        assert [client.response().text for _ in range(3)] == ["'woken'", "0", "0"]


def test_a_request_that_takes_longer_than_keep_alive_keeps_its_connection(serve: Callable) -> None:
    server = serve(
        ROUTES
        + """
import time

def do_block(c, environ):
    time.sleep(1.5)
    return "blocked"
""",
        keep_alive=1,
    )
    with Client(server.port) as client:
        assert client.get("/block").text == "blocked"
        # Another connection lets the loop look at what has expired meanwhile.
        assert get(server.port, "/parked").text == "0"
        assert client.get("/parked").text == "0"
