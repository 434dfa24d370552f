"""Runs the fires, prints a line of figures for each, and fails if a promise is broken.

    python tests/soak [FIRE...]

SOAK_SECONDS (10) is how long each measurement takes; counts grow and shrink with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from endurance import aborted, failures, requests
from exhaustion import descriptor_limit
from floods import floods
from outcome import Outcome
from slow import slow_clients
from termination import termination

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SCALE = SECONDS / 10

FIRES: dict[str, Callable[[], Outcome]] = {
    "slow": lambda: slow_clients(SECONDS),
    "floods": lambda: floods(SECONDS),
    "descriptors": lambda: descriptor_limit(SECONDS),
    "aborted": lambda: aborted(SCALE),
    "requests": lambda: requests(SCALE),
    "termination": lambda: termination(SECONDS),
    "failures": lambda: failures(SCALE),
}


def main(names: list[str]) -> int:
    """Run the fires of these names, or all."""
    unknown = [name for name in names if name not in FIRES]
    if unknown:
        print(f"no such fire: {' '.join(unknown)}; there are {' '.join(FIRES)}", file=sys.stderr)
        return 2
    broken = 0
    for name in names or FIRES:
        begun = time.monotonic()
        outcome = FIRES[name]()
        broken += len(outcome.broken)
        print(f"[{time.monotonic() - begun:5.1f} s] {outcome}", flush=True)
    print(f"{broken} broken promises" if broken else "every promise was kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
