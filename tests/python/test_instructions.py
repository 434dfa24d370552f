"""What a request costs, in instructions that valgrind counts: the figures repeat, whatever else runs."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNTER = Path(__file__).resolve().parents[2] / "benches" / "instructions"

pytestmark = [
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind to count instructions"),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64",
        reason="there are ceilings for CPython 3.11 on x86-64 alone",
    ),
]


def count(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COUNTER), *words], capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.timeout(300)
def test_requests_stay_below_their_ceilings() -> None:
    counted = count("--check")
    assert counted.returncode == 0, counted.stdout + counted.stderr
    for scenario in ("w1", "w4", "w4-varying", "pipelined"):
        assert f"[{scenario}]" in counted.stdout


@pytest.mark.timeout(300)
def test_a_request_costs_the_same_beside_thousands_that_wait() -> None:
    counted = count("parked", "routed")
    assert counted.returncode == 0, counted.stdout + counted.stderr
    found = re.findall(r"([0-9,]+)  .*\[(\w+)\]", counted.stdout)
    costs = {scenario: int(figure.replace(",", "")) for figure, scenario in found}
    # A per cent is what figures differ by that are counted twice.
    assert costs["parked"] <= costs["routed"] * 1.02, costs
