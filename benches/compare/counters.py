"""Instructions that a server executes, where the machine lets perf count them."""

from __future__ import annotations

import shutil
import signal
import subprocess
from types import TracebackType

EVENTS = "instructions:u,instructions:k"


def are_available() -> bool:
    """Whether perf is there, and the processor counts for it."""
    if shutil.which("perf") is None:
        return False
    command = ["perf", "stat", "-x", ",", "-e", EVENTS, "true"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.returncode == 0 and len(parse(told.stderr)) == len(EVENTS.split(","))


class Counters:
    """Counts what these processes execute while the block runs."""

    def __init__(self, pids: list[int]) -> None:
        """Nothing is counted yet."""
        self.pids = pids
        self.instructions: list[float] = []

    def __enter__(self) -> Counters:
        """Begin."""
        pids = ",".join(map(str, self.pids))
        command = ["perf", "stat", "-x", ",", "-e", EVENTS, "-p", pids]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=null, stderr=pipe, text=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: the counts in user mode and in the kernel, or none if perf failed."""
        self._process.send_signal(signal.SIGINT)
        self.instructions = parse(self._process.communicate()[1])


def parse(lines: str) -> list[float]:
    """The counts in perf's lines of values with commas; those that it could not count are left out."""
    counts = []
    for line in lines.splitlines():
        count, *rest = line.split(",")
        if any(field.startswith("instructions") for field in rest):
            try:
                counts.append(float(count))
            except ValueError:
                continue
    return counts
