"""What is reused between the requests of a connection never shows: each environ is as on a fresh connection."""

from __future__ import annotations

import json

import pytest
from lab import Lab, running_lab

#: It shows its environ, and then spoils what it can reach of it.
SOURCE = """
import json
def app(environ, start_response):
    shown = {key: value for key, value in environ.items() if type(value) is str}
    for key in list(environ):
        if not key.startswith(("wsgi", "meinheld")) and key != "HTTP_X_APP":
            environ[key] = "spoilt"
    environ["HTTP_NEW"] = "spoilt"
    environ.pop("QUERY_STRING")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]
"""

REQUESTS = [
    ("GET", "/", ""),
    ("GET", "/", ""),
    ("GET", "/", ""),
    ("GET", "/a?b", ""),
    ("GET", "/a?b", "Cookie: one\r\n"),
    ("GET", "/a?b", "Cookie: two\r\n"),
    ("GET", "/a%20b", "Cookie: two\r\n"),
    ("GET", "/a", "Cookie: two\r\n"),
    ("GET", "/a", "cookie: two\r\n"),
    ("GET", "/a", "Cookie: caf\xe9\r\n"),
    ("GET", "/a", "Cookie: caf\xc3\xa9\r\n"),
    ("GET", "/a", "Cookie: one\r\nCookie: two\r\n"),
    ("GET", "/a", "Cookie: one\r\nCookie: two\r\n"),
    ("GET", "/a", "Cookie: one\r\nCookie: three\r\n"),
    ("GET", "/a", "Cookie: one\r\nAccept: two\r\n"),
    ("GET", "/a", "Accept: two\r\nCookie: one\r\n"),
    ("GET", "/a", "Accept: two\r\n"),
    ("GET", "http://other.test/a", "Accept: two\r\n"),
    ("GET", "http://other.test/a", "Accept: two\r\n"),
    ("GET", "/a", "Accept: two\r\n"),
    ("DELETE", "/a", "Accept: two\r\n"),
    ("OPTIONS", "*", "Accept: two\r\n"),
    ("OPTIONS", "*", "Accept: two\r\n"),
    ("GET", "/", ""),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("environ-reuse")) as lab:
        yield lab


def request(name: str, method: str, target: str, headers: str) -> bytes:
    """A request's bytes."""
    text = f"{method} {target} HTTP/1.1\r\nHost: x.test\r\nX-App: {name}\r\n{headers}\r\n"
    return text.encode("latin-1")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_each_environ_is_as_on_a_fresh_connection(lab: Lab, times: int) -> None:
    """In any order of requests that are the same, or nearly."""
    name = lab.define(SOURCE)
    shown, expected = [], []
    with lab.connect() as kept:
        for each in REQUESTS:
            for _ in range(times):
                kept.send(request(name, *each))
                shown.append(json.loads(kept.response().body))
            with lab.connect() as fresh:
                fresh.send(request(name, *each))
                expected += [json.loads(fresh.response().body)] * times
    for environ in (*shown, *expected):
        environ.pop("REMOTE_PORT", None)
    assert shown == expected


def test_a_chunked_body_has_its_own_length(lab: Lab) -> None:
    """The head is the same, and CONTENT_LENGTH is not."""
    name = lab.define(SOURCE)
    head = request(name, "POST", "/", "Transfer-Encoding: chunked\r\n")
    with lab.connect() as wire:
        for body in (b"a", b"bc", b"def", b"def", b""):
            chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            wire.send(head + chunk + b"0\r\n\r\n")
            environ = json.loads(wire.response().body)
            assert environ["CONTENT_LENGTH"] == str(len(body))
