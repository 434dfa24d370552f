"""Thousands of clients that send or read one byte a second."""

from __future__ import annotations

import itertools
import time

from crowd import Crowd
from outcome import Outcome, is_well
from probe import Probe
from target import Target

#: The server's time-out for a head, and a little more.
HEAD_SECONDS = 33
SENDERS_FEW = 1000
SENDERS_MANY = 3000
READERS = 1000
ATTEMPTS = 3
#: A reader holds a coroutine: its stack, a Python frame or two, the piece on its way.
KIB_PER_SENDER = 64
KIB_PER_READER = 512
DESCRIPTOR_SLACK = 8


def slow_clients(seconds: float) -> Outcome:
    """Measure with 1,000 senders, with 3,000, and with 1,000 readers besides."""
    outcome = Outcome("slow clients")
    with Target() as target, Target() as quiet:
        crowd = Crowd(target.address)
        try:
            _fire(outcome, target, quiet, crowd, seconds)
        finally:
            crowd.leave()
        descriptors = quiet.descriptors()
        target.settle(descriptors + DESCRIPTOR_SLACK)
        outcome.returns("descriptors", descriptors, target.descriptors(), DESCRIPTOR_SLACK)
        outcome.promise(target.is_alive(), "the server has died")
    return outcome


def _fire(
    outcome: Outcome, target: Target, quiet: Target, crowd: Crowd, seconds: float
) -> None:
    senders = itertools.cycle(["head", "chunked", "head", "length"])
    resident, begun = target.rss(), time.monotonic()
    for total in (SENDERS_FEW, SENDERS_MANY):
        crowd.join(itertools.islice(senders, total - len(crowd)))
        _measure(outcome, f"{total} senders", target, quiet, crowd, seconds)
    cost = (target.rss() - resident) / len(crowd)
    outcome.note(f"{cost:.1f} KiB a sender")
    outcome.promise(cost <= KIB_PER_SENDER, f"{cost:.1f} KiB a sender")
    resident = target.rss()
    crowd.join(["reader"] * READERS)
    _measure(outcome, f"{READERS} readers more", target, quiet, crowd, seconds)
    state = target.state()
    reading = state["begun"] - state["closed"]
    outcome.note(f"{reading} responses stand still after {state['pieces'] / READERS:.0f} pieces")
    outcome.promise(reading == READERS, f"only {reading} of {READERS} readers stop their generator")
    cost = (target.rss() - resident) / READERS
    outcome.note(f"{cost:.1f} KiB a reader")
    outcome.promise(cost <= KIB_PER_READER, f"{cost:.1f} KiB a reader")
    crowd.run(max(HEAD_SECONDS - (time.monotonic() - begun), 1))
    ends = ", ".join(f"{kind} {how} {count}" for (kind, how), count in sorted(crowd.ends.items()))
    outcome.note(f"ended: {ends}; {len(crowd)} go on")
    wrong = {end: count for end, count in crowd.ends.items() if end != ("head", "408")}
    outcome.promise(not wrong, f"slow clients ended otherwise than heads by 408: {wrong}")
    outcome.promise(crowd.ends["head", "408"] >= SENDERS_FEW // 2, "slow heads were not ended by 408")


def _measure(
    outcome: Outcome, what: str, target: Target, quiet: Target, crowd: Crowd, seconds: float
) -> None:
    crowd.run(1)
    for attempt in reversed(range(ATTEMPTS)):
        probe = Probe(target.address, quiet.address)
        crowd.run(seconds)
        fired, quietly = probe.stop()
        # On a machine that others use too, one measurement may be theirs.
        if attempt == 0 or is_well(fired, quietly):
            return outcome.compare(what, fired, quietly)
