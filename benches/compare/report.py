"""What is told in the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import startup
from comparison import OURS, Comparison
from servers import Kind
from table import Table
from workloads import LOGGED, WORKLOADS

BENCHES = Path(__file__).resolve().parents[1]
BENCH_SECONDS = 120
# Servers that are one process, so that valgrind counts for them, and what is counted.
COUNTED = (OURS, "bjoern", "fastwsgi", "freastal")
SCENARIOS = ("w1", "w4", "w4-varying", "close")
COUNT_SECONDS = 60
COUNT = re.compile(r" *([0-9,]+)  (.*) \[.*\]$")


def markdown(machine: str, comparison: Comparison, missing: list[str]) -> str:
    """Everything, in Markdown."""
    kinds = comparison.kinds
    rounds, seconds = comparison.rounds, comparison.options.seconds
    lines = [f"{machine}. Rounds of all servers in turn: {rounds}; {seconds:g} s for each load."]
    packages = {kind.package or kind.name: kind for kind in reversed(kinds) if kind.version()}
    versions = [f"{package} {kind.version()}" for package, kind in packages.items()]
    lines += ["", f"{', '.join(reversed(versions))}."]
    lines += [f"{kind.remark}." for kind in kinds if kind.remark]
    if missing:
        lines += [f"Not installed here, and not measured: {', '.join(missing)}."]
    tables, extra = comparison.tables(), access_log(comparison)
    if comparison.options.whole:
        count = Table("", [], "") if comparison.counts else counted(kinds)
        tables += [count] if count.rows else []
        extra += ours() if any(kind.name == OURS for kind in kinds) else []
    for table in tables:
        lines += ["", table.markdown(OURS)]
    if any(cell.aside for row in comparison.rates.rows.values() for cell in row.values()):
        lines += ["", "\\* holds the first piece back until more is there, so that it is not compared with."]
    return "\n".join([*lines, *([""] if extra else []), *extra])


def access_log(comparison: Comparison) -> list[str]:
    """What our access log costs."""
    rows = comparison.rates.rows
    bare = rows.get(WORKLOADS[0].name, {}).get(OURS)
    logged = rows.get(LOGGED.name, {}).get(OURS)
    if not bare or not logged or not bare.median() or not logged.median():
        return []
    part = 1 - (logged.median() or 0) / (bare.median() or 1)
    return [f"- With its access log on, {OURS} answers {part:.0%} less requests a second."]


def counted(kinds: list[Kind]) -> Table:
    """What valgrind counts of some servers; empty if it is not there."""
    names = [kind.name for kind in kinds if kind.name in COUNTED]
    table = Table("Instructions in user mode, by callgrind", names, "a request", rising=False)
    for name in names if shutil.which("valgrind") else []:
        told = told_by("instructions", "--server", name, *SCENARIOS, seconds=COUNT_SECONDS)
        for line in told.splitlines():
            if found := COUNT.match(line):
                table.cell(found[2], name).values.append(float(found[1].replace(",", "")))
    return table


def ours() -> list[str]:
    """What is measured of meinheld alone."""
    bill = [" ".join(line.split()) for line in told_by("parked.py").splitlines()]
    return [
        f"- Spawned coroutines: {told_by('spawned.py')}.",
        f"- {bill[0]} {'; '.join(bill[1:])}.",
        f"- `import meinheld.server` takes {startup.milliseconds():.1f} ms more than `pass`.",
    ]


def told_by(script: str, *words: str, seconds: float = BENCH_SECONDS) -> str:
    """What one of the other benches prints within its time; then it ends, and what it has started."""
    command, pipe = [sys.executable, str(BENCHES / script), *words], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    with process:
        try:
            out, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, error = process.communicate()
            error = error or f"it did not end within {seconds:.0f} s"
    return out.strip() or f"failed: {error.strip()[-160:]}"
