"""Coroutines without connections: what so many that wait cost, and how long it takes to wake them.

    python benches/spawned.py [COUNT]

Each waits for one task to end, which ends when all wait. Linux keeps at most vm.max_map_count (65,530)
mappings for a process, so their number is printed too.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from meinheld import server

COUNT = 100_000


def resident_kib() -> int:
    """Memory of this process that is backed."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def mapping_count() -> int:
    """Mappings of this process."""
    with Path("/proc/self/maps").open() as maps:
        return sum(1 for _ in maps)


def measure(count: int) -> None:
    """Spawn them, look, wake them, and stop the server."""
    gate = server.spawn(server.sleep, (3600,))
    waiting = []

    def wait() -> None:
        waiting.append(None)
        with contextlib.suppress(server.TaskKilled):
            gate.join()
        waiting.pop()

    memory, mappings = resident_kib(), mapping_count()
    begun = time.perf_counter()
    tasks = [server.spawn(wait) for _ in range(count)]
    while len(waiting) < count:
        server.sleep(0)
    parked = time.perf_counter()
    memory, mappings = resident_kib() - memory, mapping_count() - mappings
    woken = time.perf_counter()
    gate.kill()
    for task in tasks:
        task.join()
    ended = time.perf_counter()
    print(
        f"{count:,} parked: {memory / count:.2f} KiB each, {mappings:,} more mappings; parked in "
        f"{parked - begun:.3f} s, woken and ended in {ended - woken:.3f} s, {len(waiting)} are left"
    )
    server.stop()


def main(count: int) -> None:
    """Run a server for as long as it takes."""
    server.listen(("127.0.0.1", 0))
    server.spawn(measure, (count,))
    server.run(lambda environ, start_response: [], silent=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
