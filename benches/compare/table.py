"""Figures of several rounds, as a table in Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass
class Cell:
    """One server's figure for one workload, round by round; or why there is none."""

    values: list[float] = field(default_factory=list)
    refusal: str = ""
    # Whether it is shown, but not compared with.
    aside: bool = False

    def median(self) -> float | None:
        """The middle of the rounds, unless one was refused."""
        return statistics.median(self.values) if self.values and not self.refusal else None

    def spread(self) -> float:
        """How far the rounds lie apart, as a part of their median."""
        middle = self.median()
        return (max(self.values) - min(self.values)) / middle if middle else 0.0


@dataclass
class Table:
    """Rows of cells, a column for each server."""

    title: str
    columns: list[str]
    unit: str
    # Whether more is better.
    rising: bool = True
    # A column that is shown, and no server to compare with.
    apart: str = ""
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def cell(self, row: str, column: str) -> Cell:
        """The cell there, made if need be."""
        return self.rows.setdefault(row, {}).setdefault(column, Cell())

    def markdown(self, first: str) -> str:
        """The table, with the ratio of `first` to the best of the others behind it."""
        head = ["", *self.columns, f"{first} / best other"]
        lines = [f"**{self.title}** ({self.unit}; median, ± half the spread)", ""]
        lines += [row_of(head), row_of(["---", *["--:"] * (len(head) - 1)])]
        refusals = []
        for name, cells in self.rows.items():
            shown = [show(cells.get(column)) for column in self.columns]
            lines.append(row_of([name, *shown, self.ratio(cells, first)]))
            refusals += [
                f"- {name}: {cell.refusal}" for cell in cells.values() if cell.refusal
            ]
        return "\n".join([*lines, *([""] if refusals else []), *refusals])

    def ratio(self, cells: dict[str, Cell], first: str) -> str:
        """How `first` compares with the best of the others; above one is better."""
        ours = cells.get(first, Cell()).median()
        others = [
            middle
            for column, cell in cells.items()
            if column not in (first, self.apart) and not cell.aside and (middle := cell.median()) is not None
        ]
        if not ours or not others:
            return "–"
        value = ours / max(others) if self.rising else min(others) / ours
        return f"{value:.2f}"


def row_of(cells: list[str]) -> str:
    """A line of the table."""
    return f"| {' | '.join(cells)} |"


def show(cell: Cell | None) -> str:
    """A figure as a reader wants it."""
    if cell is None:
        return "–"
    middle = cell.median()
    if middle is None:
        return "fails"
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    shown = f"{middle:,.{digits}f}{'*' * cell.aside}"
    return f"{shown} ±{cell.spread() * 50:.0f} %" if len(cell.values) > 1 else shown
