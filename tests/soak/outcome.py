"""What came of a fire: figures, and the promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass, field

from probe import Latency

#: A p99 below this many seconds is well, whatever it was without the fire: a scheduler's noise.
LATENCY_FLOOR = 0.002
LATENCY_FACTOR = 3


def is_well(fired: Latency, quiet: Latency, floor: float = LATENCY_FLOOR) -> bool:
    """Whether a healthy client hardly notices the fire."""
    return fired.p99 <= max(LATENCY_FACTOR * quiet.p99, floor)


@dataclass
class Outcome:
    """Of one fire."""

    name: str
    figures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(self, figure: str) -> None:
        """Add a figure."""
        self.figures.append(figure)

    def promise(self, kept: bool, what: str) -> None:
        """Add a broken promise, unless it was kept."""
        if not kept:
            self.broken.append(what)

    def compare(self, what: str, fired: Latency, quiet: Latency) -> None:
        """Promise that a healthy client hardly notices the fire."""
        self.note(f"{what}: under fire {fired}, without {quiet}")
        self.promise(fired.failures == 0, f"{what}: {fired.failures} healthy requests failed")
        slower = f"p99 {fired.p99 * 1e3:.2f} ms after {quiet.p99 * 1e3:.2f} ms"
        self.promise(is_well(fired, quiet), f"{what}: {slower}")

    def returns(self, what: str, before: int, after: int, slack: int) -> None:
        """Promise that something is back near what it was."""
        self.note(f"{what} {before} -> {after}")
        self.promise(after <= before + slack, f"{what} went from {before} to {after}")

    def __str__(self) -> str:
        """One line, and one for each broken promise."""
        lines = [f"{self.name}: {'; '.join(self.figures)}"]
        lines += [f"  BROKEN {self.name}: {what}" for what in self.broken]
        return "\n".join(lines)
