"""What is told in the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import startup
from comparison import OURS, Comparison
from workloads import LOGGED, WORKLOADS

SPAWNED_SECONDS = 120


def markdown(machine: str, comparison: Comparison, missing: list[str], extra: list[str]) -> str:
    """Everything, in Markdown."""
    kinds = comparison.kinds
    rounds, seconds = comparison.rounds, comparison.options.seconds
    lines = [f"{machine}. Rounds of all servers in turn: {rounds}; {seconds:g} s for each load."]
    packages = {kind.package or kind.name: kind for kind in reversed(kinds)}
    versions = [f"{package} {kind.version()}" for package, kind in packages.items()]
    lines += ["", f"{', '.join(reversed(versions))}."]
    lines += [f"{kind.remark}." for kind in kinds if kind.remark]
    if missing:
        lines += [f"Not installed here, and not measured: {', '.join(missing)}."]
    for table in comparison.tables():
        lines += ["", table.markdown(OURS)]
    if any(cell.aside for row in comparison.rates.rows.values() for cell in row.values()):
        lines += ["", "\\* holds the first piece back until more is there, so that it is not compared with."]
    extra = [*access_log(comparison), *extra]
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


def ours(spawned: Path) -> list[str]:
    """What is measured of meinheld alone."""
    told = subprocess.run(
        [sys.executable, str(spawned)], capture_output=True, text=True, timeout=SPAWNED_SECONDS, check=False
    )
    line = told.stdout.strip() or f"failed: {told.stderr.strip()[-160:]}"
    return [
        f"- Spawned coroutines: {line}.",
        f"- `import meinheld.server` takes {startup.milliseconds():.1f} ms more than `pass`.",
    ]
