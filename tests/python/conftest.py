"""Fixtures: a server in a process of its own, on a port that it chose itself.

A test gives the source of an application and gets the running server. Whatever a
server leaves behind that it should not, a traceback or a death by a signal, fails
the test that started it.
"""

from __future__ import annotations

import http.client
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from process import Running

# A shell's background job ignores SIGINT, and so would all that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Server(Running):
    """A running ``python -m meinheld``."""

    def __init__(self, directory: Path, arguments: list[str], pass_fds: Sequence[int] = ()) -> None:
        command = [sys.executable, "-m", "meinheld", *arguments]
        super().__init__(command, directory / "server.log", cwd=directory, pass_fds=pass_fds)
        self.directory = directory
        self.expects_traceback = False

    def wait_for_banner(self) -> None:
        """Return when the server listens and can be stopped in an orderly way."""
        self.wait_for("Ctrl-C or SIGTERM stops it")
        self.wait_until(self._handles_sigterm, "handler of SIGTERM")

    def _handles_sigterm(self) -> bool:
        """Whether the process catches SIGTERM, or blocks it to read it from a descriptor."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        masks = re.findall(r"^Sig(?:Cgt|Blk):\s*([0-9a-f]+)$", status, re.MULTILINE)
        return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)

    @property
    def port(self) -> int:
        """The port of the first TCP address in the banner, of whichever host."""
        return int(self.said(r"^  http://.*:(\d+)$")[1])

    def get(self, path: str = "/", seconds: float = 10) -> tuple[int, bytes]:
        """The status and the body of one GET on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def check_end(self) -> None:
        """Stop it if it still runs, and fail on what it should not have done."""
        status = self.stop()
        assert status >= 0 or self.killed, f"the server died of {signal.Signals(-status).name}:\n{self.output()}"
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
