"""A plain HTTP client on a socket. Owns sending, reading and ending a connection, each within a deadline."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

SECONDS = 10.0


@dataclass
class Response:
    """What came back: `complete` says whether the framing of the body came to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def target(path: str, **query: object) -> str:
    words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    return f"{path}?{words}" if words else path


class Client:
    """One connection. Every read has a deadline; a read that misses it fails the test."""

    def __init__(self, port: int, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._read = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def __del__(self) -> None:
        # A test that fails leaves it open.
        if hasattr(self, "socket"):
            self.socket.close()

    def send(self, path: str, **query: object) -> Client:
        """Send a GET."""
        return self.send_bytes(f"GET {target(path, **query)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def send_bytes(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def get(self, path: str, **query: object) -> Response:
        return self.send(path, **query).response()

    def response(self, seconds: float | None = None) -> Response:
        """The next response, whole."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        head = self._until(b"\r\n\r\n", deadline).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body, complete = self._body(headers, deadline)
        return Response(int(first.split()[1]), headers, body, complete)

    def head(self, seconds: float | None = None) -> bytes:
        """The next head alone."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        return self._until(b"\r\n\r\n", deadline)

    def until(self, mark: bytes) -> bytes:
        """What comes up to the mark, and the mark."""
        return self._until(mark, time.monotonic() + self.seconds)

    def end(self, seconds: float | None = None) -> bytes:
        """All that still comes until the server closes; a reset counts as that."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while self._more(deadline):
            pass
        rest, self._read = self._read, b""
        return rest

    def finish(self) -> None:
        """Go with a FIN."""
        self.socket.close()

    def reset(self) -> None:
        """Go with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _body(self, headers: dict[str, str], deadline: float) -> tuple[bytes, bool]:
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks(deadline)
        if "content-length" in headers:
            length = int(headers["content-length"])
            while len(self._read) < length:
                if not self._more(deadline):
                    return self._read, False
            body, self._read = self._read[:length], self._read[length:]
            return body, True
        return self.end(deadline - time.monotonic()), True

    def _chunks(self, deadline: float) -> tuple[bytes, bool]:
        body = b""
        while True:
            try:
                size = int(self._until(b"\r\n", deadline), 16)
                piece = self._until(b"\r\n", deadline, at_least=size)[:size]
            except EOFError:
                return body, False
            if size == 0:
                return body, True
            body += piece

    def _until(self, mark: bytes, deadline: float, at_least: int = 0) -> bytes:
        while (at := self._read.find(mark, at_least)) < 0:
            if not self._more(deadline):
                raise EOFError(f"the server closed after {self._read!r}")
        at += len(mark)
        piece, self._read = self._read[:at], self._read[at:]
        return piece

    def _more(self, deadline: float) -> bool:
        self.socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = self.socket.recv(65536)
        except TimeoutError:
            raise AssertionError(f"nothing more in time after {self._read!r}") from None
        except ConnectionResetError:
            return False
        self._read += piece
        return bool(piece)


def get(port: int, path: str, **query: object) -> Response:
    """One GET on a connection of its own."""
    with Client(port) as client:
        return client.get(path, **query)


def wait_until(
    condition: Callable[[], bool], what: str | Callable[[], str] = "it", seconds: float = SECONDS
) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)
