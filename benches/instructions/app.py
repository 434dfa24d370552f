"""The application whose requests are counted; run by the counter, under valgrind."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meinheld import server
from meinheld.middleware import CONTINUATION_KEY, SpawnMiddleware

Environ = dict[str, Any]

MEGABYTE = bytes(1 << 20)

waiting: list[Any] = []
big_file = tempfile.NamedTemporaryFile()
big_file.truncate(10 << 20)


def hello(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def echo(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]


def large(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [MEGABYTE]


def from_file(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(big_file.name, "rb"))
    return wrapped


def chunks(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])

    def generate() -> Iterator[bytes]:
        for _ in range(100):
            yield b"a small chunk of text\n"

    return generate()


def wait(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    c = environ[CONTINUATION_KEY]
    waiting.append(c)
    return hello(environ, start_response) if c.suspend() is None else []


def wake(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    while waiting:
        waiting.pop().resume(None)
    return hello(environ, start_response)


def hold(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ[CONTINUATION_KEY].suspend()
    return hello(environ, start_response)


ROUTES: dict[str, Callable[..., Iterable[bytes]]] = {
    "/echo": echo,
    "/large": large,
    "/file": from_file,
    "/chunks": chunks,
    "/wait": wait,
    "/wake": wake,
    "/hold": hold,
}


def routed(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


if __name__ == "__main__":
    choice, log = sys.argv[1:]
    if log != "off":
        access = logging.getLogger("meinheld.access")
        access.setLevel(logging.INFO)
        access.propagate = False
        access.addHandler(logging.FileHandler(log))
    server.listen(("127.0.0.1", 0))
    print(server.addresses()[0][1], flush=True)
    server.run(SpawnMiddleware(hello if choice == "hello" else routed))
