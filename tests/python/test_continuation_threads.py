"""Any thread resumes a request, before it suspends or after, and no wake-up is lost.

Also: the loop stays live while other threads compute.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

THREADS = (
    ROUTES
    + """
import threading, time

def refused(call, *args):
    try:
        call(*args)
    except server.ContinuationError as error:
        return str(error)
    return "not refused"

def do_race(c, environ, rounds):
    # Both sides leave the barrier together, so that either may be first.
    rounds = int(rounds)
    barrier = threading.Barrier(2, timeout=30)
    def resume():
        for number in range(rounds):
            barrier.wait()
            c.resume(number)
    thread = threading.Thread(target=resume)
    thread.start()
    seen = []
    for number in range(rounds):
        barrier.wait()
        seen.append(c.suspend(10))
    thread.join(10)
    return json.dumps(seen)

def do_early(c, environ, rounds):
    seen = []
    for number in range(int(rounds)):
        thread = threading.Thread(target=c.resume, args=(number,))
        thread.start()
        thread.join(10)
        seen.append(c.suspend(10))
    return json.dumps(seen)

def do_late(c, environ, rounds):
    def resume():
        for number in range(int(rounds)):
            while not c.suspended:
                time.sleep(0.0002)
            c.resume(number)
    thread = threading.Thread(target=resume)
    thread.start()
    seen = [c.suspend(10) for _ in range(int(rounds))]
    thread.join(10)
    return json.dumps(seen)

def do_early_throw(c, environ):
    thread = threading.Thread(target=c.throw, args=(KeyError("early"),))
    thread.start()
    thread.join(10)
    try:
        c.suspend(10)
    except KeyError as error:
        return repr(error)

def do_early_twice(c, environ):
    texts = []
    def resume():
        c.resume("first"); line = sys._getframe().f_lineno
        texts.extend([refused(c.resume, "second"), f"{__file__}:{line}"])
    thread = threading.Thread(target=resume)
    thread.start()
    thread.join(10)
    return json.dumps([*texts, c.suspend(10)])

def do_early_for_nothing(c, environ):
    # A value that nobody takes ends with the request.
    thread = threading.Thread(target=c.resume, args=(Kept(),))
    thread.start()
    thread.join(10)
    return "ended"

class Kept:
    def __del__(self):
        notes.append("dropped")

def do_crowd(c, environ, count):
    # Each thread resumes one request; this one waits for all of them.
    waiters = [parked[name] for name in list(parked)]
    assert len(waiters) == int(count), len(waiters)
    threads = [threading.Thread(target=waiter.resume, args=("crowd",)) for waiter in waiters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return "all"

stop = threading.Event()

def do_compute(c, environ, count):
    def compute():
        while not stop.is_set():
            sum(range(1000))
    for _ in range(int(count)):
        threading.Thread(target=compute, daemon=True).start()
    return "computing"

def do_stop(c, environ):
    stop.set()
    return "stopped"
"""
)


@pytest.mark.parametrize("path", ["/race", "/early", "/late"])
def test_no_wake_up_is_lost(serve: Callable, path: str) -> None:
    server = serve(THREADS)
    with Client(server.port, seconds=40) as client:
        assert client.get(path, rounds=200).json() == list(range(200))


def test_an_exception_that_comes_early_is_raised_by_the_suspend(serve: Callable) -> None:
    assert get(serve(THREADS).port, "/early_throw").text == "KeyError('early')"


def test_a_second_early_resume_names_the_first(serve: Callable) -> None:
    text, place, value = get(serve(THREADS).port, "/early_twice").json()
    assert text.startswith("already resumed")
    assert place in text
    assert value == "first"


def test_an_early_value_that_nobody_takes_ends_with_the_request(serve: Callable) -> None:
    server = serve(THREADS)
    assert get(server.port, "/early_for_nothing").text == "ended"
    assert get(server.port, "/notes").json() == ["dropped"]


def test_a_resume_from_a_thread_wakes_a_loop_that_sleeps(serve: Callable) -> None:
    server = serve(
        THREADS
        + """
def do_sleeper(c, environ):
    # The thread waits until the loop has nothing left to do but to wait in the kernel.
    threading.Thread(target=wake_when_asleep, args=(c, threading.get_native_id())).start()
    begin = time.monotonic()
    value = c.suspend(20)
    return json.dumps([value, time.monotonic() - begin < 10])

def wake_when_asleep(c, native_id):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/self/task/{native_id}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "S" and c.suspended:
                return c.resume("awake")
        time.sleep(0.001)
"""
    )
    assert get(server.port, "/sleeper").json() == ["awake", True]


def test_a_crowd_of_threads_wakes_a_crowd_of_requests(serve: Callable) -> None:
    server = serve(THREADS)
    clients = [Client(server.port).send("/park", name=name) for name in range(50)]
    wait_for_parked(server.port, 50)
    assert get(server.port, "/crowd", count=50).text == "all"
    for client in clients:
        assert client.response().text == "'crowd'"
        client.finish()


def test_the_loop_stays_live_while_other_threads_compute(serve: Callable) -> None:
    server = serve(THREADS)
    assert get(server.port, "/compute", count=3).text == "computing"
    with Client(server.port) as client, Client(server.port) as other:
        for _ in range(5):
            client.send("/park", name="it")
            wait_until(lambda: other.get("/parked").text == "1", "it is suspended")
            other.get("/wake", name="it")
            assert client.response().text == "'woken'"
        assert client.get("/race", rounds=10).json() == list(range(10))
    assert get(server.port, "/stop").text == "stopped"
