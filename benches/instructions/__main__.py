"""How many instructions the server spends on a request, counted by valgrind.

Each scenario has a server of its own under callgrind. After a warm-up, n rounds are counted and then 3n; the
difference, by 2n rounds, is what a request costs, whatever start-up or the counting itself costs. Instructions
of the kernel are not among them. The figures repeat within a per cent on one machine.

    python benches/instructions [--profile N] [--check] [--server NAME] [SCENARIO …]

With --check the figures are held against ceilings.toml, and only the scenarios in there are counted.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

from callgrind import self_costs
from scenarios import SCENARIOS, Address, Connection, Scenario, hold

HERE = Path(__file__).resolve().parent
START_SECONDS = 60
WARM_UP_ROUNDS = 20
SERVERS = ("meinheld", "bjoern", "fastwsgi", "freastal")


class Counted:
    """A server under callgrind; as a context manager it ends with the block."""

    def __init__(self, server: str, scenario: Scenario, directory: Path) -> None:
        """Start it."""
        self._output = directory / "callgrind"
        log = str(directory / "access.log") if scenario.access_log else "off"
        self._process = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={self._output}"),
                *(sys.executable, str(HERE / "app.py"), server, scenario.application, log),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._dumps = 0

    def address(self) -> Address:
        """Where it listens, once it does."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {' '.join(map(str, self._process.args))}")
        address = ("127.0.0.1", int(line))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                Connection(address).close()
                return address
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def costs(self) -> Counter[str]:
        """What was spent on each function since the last time, or since the start."""
        self._dumps += 1
        path = self._output.with_name(f"callgrind.{self._dumps}")
        command = ["callgrind_control", "-d", str(self._process.pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise SystemExit("callgrind_control had no effect")
            time.sleep(0.01)
        return self_costs(path)

    def __enter__(self) -> Counted:
        """Return the server."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def count(server_name: str, scenario: Scenario) -> Counter[str]:
    """The instructions that each function spends on a request, in thousandths."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as directory:
        with Counted(server_name, scenario, Path(directory)) as server:
            address = server.address()
            held = hold(address, scenario.parked)
            connections = [Connection(address) for _ in range(scenario.connections)]
            counts = []
            for rounds in (WARM_UP_ROUNDS, scenario.rounds, 3 * scenario.rounds):
                for number in range(rounds):
                    scenario.exchange(connections, 1000 * len(counts) + number)
                counts.append(server.costs())
            for connection in (*held, *connections):
                connection.close()
    requests = 2 * scenario.rounds * scenario.connections * scenario.batch
    _, less, more = counts
    return Counter({name: 1000 * (more[name] - less[name]) // requests for name in more})


def ceilings() -> dict[str, int]:
    """The most that each scenario may cost on this interpreter and machine; empty if it was counted on neither."""
    versions = tomllib.loads((HERE / "ceilings.toml").read_text()).get(platform.machine(), {})
    found: dict[str, int] = versions.get(f"cpython-{sys.version_info[0]}.{sys.version_info[1]}", {})
    return found


def main() -> None:
    """Count what the command line names, or everything."""
    parser = argparse.ArgumentParser(prog="benches/instructions", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="list the N dearest functions, too")
    parser.add_argument("--server", default="meinheld", choices=SERVERS, help="one that is installed (%(default)s)")
    parser.add_argument("--check", action="store_true", help="fail if a ceiling is exceeded")
    parser.add_argument("scenario", nargs="*", help=", ".join(SCENARIOS))
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("no valgrind: apt-get install valgrind")
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}")
    limits = ceilings() if options.check else {}
    if options.check and not limits:
        raise SystemExit(f"{platform.python_version()} on {platform.machine()} has no ceilings")
    print(f"{'user instructions':>18}  per request")
    exceeded = []
    for name in options.scenario or limits or SCENARIOS:
        costs = count(options.server, SCENARIOS[name])
        total = costs.total() / 1000
        print(f"{total:18,.0f}  {SCENARIOS[name].title} [{name}]", flush=True)
        for function, cost in costs.most_common(options.profile):
            print(f"{cost / 1000:18,.1f}  {function:.150}")
        if name in limits and total > limits[name]:
            exceeded.append(f"{name}: {total:,.0f}, and {limits[name]:,} are allowed")
    if exceeded:
        raise SystemExit("\n".join(exceeded))


if __name__ == "__main__":
    main()
