"""How long it takes to import the server."""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 15


def milliseconds() -> float:
    """What the import adds to an interpreter's start, by the fastest of runs in turn."""
    bare, full = [], []
    for _ in range(RUNS):
        bare.append(seconds("pass"))
        full.append(seconds("import meinheld.server"))
    return (min(full) - min(bare)) * 1e3


def seconds(program: str) -> float:
    """How long one run of it takes."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begun
