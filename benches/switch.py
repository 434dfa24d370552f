"""What a switch costs from Python, beside greenlet's: run it with the interpreter to measure (make bench-switch).

`suspend+resume`: of a thousand parked requests each is resumed, runs, and suspends again; the time of one. greenlet
does the same with as many greenlets: a switch there and one back. The loops that do so are measured with it, theirs and
ours; `of which loops` is what they take around calls that do nothing, and `how often as fast` is told without either's
loops. `start+finish`: a task that does nothing, spawned
and joined in batches, against a greenlet made and run. `parked`: what a spawned task parked three frames deep adds to
the process, against a greenlet. The best of a hundred short runs, of which some find the machine quiet.
"""

from __future__ import annotations

import http.client
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from meinheld import server
from meinheld.middleware import CONTINUATION_KEY, ContinuationMiddleware

CROWD = 1_000
ROUNDS = 10
PARKED = 5_000
RUNS = 100

members: list[Any] = []
leader: list[Any] = []
results: dict[str, float] = {}


def best(name: str, run: Callable[[], float]) -> None:
    results[name] = min(run() for _ in range(RUNS))


def rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def follow(c: Any) -> None:
    members.append(c)
    suspend = c.suspend
    last = len(members) == CROWD
    while True:
        if suspend():
            return
        if last:
            leader[0].resume()


def lead(c: Any) -> None:
    leader.append(c)
    best("suspend+resume", lambda: round_trips(c))
    best("of which loops", loops)
    best("start+finish", spawn_and_join)
    results["parked"] = parked_bytes()
    for member in members:
        member.resume(True)


def round_trips(c: Any) -> float:
    resumes = [member.resume for member in members]
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        for resume in resumes:
            resume(False)
        c.suspend()
    return (time.perf_counter() - begin) / ROUNDS / CROWD * 1e9


def loops() -> float:
    """The same loops, around built-in methods that do nothing."""
    suspend = [].clear
    resumes = [{}.get for _ in members]

    def wait() -> None:
        for _ in range(ROUNDS * CROWD):
            if suspend():
                return

    begin = time.perf_counter()
    for _ in range(ROUNDS):
        for resume in resumes:
            resume(False)
    wait()
    return (time.perf_counter() - begin) / ROUNDS / CROWD * 1e9


def nothing() -> None:
    pass


def spawn_and_join() -> float:
    begin = time.perf_counter()
    for _ in range(2):
        for _ in range(CROWD - 1):
            server.spawn(nothing)
        server.spawn(nothing).join()
    return (time.perf_counter() - begin) / 2 / CROWD * 1e9


def three_deep(wait: Callable[[], Any]) -> Any:
    return two_deep(wait)


def two_deep(wait: Callable[[], Any]) -> Any:
    return one_deep(wait)


def one_deep(wait: Callable[[], Any]) -> Any:
    return wait()


def sleep_long() -> None:
    server.sleep(60)


def parked_bytes() -> float:
    before = rss_bytes()
    tasks = [server.spawn(three_deep, (sleep_long,)) for _ in range(PARKED)]
    server.sleep(0.2)
    used = rss_bytes() - before
    for task in tasks:
        task.kill()
    server.sleep(0.2)
    return used / PARKED


@ContinuationMiddleware
def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    c = environ[CONTINUATION_KEY]
    if environ["PATH_INFO"] == "/lead":
        lead(c)
    else:
        follow(c)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


def measure(port: int) -> None:
    paths = ["/follow"] * CROWD + ["/lead"]
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in paths]
    for connection, path in zip(connections, paths, strict=True):
        if path == "/lead":
            while len(members) < CROWD:
                time.sleep(0.01)
        connection.request("GET", path)
    for connection in connections:
        assert connection.getresponse().read() == b"done"
    server.stop(1)


def measure_greenlet() -> dict[str, float]:
    """The same with greenlet, in the manner of gevent: each switches to its hub."""
    import greenlet

    hub = greenlet.getcurrent()

    def wait() -> None:
        while True:
            hub.switch()

    def round_trips() -> float:
        begin = time.perf_counter()
        for _ in range(ROUNDS):
            for switch in switches:
                switch()
        return (time.perf_counter() - begin) / ROUNDS / CROWD * 1e9

    def start_and_finish() -> float:
        begin = time.perf_counter()
        for _ in range(CROWD):
            greenlet.greenlet(nothing).switch()
        return (time.perf_counter() - begin) / CROWD * 1e9

    def loops() -> float:
        nobody: list[Any] = []
        switches = [[].clear for _ in range(CROWD)]

        def wait() -> None:
            for _ in range(ROUNDS * CROWD):
                nobody.clear()

        begin = time.perf_counter()
        for _ in range(ROUNDS):
            for switch in switches:
                switch()
        wait()
        return (time.perf_counter() - begin) / ROUNDS / CROWD * 1e9

    crowd = [greenlet.greenlet(wait) for _ in range(CROWD)]
    switches = [each.switch for each in crowd]
    for switch in switches:
        switch()
    figures = {
        "suspend+resume": min(round_trips() for _ in range(RUNS)),
        "of which loops": min(loops() for _ in range(RUNS)),
        "start+finish": min(start_and_finish() for _ in range(RUNS)),
    }
    before = rss_bytes()
    parked = [greenlet.greenlet(three_deep) for _ in range(PARKED)]
    for each in parked:
        each.switch(hub.switch)
    figures["parked"] = (rss_bytes() - before) / PARKED
    return figures


def main() -> None:
    server.listen(("127.0.0.1", 0))
    client = threading.Thread(target=measure, args=(server.addresses()[0][1],))
    client.start()
    server.run(app)
    client.join()
    try:
        greenlets = measure_greenlet()
    except ImportError:
        greenlets = {}
    version = f"CPython {platform.python_version()}"
    for name, figure in results.items():
        unit, scale = ("KiB", 1024) if name == "parked" else ("ns", 1)
        beside = f"; greenlet {greenlets[name] / scale:.1f} {unit}" if name in greenlets else ""
        print(f"{version}  {name}: {figure / scale:.1f} {unit}{beside}")
    if greenlets:
        ours, theirs = (without_loops(figures) for figures in (results, greenlets))
        print(f"{version}  how often as fast: {theirs / ours:.2f}")


def without_loops(figures: dict[str, float]) -> float:
    return figures["suspend+resume"] - figures["of which loops"]


main()
