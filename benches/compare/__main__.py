"""Compares meinheld with other WSGI servers: python benches/compare [--help].

Each round starts each server anew, in turn, on one processor; the load generator has another. Every
byte of every answer is checked, and a server that gives a wrong one has no figure.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import report
import workloads
from comparison import Comparison
from servers import KINDS, Kind


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
    parser.add_argument("--seconds", type=float, default=0.5, help="for each load (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=13, help="no round begins that would not end in time (%(default)s)"
    )
    parser.add_argument("--only", metavar="TEXT", help="workloads named like this, and nothing else")
    parser.add_argument("--servers", default="", metavar="A,B", help="these servers only")
    parser.add_argument("--parked", type=int, nargs="*", help="requests parked at once (10000)")
    parser.add_argument("--crowd", type=int, help="the same, in the first round alone (19000)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--server-cpu", type=int, default=0, help="processor of the server")
    parser.add_argument("--client-cpu", type=int, default=1, help="processor of the load")
    options = parser.parse_args(words)
    options.whole = options.only is None
    if options.parked is None:
        options.parked = [10_000] if options.whole else []
    if options.crowd is None:
        options.crowd = 19_000 if options.whole else 0
    options.only = options.only or ""
    return options


def compare(options: argparse.Namespace, kinds: list[Kind]) -> Comparison:
    """Measure round by round, while there is time."""
    comparison = Comparison(options, kinds)
    try:
        while comparison.rounds < options.rounds:
            comparison.round()
            each = (time.monotonic() - comparison.begun) / comparison.rounds
            if (comparison.rounds + 1) * each > options.minutes * 60:
                break
    except KeyboardInterrupt:
        print("interrupted: what has been measured is told", file=sys.stderr)
    finally:
        comparison.generator.close()
    return comparison


def main(words: list[str]) -> int:
    """Compare, and print the tables."""
    options = parse(words)
    wanted = [name for name in options.servers.split(",") if name]
    kinds = [kind for kind in KINDS if not wanted or kind.name in wanted]
    missing = [kind.name for kind in kinds if kind.version() is None]
    kinds = [kind for kind in kinds if kind.version() is not None]
    if len(os.sched_getaffinity(0)) < 2:
        print("there is one processor: server and load share it, and the figures say little", file=sys.stderr)
        options.client_cpu = options.server_cpu = min(os.sched_getaffinity(0))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.NamedTemporaryFile(prefix="compare-") as file:
        file.write(workloads.PATTERN)
        file.flush()
        os.environ["COMPARE_FILE"] = file.name
        comparison = compare(options, kinds)
    text = report.markdown(machine(), comparison, missing)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
