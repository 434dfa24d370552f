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

import counters
import startup
import workloads
from load import Figures, Generator
from servers import KINDS, Failed, Kind, Running
from table import Cell, Table
from workloads import BESIDE, LOGGED, WORKLOADS, Workload

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
        self.beside = Table("Hello beside parked requests", parking, "µs a request", rising=False)
        self.users = Table("Instructions in user mode", names, "a request", rising=False)
        self.kernels = Table("Instructions in the kernel", names, "a request", rising=False)
        self.counts = counters.are_available()
        self.generator = Generator(options.client_cpu)

    def round(self) -> None:
        """Measure every workload once on each server, interleaved."""
        for load in self.chosen(WORKLOADS):
            for kind in self.kinds:
                if load.module == "plain" or kind.parking:
                    self.attempt(self.rates.cell(load.name, kind.name), kind, load)
        for kind in self.kinds:
            if kind.name == OURS and self.options.only in LOGGED.name:
                self.attempt(self.rates.cell(LOGGED.name, OURS), kind, LOGGED)
        parking = [kind for kind in self.kinds if kind.parking and self.options.parked]
        for kind in parking:
            self.alone(kind)
        for count in self.options.parked:
            for kind in parking:
                self.park(kind, count)

    def chosen(self, loads: list[Workload]) -> list[Workload]:
        """Those whose names contain what was asked for."""
        return [load for load in loads if self.options.only in load.name]

    def attempt(self, cell: Cell, kind: Kind, load: Workload) -> None:
        """One server under one load."""
        if cell.refusal:
            return
        threads = 64 if load.module == "parking" else 1
        cpu = self.options.server_cpu
        try:
            with Running(kind, load.module, cpu, threads=threads, logged=load.logged) as server:
                self.generator.steady(server, load, self.options.seconds / 5).check(kind.name)
                figures, spent = self.measure(server, load)
            figures.check(kind.name)
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            cell.refusal = one_line(error)
            self.say(f"{load.name}: {kind.name}: {cell.refusal}")
            return
        cell.values.append(figures.rate)
        for table, value in zip((self.costs, self.users, self.kernels), spent, strict=False):
            table.cell(load.name, kind.name).values.append(value / figures.answered)
        rate, latency = figures.rate, figures.p99_ns / 1e6
        self.say(f"{load.name}: {kind.name}: {rate:,.0f}/s, p99 {latency:.2f} ms")

    def measure(self, server: Running, load: Workload) -> tuple[Figures, list[float]]:
        """The load's figures; microseconds of processor time, and instructions if they count."""
        counting = counters.Counters(server.pids())
        before = server.cpu_seconds()
        with counting if self.counts else contextlib.nullcontext():
            figures = self.generator.steady(server, load, self.options.seconds)
        spent = sum(server.cpu_seconds()) - sum(before)
        return figures, [spent * 1e6, *counting.instructions]

    def park(self, kind: Kind, count: int) -> None:
        """So many requests wait, others go on beside them, and one wakes them."""
        wakes = self.wakes.cell(f"{count:,}", kind.name)
        if wakes.refusal:
            return
        cpu = self.options.server_cpu
        try:
            with Running(kind, "parking", cpu, threads=count + 64) as server:
                before = server.rss()
                with self.generator.parked(server, count, WAKE_SECONDS) as parked:
                    settle(server, count)
                    each = (server.rss() - before) / count
                    self.hello_beside(f"{count:,}", kind, server)
                    figures = parked.wake()
            figures.check(kind.name)
            if figures.answered != count:
                raise Failed(f"{kind.name}: {figures.answered} of {count} were answered")
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            wakes.refusal = one_line(error)
            self.say(f"{count:,} parked: {kind.name}: {wakes.refusal}")
            return
        self.memory.cell(f"{count:,}", kind.name).values.append(each)
        wakes.values.append(figures.seconds * 1e3)
        self.say(f"{count:,} parked: {kind.name}: {each:.1f} KiB, {figures.seconds * 1e3:,.0f} ms")

    def alone(self, kind: Kind) -> None:
        """The same server with nothing parked."""
        with contextlib.suppress(Failed, OSError, subprocess.TimeoutExpired):
            with Running(kind, "parking", self.options.server_cpu, threads=64) as server:
                self.hello_beside("none", kind, server)

    def hello_beside(self, row: str, kind: Kind, server: Running) -> None:
        """What other requests cost."""
        figures, spent = self.measure(server, BESIDE)
        self.beside.cell(row, kind.name).values.append(spent[0] / figures.answered)

    def say(self, line: str) -> None:
        """Tell how far it is."""
        print(line, file=sys.stderr, flush=True)

    def report(self) -> str:
        """All tables."""
        tables = [self.rates, self.costs, self.users, self.kernels]
        tables += [self.memory, self.wakes, self.beside]
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
    if any(kind.name == OURS for kind in kinds):
        print(f"\n`import meinheld.server` takes {startup.milliseconds():.1f} ms.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
