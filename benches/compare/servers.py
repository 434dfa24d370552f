"""The servers under comparison: how each is started, and what it costs while it runs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

APPS = Path(__file__).resolve().parent / "apps"
START_SECONDS = 20
STOP_SECONDS = 5


@dataclass(frozen=True)
class Kind:
    """A server that can be started."""

    name: str
    command: tuple[str, ...]
    package: str = ""
    # By what a request can wait: see apps/parking.py.
    parking: str | None = None
    # The interpreter that it is installed for.
    python: str = sys.executable
    # Whether it closes each connection without a word, so that none can be used again.
    closes: bool = False
    # What a reader should know of its figures.
    remark: str = ""

    @functools.cache  # there are few kinds, and they live as long as the program
    def version(self) -> str | None:
        """The installed version, or None; empty for what is none of anybody's."""
        if self is SENDS:
            return ""
        program = f"from importlib.metadata import version; print(version({(self.package or self.name)!r}))"
        try:
            told = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return told.stdout.strip()


def own(name: str, parking: str | None = None) -> Kind:
    """A server that is started from a program."""
    return Kind(name, ("{python}", "run.py", name, "{port}", "{module}"), parking=parking)


def tool(name: str) -> str:
    """A command beside the interpreter."""
    return str(Path(sys.executable).parent / name)


GRANIAN = (
    tool("granian"),
    *("--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}"),
    *("--no-ws", "--no-log", "--backlog", "20000", "--backpressure", "20000"),
)
UWSGI = (
    tool("uwsgi"),
    *("--http-socket", "127.0.0.1:{port}", "--module", "{module}:app"),
    *("--disable-logging", "--die-on-term", "--listen", "4096"),
)
GUNICORN = (
    tool("gunicorn"),
    *("--bind", "127.0.0.1:{port}", "--workers", "1", "--keep-alive", "75", "--log-level", "error"),
    *("--backlog", "20000", "--worker-connections", "20000", "{module}:app"),
)

OLD = "meinheld 1.0.2"

# No server: it holds requests, and sends each its answer, made before, so that this is what is left when
# there is nothing but the system calls.
SENDS = Kind(
    "sends alone",
    ("{python}", "sends.py", "{port}"),
    parking="sends",
    remark='"sends alone" is no server: all it does is to send answers that were made before',
)

KINDS = [
    own("meinheld", "meinheld"),
    Kind(
        OLD,
        ("{python}", "run.py", "meinheld", "{port}", "{module}"),
        package="meinheld",
        parking="meinheld",
        python=f"{sys.prefix}-old/bin/python",
        remark=f"{OLD} runs on CPython 3.9, the last that it was made for",
    ),
    own("bjoern"),
    own("fastwsgi"),
    own("freastal"),
    Kind("granian", (*GRANIAN, "--blocking-threads", "{threads}", "{module}:app"), parking="threads"),
    Kind(
        "gunicorn+gevent",
        (*GUNICORN, "--worker-class", "gevent"),
        package="gunicorn",
        parking="gevent",
    ),
    own("gevent", "gevent"),
    own("eventlet", "eventlet"),
    own("waitress"),
    Kind(
        "uwsgi",
        UWSGI,
        closes=True,
        remark="uwsgi has a connection for each request: kept alive, one would hold up the others",
    ),
    Kind(
        "uwsgi+gevent",
        (*UWSGI, "--gevent", "20000"),
        package="uwsgi",
        parking="gevent",
        closes=True,
    ),
    SENDS,
]


class Failed(Exception):
    """A server did not do what was asked of it; the message is a line."""


class Running:
    """A server that runs; as a context manager it ends with the block."""

    def __init__(
        self, kind: Kind, module: str, cpu: int, *, threads: int = 1, logged: bool = False
    ) -> None:
        """Start it on one processor, and wait until it answers."""
        self.kind = kind
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="compare-")
        self.log = Path(self._directory.name) / "log"
        words = {"python": kind.python, "port": self.port, "module": module, "threads": threads}
        command = [word.format(**words) for word in kind.command]
        environment = {**os.environ, "PYTHONPATH": str(APPS)}
        environment["COMPARE_PARKING"] = kind.parking or "threads"
        if logged:
            environment["COMPARE_ACCESS_LOG"] = str(Path(self._directory.name) / "access.log")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command],
                cwd=APPS,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, Failed):
                self.ask("/", 2)
                return
            time.sleep(0.05)
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line[2:]]
        raise Failed(f"{self.kind.name} did not start: {(lines or ['it said nothing'])[-1][:200]}")

    def __enter__(self) -> Running:
        """Return the server."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it."""
        self.stop()

    def ask(self, path: str, seconds: float = 10) -> bytes:
        """The body of a request on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as peer:
            peer.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            pieces = []
            while piece := peer.recv(65536):
                pieces.append(piece)
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise Failed(f"{self.kind.name} answered {head[:40]!r} to {path}")
        return body

    def pids(self) -> list[int]:
        """Its processes: all of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.getsid(int(entry.name)) == self._process.pid:
                        found.append(int(entry.name))
        return found

    def rss(self) -> int:
        """Resident memory of all its processes, in KiB."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError, IndexError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE") // 1024
        return total

    def cpu_seconds(self) -> float:
        """Processor time of its threads so far, in user mode and in the kernel, to the nanosecond."""
        nanoseconds = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError, IndexError):
                    nanoseconds += int(task.read_text().split()[0])
        return nanoseconds / 1e9

    def streams(self) -> bool:
        """Whether the first piece of a body is sent before the last one is made."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as peer:
            peer.sendall(b"GET /slowly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            while b"first" not in received:
                if not (piece := peer.recv(65536)):
                    return False
                received += piece
            return b"second" not in received

    def stop(self) -> None:
        """End all of its processes."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._directory.cleanup()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
