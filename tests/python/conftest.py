"""Fixtures: a server in a process of its own, on a port that it chose itself.

A test gives the source of an application and gets the running server. Whatever a
server leaves behind that it should not, a traceback or a death by a signal, fails
the test that started it.
"""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

START_SECONDS = 20
STOP_SECONDS = 15


class Server:
    """A running ``python -m meinheld``; its output goes to a file, so it never blocks on a pipe."""

    def __init__(self, directory: Path, arguments: list[str], pass_fds: Sequence[int] = ()) -> None:
        self.expects_traceback = False
        self._expected_signal = 0
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "meinheld", *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )
        self.pid = self._process.pid

    def wait_for_banner(self) -> None:
        """Return when the server listens and can be stopped in an orderly way."""
        self.wait_for("Ctrl-C or SIGTERM stops it", START_SECONDS)
        self._wait_until(self._handles_sigterm, "handler of SIGTERM", START_SECONDS)

    def wait_for(self, text: str, seconds: float = 10) -> None:
        """Return as soon as the output has the text."""
        self._wait_until(lambda: text in self.output(), repr(text), seconds)

    def _wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None and not condition():
                raise AssertionError(f"the server ended without {what}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {seconds} s:\n{self.output()}")
            time.sleep(0.01)

    def _handles_sigterm(self) -> bool:
        """Whether the process catches SIGTERM, or blocks it to read it from a descriptor."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        masks = re.findall(r"^Sig(?:Cgt|Blk):\s*([0-9a-f]+)$", status, re.MULTILINE)
        return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)

    @property
    def port(self) -> int:
        """The port of the first TCP address in the banner."""
        found = re.search(r"^  http://.*:(\d+)$", self.output(), re.MULTILINE)
        assert found is not None, self.output()
        return int(found[1])

    def output(self) -> str:
        """What the server has written so far, stdout and stderr together."""
        return self._log.read_text(errors="replace")

    def get(self, path: str = "/", seconds: float = 10) -> tuple[int, bytes]:
        """The status and the body of one GET on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the signal, and wait for nothing."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Send the signal, wait for the end, and return the exit status."""
        if self._process.poll() is None:
            self._expected_signal = number if number == signal.SIGKILL else 0
            self.send_signal(number)
        return self.wait_for_end(seconds)

    def wait_for_end(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it has ended, for whatever reason, and return the exit status."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._expected_signal = signal.SIGKILL
            raise AssertionError(f"the server did not end within {seconds} s:\n{self.output()}") from None

    def check_end(self) -> None:
        """Stop it if it still runs, and fail on what it should not have done."""
        status = self.stop()
        assert status >= 0 or -status == self._expected_signal, (
            f"the server died of {signal.Signals(-status).name}:\n{self.output()}"
        )
        assert self.expects_traceback or "Traceback" not in self.output(), self.output()
        # The validator's word for an iterable of which close() was not called.
        assert "without being closed" not in self.output(), self.output()


#: Appended to the source of an application: wsgiref's validator stands between it and the server, so
#: that each breach of PEP 3333, by either, is an AssertionError and a 500.
VALIDATED = """

from wsgiref.validate import validator as _validator
app = _validator(app)
"""


def flags(options: dict[str, object]) -> list[str]:
    """``keep_alive=2`` is ``--keep-alive 2``, True the flag alone, a list the flag repeated."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list) else [value]:
            words += [flag] if one is True else [flag, str(one)]
    return words


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers: ``serve(source, keep_alive=2)`` runs ``app`` of the source on a free port.

    ``app`` names another application, ``pass_fds`` what the process inherits; all
    other options are flags of the command. The application runs below wsgiref's
    validator unless ``validate`` is false, which wants a reason beside it.
    """
    servers: list[Server] = []

    def start(
        app_source: str,
        app: str = "app:app",
        pass_fds: Sequence[int] = (),
        validate: bool = True,
        **options: object,
    ) -> Server:
        directory = tmp_path / f"server{len(servers)}"
        directory.mkdir()
        validated = VALIDATED if validate and app == "app:app" else ""
        (directory / "app.py").write_text(textwrap.dedent(app_source) + validated)
        options.setdefault("bind", "127.0.0.1:0")
        server = Server(directory, [app, *flags(options)], pass_fds)
        servers.append(server)
        server.wait_for_banner()
        return server

    yield start
    failures = []
    for server in servers:
        try:
            server.check_end()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)
