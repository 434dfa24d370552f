"""An application for the tests of logs, requests for it, and the lines of the access log that they make."""

from __future__ import annotations

from program import PANIC

TIME = r"\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"

APP = (
    PANIC
    + """
import os, sys

parked = []

def app(environ, start_response):
    what = environ["PATH_INFO"]
    answer = b"hello"
    if what == "/fail":
        raise RuntimeError("the reason")
    if what == "/panic":
        raise Panic("it")
    if what == "/other":
        raise server.ClientDisconnected("of another")
    if what == "/cut":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()
    if what == "/environ":
        environ.clear()
    if what == "/timeout":
        return environ["meinheld.client"].continuation().suspend(0.01)
    if what == "/park":
        parked.append(1)
        environ["meinheld.client"].continuation().suspend(10)
    if what == "/parked":
        answer = str(len(parked)).encode()
    if what == "/fork" and (child := os.fork()):
        os.waitpid(child, 0)
    start_response("404 Not Found" if what == "/missing" else "200 OK", [("Content-Type", "text/plain")])
    return [answer]

def pieces():
    yield b"some"
    raise RuntimeError("midway")
"""
)


def get(target: str = "/", headers: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    """A request."""
    return f"{method} {target} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode("latin-1")


#: A request, and its line with * for the time.
LINES = [
    (get(), '"GET / HTTP/1.1" 200 5 "-" "-"'),
    (get(version="1.0"), '"GET / HTTP/1.0" 200 5 "-" "-"'),
    (get("/a%20b?c=d"), '"GET /a%20b?c=d HTTP/1.1" 200 5 "-" "-"'),
    (get("http://x/abs"), '"GET http://x/abs HTTP/1.1" 200 5 "-" "-"'),
    (get(method="HEAD"), '"HEAD / HTTP/1.1" 200 0 "-" "-"'),
    (get("/missing"), '"GET /missing HTTP/1.1" 404 5 "-" "-"'),
    (get("/fail"), '"GET /fail HTTP/1.1" 500 26 "-" "-"'),
    (get("/cut"), '"GET /cut HTTP/1.1" 200 4 "-" "-"'),
    (get("/environ"), '"GET /environ HTTP/1.1" 200 5 "-" "-"'),
    (get("/timeout"), '"GET /timeout HTTP/1.1" 500 26 "-" "-"'),
    (get(headers="Referer: http://r/\r\nUser-Agent: Agent/1 (x; y)\r\n"), '"GET / HTTP/1.1" 200 5 "http://r/" "Agent/1 (x; y)"'),
    (get(headers='User-Agent: a"b\\c\r\n'), '"GET / HTTP/1.1" 200 5 "-" "a\\"b\\\\c"'),
    (get(headers="User-Agent: a\tb\xe4\r\n"), '"GET / HTTP/1.1" 200 5 "-" "a\\x09b\\xe4"'),
    (get(headers="User-Agent: %s %d %(x)s {}\r\n"), '"GET / HTTP/1.1" 200 5 "-" "%s %d %(x)s {}"'),
    (get(headers="User-Agent:\r\n"), '"GET / HTTP/1.1" 200 5 "-" ""'),
]
