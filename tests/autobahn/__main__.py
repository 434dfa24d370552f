"""Runs the Autobahn cases, by way of kosoku, against meinheld, and prints what came of them.

Usage: python tests/autobahn KOSOKU [ARGUMENT...]: the program kosoku, and arguments for it. The
server runs on the Python that runs this. Compression, categories 12 and 13, is left out: meinheld
negotiates no extension.
"""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = ("12.*", "13.*")
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
SECONDS = 300


def main(kosoku: str, *arguments: str) -> int:
    """Run it; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        server = start(log)
        try:
            excluded = [word for case in LEFT_OUT for word in ("-x", case)]
            where = [f"127.0.0.1:{port(server, log)}", "-o", folder]
            command = [kosoku, "-m", "fuzzingclient", *where, *excluded, *arguments]
            status = subprocess.run(command, timeout=SECONDS, check=False).returncode
        finally:
            server.terminate()
            server.wait(40)
        failed = tell(json.loads(Path(folder, "index.json").read_text()))
    return int(bool(failed or status))


def start(log: Path) -> subprocess.Popen[bytes]:
    """Start the server, on a port that it chooses."""
    command = [sys.executable, "-m", "meinheld", "echo:app", "--bind", "127.0.0.1:0"]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=HERE, stdout=output, stderr=output)


def port(server: subprocess.Popen[bytes], log: Path) -> str:
    """The port, once the server tells it."""
    deadline = time.monotonic() + 20
    while (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())) is None:
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server does not listen:\n{log.read_text()}")
        time.sleep(0.02)
    return found[1]


def tell(index: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Print a line for each category; the cases that failed."""
    (cases,) = index.values()
    table: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case, result in cases.items():
        table[int(case.split(".")[0])][result["behavior"]] += 1
    for category, counts in sorted(table.items()):
        print(f"{category:3}", *(f"{count} {behavior}" for behavior, count in counts.items()))
    failed = [
        f"{case}: {result['behavior']}, close {result['behaviorClose']}"
        for case, result in cases.items()
        if not {result["behavior"], result["behaviorClose"]} <= GOOD
    ]
    print(f"{len(cases)} cases, {len(failed)} failed", *failed, sep="\n")
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
