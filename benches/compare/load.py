"""Runs the load generator on a processor of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from servers import Failed, Running
from workloads import WAIT, WAIT_BODY, WAKE, Workload

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Figures:
    """What a run of the generator came to."""

    answered: int
    failed: int
    seconds: float
    p50_ns: int
    p99_ns: int
    failures: dict[str, int]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.answered / self.seconds

    def check(self, server: str) -> None:
        """Raise Failed unless every answer was right."""
        if self.failed or not self.answered:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.failures.items())
            raise Failed(f"{server}: {reasons or 'no answer at all'}")


def build() -> Path:
    """Build the generator; the path of its program."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "meinheld-load"]
    subprocess.run(command, cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    told = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True)
    return Path(json.loads(told.stdout)["target_directory"]) / "release" / "meinheld-load"


class Generator:
    """The generator, and the files that tell it what to send."""

    def __init__(self, cpu: int) -> None:
        """Build it; it will run on that processor."""
        self._program = build()
        self._cpu = cpu
        self._directory = tempfile.TemporaryDirectory(prefix="compare-")

    def close(self) -> None:
        """Remove its files."""
        self._directory.cleanup()

    def file(self, name: str, contents: bytes) -> str:
        """A file with these contents."""
        path = Path(self._directory.name) / name
        path.write_bytes(contents)
        return str(path)

    def command(self, mode: str, server: Running, flags: dict[str, object]) -> list[str]:
        """The words that start it."""
        words = ["taskset", "-c", str(self._cpu), str(self._program), mode]
        words += ["--address", f"127.0.0.1:{server.port}"]
        for flag, value in flags.items():
            words += [f"--{flag}", str(value)]
        return words

    def steady(self, server: Running, load: Workload, seconds: float) -> Figures:
        """Ask for that long."""
        command = self.command(
            "steady",
            server,
            {
                "request": self.file("request", load.request),
                "body": self.file("body", load.body),
                "connections": load.connections,
                "pipeline": load.pipeline,
                "reuse": "one-request" if server.kind.closes else load.reuse,
                "seconds": seconds,
                "stragglers": load.stragglers,
            },
        )
        limit = seconds + PATIENCE_SECONDS
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        return figures(done.stdout, done.stderr)

    def parked(self, server: Running, count: int, seconds: float) -> Parked:
        """Park so many requests."""
        flags = {
            "request": self.file("wait", WAIT),
            "body": self.file("wait-body", WAIT_BODY),
            "wake": self.file("wake", WAKE),
            "connections": count,
            "seconds": seconds,
        }
        return Parked(self.command("parked", server, flags))


class Parked:
    """Requests that wait; as a context manager they are given up with the block."""

    def __init__(self, command: list[str]) -> None:
        """Send them."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        if self._out().readline() != "parked\n":
            raise Failed(self._process.communicate()[1].strip() or "the requests were not sent")

    def _out(self) -> IO[str]:
        if self._process.stdout is None:
            raise Failed("the generator has no output")
        return self._process.stdout

    def __enter__(self) -> Parked:
        """Return them."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up those that still wait."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wake(self) -> Figures:
        """Wake them all, and read every answer; the connections stay open."""
        if self._process.stdin is None:
            raise Failed("the generator has no input")
        self._process.stdin.write("wake\n")
        self._process.stdin.flush()
        line = self._out().readline()
        return figures(line, "" if line else self._process.communicate()[1])


def figures(out: str, err: str) -> Figures:
    """What the generator's line says."""
    lines = out.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise Failed(err.strip() or "the generator said nothing")
    return Figures(**json.loads(lines[-1]))
