"""What a suspend and a resume cost from Python, through the real server: run it with the interpreter to measure.

Two figures. `pair`: two requests resume each other, so that the loop turns, and polls, for each switch. `crowd`: one
request resumes a thousand others, which suspend again, so that the turn is shared. Both are the time of one suspend
and its resume, the best of several runs.
"""

from __future__ import annotations

import http.client
import platform
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from meinheld import server
from meinheld.middleware import CONTINUATION_KEY, ContinuationMiddleware

ROUNDS = 20_000
CROWD = 1_000
CROWD_ROUNDS = 100
RUNS = 5

waiting: dict[str, Any] = {}
leader: list[Any] = []
results: dict[str, list[float]] = {"pair": [], "crowd": []}


def pair(c: Any) -> None:
    if "first" not in waiting:
        waiting["first"] = c
        c.suspend()
        other = waiting["second"]
        for _ in range(ROUNDS):
            other.resume()
            c.suspend()
        return
    waiting["second"] = c
    other = waiting["first"]
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        other.resume()
        c.suspend()
    results["pair"].append((time.perf_counter() - begin) / ROUNDS / 2 * 1e9)
    other.resume()
    waiting.clear()


def crowd(c: Any) -> None:
    members = waiting.setdefault("members", [])
    members.append(c)
    if len(members) < CROWD:
        last = len(members) == CROWD - 1
        for _ in range(CROWD_ROUNDS):
            c.suspend()
            if last:
                leader.pop().resume()
        return
    others = members[:-1]
    begin = time.perf_counter()
    for _ in range(CROWD_ROUNDS):
        for other in others:
            other.resume()
        leader.append(c)
        c.suspend()
    results["crowd"].append((time.perf_counter() - begin) / CROWD_ROUNDS / CROWD * 1e9)
    waiting.clear()


@ContinuationMiddleware
def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    c = environ[CONTINUATION_KEY]
    if environ["PATH_INFO"] == "/pair":
        pair(c)
    else:
        crowd(c)
    start_response("200 OK", [])
    return [b"done"]


def ask(port: int, paths: list[str]) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in paths]
    for connection, path in zip(connections, paths, strict=True):
        connection.request("GET", path)
    for connection in connections:
        assert connection.getresponse().read() == b"done"
        connection.close()


def measure(port: int) -> None:
    for _ in range(RUNS):
        ask(port, ["/pair"] * 2)
    for _ in range(RUNS):
        ask(port, ["/crowd"] * CROWD)
    server.stop(1)


server.listen(("127.0.0.1", 0))
client = threading.Thread(target=measure, args=(server.addresses()[0][1],))
client.start()
server.run(app)
client.join()
for name, nanoseconds in results.items():
    print(f"{platform.python_version()} {name}: {min(nanoseconds):.0f} ns a suspend and resume")
