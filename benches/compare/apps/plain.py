"""The application that every server runs: it answers each workload by its path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

HELLO = b"Hello, world!\n"
PLAIN = [("Content-Type", "text/plain")]
SIZED = [*PLAIN, ("Content-Length", str(len(HELLO)))]
LARGE = bytes(range(256)) * 4096
SLOWLY_SECONDS = 0.3
PIECES = 100
PIECE = b"x" * 63 + b"\n"
FILE = os.environ.get("COMPARE_FILE", "")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request; all paths but a few say hello."""
    path = environ["PATH_INFO"]
    if path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
        return [body]
    if path == "/large":
        start_response("200 OK", [*PLAIN, ("Content-Length", str(len(LARGE)))])
        return [LARGE]
    if path == "/slowly":
        start_response("200 OK", PLAIN)
        return slowly()
    if path == "/file":
        return download(environ, start_response)
    if path == "/pieces":
        start_response("200 OK", PLAIN)
        return pieces()
    start_response("200 OK", SIZED)
    return [HELLO]


def pieces() -> Iterator[bytes]:
    """A page that is made piece by piece."""
    for _ in range(PIECES):
        yield PIECE


def slowly() -> Iterator[bytes]:
    """A page whose second half takes a while."""
    yield b"first"
    time.sleep(SLOWLY_SECONDS)
    yield b"second"


def download(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A file, by the server's own means where it has any."""
    file = open(FILE, "rb")  # the server closes it
    headers = [*PLAIN, ("Content-Length", str(os.fstat(file.fileno()).st_size))]
    start_response("200 OK", headers)
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is not None:
        return wrapper(file, 65536)  # type: ignore[no-any-return]
    return iter(lambda: file.read(65536), b"")
