"""The measurements: each round asks every server for everything, in turn."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import counters
from load import Figures, Generator
from servers import OLD, SENDS, Failed, Kind, Running
from table import Cell, Table
from workloads import BESIDE, LOGGED, WORKLOADS, Workload

OURS = "meinheld"
# Those that are asked to hold as many requests as there are descriptors: it takes half a minute each.
CROWD = (OURS, OLD, "gevent", SENDS.name)
# How often short loads alternate between a server that holds requests and one that holds none.
ALTERNATIONS = 7
SETTLE_SECONDS = 10.0
WAKE_SECONDS = 30.0
# What a server may not do, or does not do as asked: it has no figure then.
FAILURES = (Failed, OSError, subprocess.TimeoutExpired)


class Comparison:
    """The servers that are there, and the tables that fill up round by round."""

    def __init__(self, options: argparse.Namespace, kinds: list[Kind]) -> None:
        """Nothing has been measured yet."""
        self.options = options
        self.kinds = kinds
        self.parking = [kind for kind in kinds if kind.parking and kind is not SENDS]
        names = [kind.name for kind in kinds if kind is not SENDS]
        parking = [kind.name for kind in self.parking]
        self.rates = Table("Requests a second", names, "one process, one processor")
        self.costs = Table("Processor time", names, "µs a request, user + kernel", rising=False)
        self.memory = Table("Parked requests: memory", parking, "KiB each", rising=False)
        waking = [*parking, SENDS.name] if SENDS in kinds else parking
        self.wakes = Table(
            "Parked requests: all woken by one", waking, "ms", rising=False, apart=SENDS.name
        )
        self.wake_costs = Table(
            "The same: processor time of the server",
            *(waking, "ms, user + kernel"),
            rising=False,
            apart=SENDS.name,
        )
        self.beside = Table("Hello beside parked requests", parking, "µs of processor time", rising=False)
        self.growth = Table(
            "The same, by what it is with none parked", parking, "in turn, 1 is the same", rising=False
        )
        self.users = Table("Instructions in user mode", names, "a request", rising=False)
        self.kernels = Table("Instructions in the kernel", names, "a request", rising=False)
        self.counts = counters.are_available()
        self.generator = Generator(options.client_cpu)
        self.rounds = 0
        self.begun = time.monotonic()

    def round(self) -> None:
        """Measure every workload once on each server, interleaved."""
        for load in WORKLOADS:
            for kind in self.asked(load):
                self.attempt(kind, load)
        sends = [SENDS] if SENDS in self.kinds else []
        for count in self.options.parked:
            for kind in [*self.parking, *sends]:
                self.park(kind, count)
            for kind in self.parking:
                # The others are no part of what is asked; one look at them is enough.
                if self.rounds == 0 or kind.name == OURS:
                    self.beside_parked(kind, count)
        if self.rounds == 0:
            for kind in [*self.parking, *sends] if self.options.crowd else []:
                if kind.name in CROWD:
                    self.park(kind, self.options.crowd)
        self.rounds += 1

    def asked(self, load: Workload) -> Iterator[Kind]:
        """The servers that a workload is for."""
        if self.options.only in load.name:
            for kind in self.kinds:
                is_there = load.module == "plain" or kind.parking
                if is_there and kind is not SENDS and (load is not LOGGED or kind.name == OURS):
                    yield kind

    def attempt(self, kind: Kind, load: Workload) -> None:
        """One server under one load."""
        cell = self.rates.cell(load.name, kind.name)
        if cell.refusal:
            return
        with self.filling(cell, load.name, kind):
            threads = 64 if load.module == "parking" else 1
            cpu = self.options.server_cpu
            with Running(kind, load.module, cpu, threads=threads, logged=load.logged) as server:
                cell.aside = load.streamed and not server.streams()
                self.generator.steady(server, load, self.options.seconds / 5).check(kind.name)
                figures, spent = self.measure(server, load)
            cell.values.append(figures.rate)
            for table, value in zip((self.costs, self.users, self.kernels), spent, strict=False):
                other = table.cell(load.name, kind.name)
                other.values.append(value / figures.answered)
                other.aside = cell.aside
            self.say(f"{load.name}: {kind.name}: {figures.rate:,.0f}/s, p99 {figures.p99_ns / 1e6:.2f} ms")

    def measure(self, server: Running, load: Workload) -> tuple[Figures, list[float]]:
        """The load's figures; microseconds of processor time, and instructions if they count."""
        counting = counters.Counters(server.pids())
        before = server.cpu_seconds()
        with counting if self.counts else contextlib.nullcontext():
            figures = self.generator.steady(server, load, self.options.seconds)
        spent = server.cpu_seconds() - before
        figures.check(server.kind.name)
        return figures, [spent * 1e6, *counting.instructions]

    def park(self, kind: Kind, count: int) -> None:
        """So many requests wait, others go on beside them, and one wakes them."""
        row = f"{count:,}"
        cell = self.wakes.cell(row, kind.name)
        if cell.refusal:
            return
        with self.filling(cell, f"{row} parked", kind):
            with Running(kind, "parking", self.options.server_cpu, threads=count + 64) as server:
                self.generator.steady(server, BESIDE, self.options.seconds / 5).check(kind.name)
                before = server.rss()
                with self.generator.parked(server, count, WAKE_SECONDS) as parked:
                    settle(server, count)
                    each = (server.rss() - before) / count
                    waking = server.cpu_seconds()
                    figures = parked.wake()
                    waking = server.cpu_seconds() - waking
            figures.check(kind.name)
            if figures.answered != count:
                raise Failed(f"{kind.name}: {figures.answered} of {count} were answered")
            if kind is not SENDS:
                self.memory.cell(row, kind.name).values.append(each)
            cell.values.append(figures.seconds * 1e3)
            self.wake_costs.cell(row, kind.name).values.append(waking * 1e3)
            self.say(f"{row} parked: {kind.name}: {each:.1f} KiB, {figures.seconds * 1e3:,.0f} ms")

    def beside_parked(self, kind: Kind, count: int) -> None:
        """What a hello costs beside so many parked requests, and without: two servers take turns."""
        row, cpu = f"{count:,}", self.options.server_cpu
        cell = self.growth.cell(row, kind.name)
        if cell.refusal or self.wakes.cell(row, kind.name).refusal:
            return
        with self.filling(cell, f"beside {row} parked", kind):
            with (
                Running(kind, "parking", cpu, threads=64) as free,
                Running(kind, "parking", cpu, threads=count + 64) as holding,
                self.generator.parked(holding, count, WAKE_SECONDS),
            ):
                settle(holding, count)
                pairs = self.alternate(free, holding)
            for name, costs in zip(("none", row), zip(*pairs, strict=True), strict=True):
                self.beside.cell(name, kind.name).values.append(statistics.median(costs))
            ratio = statistics.median(beside / alone for alone, beside in pairs)
            cell.values.append(ratio)
            self.say(f"beside {row} parked: {kind.name}: {ratio:.3f} of what it costs beside none")

    def alternate(self, *servers: Running) -> list[list[float]]:
        """What a hello costs each of the servers, by short loads in turn; the first loads warm them."""
        costs = [[self.hello_cost(server) for server in servers] for _ in range(ALTERNATIONS + 1)]
        return costs[1:]

    def hello_cost(self, server: Running) -> float:
        """Microseconds of processor time, by a short load."""
        before = server.cpu_seconds()
        figures = self.generator.steady(server, BESIDE, self.options.seconds / 5)
        spent = server.cpu_seconds() - before
        figures.check(server.kind.name)
        return spent * 1e6 / figures.answered

    @contextlib.contextmanager
    def filling(self, cell: Cell, what: str, kind: Kind) -> Iterator[None]:
        """What goes wrong within is the cell's refusal."""
        try:
            yield
        except FAILURES as error:
            cell.refusal = one_line(error)
            self.say(f"{what}: {kind.name}: {cell.refusal}")

    def say(self, line: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self.begun:4.0f} s  {line}", file=sys.stderr, flush=True)

    def tables(self) -> list[Table]:
        """Those in which something stands."""
        tables = [self.rates, self.costs, self.users, self.kernels]
        tables += [self.memory, self.wakes, self.wake_costs, self.beside, self.growth]
        return [table for table in tables if table.rows]


def settle(server: Running, count: int) -> None:
    """Wait until so many requests wait in the application."""
    deadline = time.monotonic() + SETTLE_SECONDS
    parked = None
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, OSError):
            parked = int(server.ask("/parked", 2))
        if parked == count:
            return
        time.sleep(0.1)
    after = f"{SETTLE_SECONDS:.0f} s after {count:,} requests were sent"
    if parked is None:
        raise Failed(f"{server.kind.name}: no other was answered within {after}")
    raise Failed(f"{server.kind.name}: {parked:,} wait {after}")


def one_line(error: Exception) -> str:
    """What went wrong, for a table."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{Path(error.cmd[3]).name} did not end within {error.timeout:.0f} s"
    return " ".join(str(error).split())[:160]
