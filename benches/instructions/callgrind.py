"""What callgrind wrote, as the cost of each function itself.

callgrind_annotate follows calls and returns, which the switch between stacks confuses; the costs of
the functions themselves are right.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

NAME = re.compile(r"\((\d+)\)(?: (.*))?$")


def self_costs(path: Path) -> Counter[str]:
    """The instructions of each function, without those of what it calls."""
    names: dict[str, str] = {}
    costs: Counter[str] = Counter()
    function = ""
    is_call = False
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key in ("fn", "cfn"):
            name = _name(names, value)
            function = name if key == "fn" else function
        elif key == "calls":
            is_call = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not is_call:
                costs[function] += int(line.split()[1])
            is_call = False
    return costs


def _name(names: dict[str, str], value: str) -> str:
    found = NAME.match(value)
    if found is None:
        return value
    number, name = found.groups()
    if name is not None:
        # Recursion is counted apart, as "name'2".
        names[number] = name.partition("'")[0]
    return names[number]
