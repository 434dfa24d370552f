"""Compares meinheld with other WSGI servers: python benches/compare [--help].

Each round starts each server anew, in turn, on one processor; the load generator has another. Every
byte of every answer is checked, and a server that gives a wrong one has no figure.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workloads
from load import Generator
from servers import KINDS, Failed, Kind, Running
from table import Cell, Table
from workloads import WORKLOADS, Workload

OURS = "meinheld"
SETTLE_SECONDS = 20.0
WAKE_SECONDS = 60.0


class Comparison:
    """The servers that are there, and the tables that fill up round by round."""

    def __init__(self, options: argparse.Namespace, kinds: list[Kind]) -> None:
        """Nothing has been measured yet."""
        self.options = options
        self.kinds = kinds
        names = [kind.name for kind in kinds]
        self.rates = Table("Throughput", names, "requests/s")
        self.costs = Table("Processor time", names, "µs a request, user + kernel", rising=False)
        parking = [kind.name for kind in kinds if kind.parking]
        self.memory = Table("Parked requests, memory", parking, "KiB each", rising=False)
        self.wakes = Table("Parked requests, all woken by one", parking, "ms", rising=False)
        self.generator = Generator(options.client_cpu)

    def round(self) -> None:
        """Measure every workload once on each server, interleaved."""
        for load in self.chosen(WORKLOADS):
            for kind in self.kinds:
                if load.module == "plain" or kind.parking:
                    self.attempt(self.rates.cell(load.name, kind.name), kind, load)
        for count in self.options.parked:
            for kind in self.kinds:
                if kind.parking:
                    self.park(kind, count)

    def chosen(self, loads: list[Workload]) -> list[Workload]:
        """Those whose names contain what was asked for."""
        return [load for load in loads if self.options.only in load.name]

    def attempt(self, cell: Cell, kind: Kind, load: Workload) -> None:
        """One server under one load."""
        if cell.refusal:
            return
        threads = 64 if load.module == "parking" else 1
        try:
            with Running(kind, load.module, self.options.server_cpu, threads=threads) as server:
                self.generator.steady(server, load, self.options.seconds / 5).check(kind.name)
                before = server.cpu_seconds()
                figures = self.generator.steady(server, load, self.options.seconds)
                after = server.cpu_seconds()
            figures.check(kind.name)
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            cell.refusal = one_line(error)
            self.say(f"{load.name}: {kind.name}: {cell.refusal}")
            return
        cell.values.append(figures.rate)
        spent = sum(after) - sum(before)
        self.costs.cell(load.name, kind.name).values.append(spent / figures.answered * 1e6)
        self.say(f"{load.name}: {kind.name}: {figures.rate:,.0f}/s, p99 {figures.p99_ns / 1e6:.2f} ms")

    def park(self, kind: Kind, count: int) -> None:
        """So many requests wait, and one wakes them."""
        memory = self.memory.cell(f"{count:,}", kind.name)
        wakes = self.wakes.cell(f"{count:,}", kind.name)
        if wakes.refusal:
            return
        try:
            with Running(kind, "parking", self.options.server_cpu, threads=count + 2) as server:
                before = server.rss()
                with self.generator.parked(server, count, WAKE_SECONDS) as parked:
                    settle(server, count)
                    each = (server.rss() - before) / count
                    figures = parked.wake()
            figures.check(kind.name)
            if figures.answered != count:
                raise Failed(f"{kind.name}: {figures.answered} of {count} were answered")
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            wakes.refusal = one_line(error)
            self.say(f"{count:,} parked: {kind.name}: {wakes.refusal}")
            return
        memory.values.append(each)
        wakes.values.append(figures.seconds * 1e3)
        self.say(f"{count:,} parked: {kind.name}: {each:.1f} KiB, {figures.seconds * 1e3:,.0f} ms")

    def say(self, line: str) -> None:
        """Tell how far it is."""
        print(line, file=sys.stderr, flush=True)

    def report(self) -> str:
        """All tables."""
        tables = [self.rates, self.costs, self.memory, self.wakes]
        return "\n\n".join(table.markdown(OURS) for table in tables if table.rows)


def settle(server: Running, count: int) -> None:
    """Wait until so many requests wait in the application."""
    deadline = time.monotonic() + SETTLE_SECONDS
    parked = -1
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError):
            parked = int(server.ask("/parked"))
        if parked == count:
            return
        time.sleep(0.1)
    raise Failed(f"{server.kind.name}: {parked} of {count} requests are parked after a while")


def one_line(error: Exception) -> str:
    """What went wrong, for a table."""
    return " ".join(str(error).split())[:160]


def machine() -> str:
    """Where and when."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {model}, {os.cpu_count()} processors, Linux {platform.release()}, "
        f"CPython {platform.python_version()}"
    )


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benches/compare", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of all servers in turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="for each load (%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="workloads named like this")
    parser.add_argument("--servers", default="", metavar="A,B", help="these servers only")
    parser.add_argument(
        "--parked", type=int, nargs="*", default=[10_000, 19_000], help="requests parked at once"
    )
    parser.add_argument("--server-cpu", type=int, default=0, help="processor of the server")
    parser.add_argument("--client-cpu", type=int, default=1, help="processor of the load")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Compare, and print the tables."""
    options = parse(words)
    wanted = [name for name in options.servers.split(",") if name]
    kinds = [kind for kind in KINDS if not wanted or kind.name in wanted]
    missing = [kind.name for kind in kinds if kind.version() is None]
    kinds = [kind for kind in kinds if kind.version() is not None]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.NamedTemporaryFile(prefix="compare-") as file:
        file.write(workloads.PATTERN)
        file.flush()
        os.environ["COMPARE_FILE"] = file.name
        comparison = Comparison(options, kinds)
        try:
            for _ in range(options.rounds):
                comparison.round()
        finally:
            comparison.generator.close()
    print(f"{machine()}.\n")
    print(", ".join(f"{kind.name} {kind.version()}" for kind in kinds) + ".")
    if missing:
        print(f"Not installed here, and not measured: {', '.join(missing)}.")
    print(f"\n{comparison.report()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
