"""What a parked request costs, and what for: run it with the interpreter to measure (make bench).

    python benches/parked.py [COUNT]

A server in a process of its own runs the plainest application that parks, and COUNT clients send it one request each.
Its memory before and after is told apart by mappings; what Python's objects take is asked of one request. What is left
is the connection, the exchange, the task and its coroutine, and the allocators' own. The kernel's side, sockets and page
tables, is not in a process's memory; of the page tables the kernel tells.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

COUNT = 9_000
#: Nothing but the stacks is mapped in pieces as large.
STACKS_BYTES_MIN = 512 << 20
REQUEST = b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: parked\r\nAccept: */*\r\n\r\n"


def serve() -> None:
    """The server's process: tells its port, and serves until it is ended."""
    from meinheld import server
    from meinheld.middleware import CLIENT_KEY, CONTINUATION_KEY, ContinuationMiddleware

    parked: list[Any] = []

    def sizes(environ: dict[str, Any], start_response: Callable[..., Any]) -> dict[str, int]:
        """What the objects of the request that asks take."""
        own = [environ[name] for name in ("wsgi.input", "wsgi.early_hints", CLIENT_KEY, CONTINUATION_KEY)]
        # Strings that others have, too, cost this request nothing.
        strings = [value for value in environ.values() if type(value) is str and sys.getrefcount(value) <= 3]
        return {
            "environ": sys.getsizeof(environ),
            "strings": sum(map(sys.getsizeof, strings)),
            "objects": sum(map(sys.getsizeof, [*own, start_response, start_response.__self__])),
        }

    @ContinuationMiddleware
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/sizes":
            answer = json.dumps({**sizes(environ, start_response), "parked": len(parked)})
        else:
            continuation = environ[CONTINUATION_KEY]
            parked.append(continuation)
            continuation.suspend()
            answer = ""
        start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [answer.encode()]

    server.listen(("127.0.0.1", 0))
    print(server.addresses()[0][1], flush=True)
    server.run(app, silent=1)


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process that are backed by memory of its own."""
    found = {"stacks": 0, "rest": 0, "page tables": 0}
    length = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *fields = line.split()
        if not name.endswith(":"):
            low, high = (int(bound, 16) for bound in name.split("-"))
            length = high - low
        elif name == "Anonymous:":
            found["stacks" if length >= STACKS_BYTES_MIN else "rest"] += int(fields[0]) * 1024
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    found["page tables"] = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmPTE:"))
    return found


def ask(port: int) -> dict[str, int]:
    """What the server tells of itself."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(REQUEST % b"sizes")
        received = b""
        while piece := client.recv(4096):
            received += piece
    answer: dict[str, int] = json.loads(received.partition(b"\r\n\r\n")[2])
    return answer


def park(port: int, count: int, clients: list[socket.socket]) -> dict[str, int]:
    """Have so many more requests wait."""
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.sendall(REQUEST % b"wait")
        clients.append(client)
    deadline = time.monotonic() + 60
    while (told := ask(port))["parked"] < len(clients):
        if time.monotonic() > deadline:
            raise AssertionError(f"{told['parked']} of {len(clients)} are parked after a minute")
        time.sleep(0.1)
    return told


def bill(pid: int, port: int, count: int) -> None:
    """Print it."""
    clients: list[socket.socket] = []
    park(port, 50, clients)
    before = memory(pid)
    told = park(port, count, clients)
    after = memory(pid)
    each = {name: (after[name] - before[name]) / count for name in after}
    python = {name: told[name] for name in ("environ", "strings", "objects")}
    lines = {
        "the stack, with Python's frames on it": each["stacks"],
        "the environ": python["environ"],
        "its strings that no other request has": python["strings"],
        "the other objects of WSGI": python["objects"],
        "connection, exchange, task, coroutine, allocators": each["rest"] - sum(python.values()),
        "in all": each["stacks"] + each["rest"],
        "(page tables, which the kernel has)": each["page tables"],
    }
    print(f"CPython {platform.python_version()}, {count:,} parked requests, bytes each:")
    for what, size in lines.items():
        print(f"  {what:<52}{size:>8,.0f}")
    for client in clients:
        client.close()


def main(count: int) -> None:
    """Start the server, look, and end it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""}) as process:
        try:
            assert process.stdout is not None
            bill(process.pid, int(process.stdout.readline()), count)
        finally:
            process.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
