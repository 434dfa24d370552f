"""A program under test, in a process of its own. Owns starting it, what it says, and its end."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wire import wait_until

PATIENCE_SECONDS = 20
#: TCP_LISTEN, as /proc/net/tcp writes it.
LISTENING = "0A"


class Running:
    """A process whose output, stdout and stderr together, goes to a file, so that it never blocks on a pipe."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = log
        #: Whether it was ended by SIGKILL, which it could not mind.
        self.killed = False
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )
        self.pid = self.process.pid

    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Return as soon as the condition holds; fail if the process ends without it."""

        def holds() -> bool:
            ended = self.process.poll() is not None
            if condition():
                return True
            assert not ended, f"it ended without {what}:\n{self.output()}"
            return False

        wait_until(holds, lambda: f"{what}:\n{self.output()}", seconds)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Return as soon as the output has the text, so often."""
        self.wait_until(lambda: self.output().count(text) >= count, repr(text))

    def said(self, pattern: str) -> re.Match[str]:
        """What the pattern matches first in the output, once it does."""
        self.wait_until(lambda: re.search(pattern, self.output(), re.MULTILINE) is not None, pattern)
        found = re.search(pattern, self.output(), re.MULTILINE)
        assert found is not None
        return found

    @property
    def port(self) -> int:
        """The port of the first URL of 127.0.0.1 that it has told of, once it has."""
        return int(self.said(r"http://127\.0\.0\.1:(\d+)")[1])

    def send_signal(self, number: signal.Signals) -> None:
        """Send the signal, and wait for nothing."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        """Send the signal unless it has ended, wait for the end, and return the exit status."""
        if self.process.poll() is None:
            self.killed = number == signal.SIGKILL
            self.send_signal(number)
        return self.wait_for_end(seconds)

    def wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until it has ended, for whatever reason, and return the exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.killed = True
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end within {seconds} s:\n{self.output()}") from None

    def descriptors(self) -> int:
        """How many descriptors it holds."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def sockets(self) -> set[str]:
        """The inodes of its sockets."""
        links = []
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            # It may be closed between its listing and this.
            with suppress(FileNotFoundError):
                links.append(str(fd.readlink()))
        return {link[8:-1] for link in links if link.startswith("socket:[")}

    def children(self) -> list[int]:
        """The processes that it has started, and that go on."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


def listening_port(running: Running) -> int:
    """The port that a process listens on without saying so, once it does."""
    ports: list[int] = []

    def listens() -> bool:
        sockets = running.sockets()
        for line in Path(f"/proc/{running.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in sockets:
                ports.append(int(fields[1].partition(":")[2], 16))
        return bool(ports)

    running.wait_until(listens, "a socket that listens")
    return ports[0]
