"""The measurements: each round asks every server for everything, in turn."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import counters
from load import Figures, Generator
from servers import OLD, Failed, Kind, Running
from table import Cell, Table
from workloads import BESIDE, LOGGED, WORKLOADS, Workload

OURS = "meinheld"
# Those that are asked to hold as many requests as there are descriptors: it takes half a minute each.
CROWD = (OURS, OLD, "gevent")
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
        self.parking = [kind for kind in kinds if kind.parking]
        names = [kind.name for kind in kinds]
        parking = [kind.name for kind in self.parking]
        self.rates = Table("Requests a second", names, "one process, one processor")
        self.costs = Table("Processor time", names, "µs a request, user + kernel", rising=False)
        self.memory = Table("Parked requests: memory", parking, "KiB each", rising=False)
        self.wakes = Table("Parked requests: all woken by one", parking, "ms", rising=False)
        self.wake_costs = Table(
            "The same: processor time of the server", parking, "ms, user + kernel", rising=False
        )
        self.beside = Table("Hello beside parked requests", parking, "µs of processor time", rising=False)
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
        for count in self.options.parked:
            for kind in self.parking:
                self.park(kind, count)
        if self.rounds == 0:
            for kind in self.parking if self.options.crowd else []:
                if kind.name in CROWD:
                    self.park(kind, self.options.crowd)
        self.rounds += 1

    def asked(self, load: Workload) -> Iterator[Kind]:
        """The servers that a workload is for."""
        if self.options.only in load.name:
            for kind in self.kinds:
                is_there = load.module == "plain" or kind.parking
                if is_there and (load is not LOGGED or kind.name == OURS):
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
                alone = self.measure(server, BESIDE)
                before = server.rss()
                with self.generator.parked(server, count, WAKE_SECONDS) as parked:
                    settle(server, count)
                    each = (server.rss() - before) / count
                    beside = self.measure(server, BESIDE)
                    waking = server.cpu_seconds()
                    figures = parked.wake()
                    waking = server.cpu_seconds() - waking
            figures.check(kind.name)
            if figures.answered != count:
                raise Failed(f"{kind.name}: {figures.answered} of {count} were answered")
            for name, (answers, spent) in (("none", alone), (row, beside)):
                self.beside.cell(name, kind.name).values.append(spent[0] / answers.answered)
            self.memory.cell(row, kind.name).values.append(each)
            cell.values.append(figures.seconds * 1e3)
            self.wake_costs.cell(row, kind.name).values.append(waking * 1e3)
            self.say(f"{row} parked: {kind.name}: {each:.1f} KiB, {figures.seconds * 1e3:,.0f} ms")

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
        tables += [self.memory, self.wakes, self.wake_costs, self.beside]
        return [table for table in tables if table.rows]


def settle(server: Running, count: int) -> None:
    """Wait until so many requests wait in the application."""
    deadline = time.monotonic() + SETTLE_SECONDS
    parked = -1
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, OSError):
            parked = int(server.ask("/parked", 2))
        if parked == count:
            return
        time.sleep(0.1)
    raise Failed(f"{server.kind.name}: {parked} of {count} requests are parked after a while")


def one_line(error: Exception) -> str:
    """What went wrong, for a table."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{Path(error.cmd[3]).name} did not end within {error.timeout:.0f} s"
    return " ".join(str(error).split())[:160]
