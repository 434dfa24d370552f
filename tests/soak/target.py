"""The server under fire: a process of its own, and what it costs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20


class Target:
    """A running server; as a context manager it ends with the block, whatever happens in it."""

    def __init__(self, *flags: str, descriptors: int | None = None) -> None:
        """Start it, with as many descriptors as it may have."""
        self._directory = tempfile.TemporaryDirectory(prefix="soak-")
        self._log = Path(self._directory.name) / "server.log"
        command = [sys.executable, "-m", "meinheld", "app:app", "--bind", "127.0.0.1:0", *flags]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid
        self.address = ("127.0.0.1", self._port())

    def _port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.is_alive():
            found = re.search(r"^  http://.*:(\d+)$", self.log(), re.MULTILINE)
            if found and "stops it" in self.log():
                return int(found[1])
            time.sleep(0.02)
        log = self.log()
        self.kill()
        raise RuntimeError(f"the server did not start:\n{log}")

    def __enter__(self) -> Target:
        """Return the server."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it."""
        self.kill()

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """Its exit status, or None if it does not end in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it, and remove its files."""
        if self.is_alive():
            self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def rss(self) -> int:
        """Resident memory, in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)[1])

    def descriptors(self) -> int:
        """How many it holds open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def connect(self, seconds: float = 10) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(self.address, seconds)

    def ask(self, path: str = "/", seconds: float = 10) -> tuple[int, bytes]:
        """The status and the body of a request on a connection of its own."""
        with self.connect(seconds) as peer:
            peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head, _, body = rest_of(peer).partition(b"\r\n\r\n")
        return int(head[9:12] or 0), body

    def state(self) -> dict[str, int]:
        """What the application knows to be unfinished."""
        return json.loads(self.ask("/state")[1])

    def settle(self, descriptors: int, seconds: float = 10) -> float:
        """Wait until it holds no more descriptors than that; how long this took."""
        begun = time.monotonic()
        while self.descriptors() > descriptors and time.monotonic() < begun + seconds:
            time.sleep(0.02)
        return time.monotonic() - begun


def rest_of(peer: socket.socket) -> bytes:
    """Everything until the end, or a reset."""
    pieces = []
    try:
        while piece := peer.recv(65536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)
