"""The application whose requests are counted; run by the counter, under valgrind."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

CONTINUATION_KEY = "meinheld.continuation"

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


def serve_meinheld(application: Callable[..., Iterable[bytes]], log: str) -> None:
    from meinheld import server
    from meinheld.middleware import SpawnMiddleware

    if log != "off":
        access = logging.getLogger("meinheld.access")
        access.setLevel(logging.INFO)
        access.propagate = False
        access.addHandler(logging.FileHandler(log))
    server.listen(("127.0.0.1", 0))
    print(server.addresses()[0][1], flush=True)
    server.run(SpawnMiddleware(application))


def serve_other(name: str, application: Callable[..., Iterable[bytes]]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = importlib.import_module(name)
    print(port, flush=True)
    if name == "bjoern":
        server.run(application, "127.0.0.1", port)
    elif name == "fastwsgi":
        server.run(wsgi_app=application, host="127.0.0.1", port=port)
    elif name == "freastal":
        server.serve(application, host="127.0.0.1", port=port)


if __name__ == "__main__":
    server, choice, log = sys.argv[1:]
    application = hello if choice == "hello" else routed
    if server == "meinheld":
        serve_meinheld(application, log)
    else:
        serve_other(server, application)
