"""A healthy client in a process of its own, which measures how long its answers take.

It asks the server under fire and another one, which nobody else knows, in turn: what
the machine does to one it does to the other, so the two can be compared.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import socket
import time
from dataclasses import dataclass

REQUEST = b"GET / HTTP/1.1\r\nHost: healthy\r\n\r\n"
PAUSE = 0.001

Address = tuple[str, int]


@dataclass
class Latency:
    """Seconds, and how many requests had no answer."""

    p50: float
    p99: float
    count: int
    failures: int

    @classmethod
    def of(cls, samples: list[float], failures: int) -> Latency:
        """Of all samples."""
        ordered = sorted(samples) or [float("inf")]
        at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99)]
        return cls(*at, len(samples), failures)

    def __str__(self) -> str:
        """In milliseconds."""
        return f"p50 {self.p50 * 1e3:.2f} p99 {self.p99 * 1e3:.2f} ms"


class Healthy:
    """One keep-alive connection; it connects again if the server closes it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self.samples: list[float] = []
        self.failures = 0

    def ask(self) -> None:
        """Send one request, and note how long its answer took."""
        begun = time.perf_counter()
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, 5)
            self._socket.sendall(REQUEST)
            answer = self._socket.recv(4096)
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 200 "):
            self.samples.append(time.perf_counter() - begun)
        else:
            self.failures += 1
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Probe:
    """Healthy clients of both servers, at work until they are stopped."""

    def __init__(self, fired: Address, quiet: Address) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        work = (theirs, fired, quiet)
        self._process = multiprocessing.Process(target=measure, args=work, daemon=True)
        self._process.start()

    def stop(self) -> tuple[Latency, Latency]:
        """What was measured: of the server under fire, of the quiet one."""
        self._pipe.send("stop")
        fired, quiet = self._pipe.recv() if self._pipe.poll(30) else (([], 1), ([], 1))
        self._process.join(5)
        return Latency.of(*fired), Latency.of(*quiet)


def measure(
    pipe: multiprocessing.connection.Connection, fired: Address, quiet: Address
) -> None:
    """Ask in turn until told to stop; the probe's process."""
    clients = [Healthy(fired), Healthy(quiet)]
    while not pipe.poll(0):
        for client in clients:
            client.ask()
            time.sleep(PAUSE)
    pipe.send([(client.samples, client.failures) for client in clients])
    for client in clients:
        client.close()
