"""What is reused between the requests of a connection never shows: each environ is as on a fresh connection."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, running_lab

#: It shows its environ, and then spoils what it can reach of it.
SOURCE = """
import json
from pathlib import Path
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

#: It leaves its environ as it is, so that the next request of the connection may have the same one.
LEAVING = """
import json
def app(environ, start_response):
    shown = {key: value for key, value in environ.items() if type(value) is str}
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


@pytest.fixture(scope="module", params=["spoils its environ", "leaves its environ"])
def lab_and_name(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, str]]:
    """A server for each application, and its name there."""
    with running_lab(tmp_path_factory.mktemp("environ-course")) as lab:
        if request.param.startswith("spoils"):
            yield lab, lab.define(SOURCE)
        else:
            # The validator would change the environ.
            yield lab, lab.define(LEAVING, validate=False)


def request(name: str, method: str, target: str, headers: str) -> bytes:
    """A request's bytes."""
    text = f"{method} {target} HTTP/1.1\r\nHost: x.test\r\nX-App: {name}\r\n{headers}\r\n"
    return text.encode("latin-1")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_each_environ_is_as_on_a_fresh_connection(
    lab_and_name: tuple[Lab, str], times: int
) -> None:
    """In any order of requests that are the same, or nearly."""
    lab, name = lab_and_name
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


#: What is drawn from at random: names in several spellings, of which some fall together.
NAMES = ["Cookie", "cookie", "Accept", "X-A", "X-a", "Content-Type", "Content-Length", "Connection", "X_A", "Range"]
CONTENTS = ["", "0", "a", "a b", "keep-alive", "caf\xe9", "x" * 40]
TARGETS = ["/", "/a", "/a?b=c", "/a%2Fb?", "/%c3%a9", "http://other.test/a?b", "/" + "long/" * 9]


def some_changes(chance: random.Random, target: str, headers: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The next request: mostly the last one with other values, as clients send them."""
    headers = list(headers)
    if chance.random() < 0.5:
        target = chance.choice(TARGETS)
    for position, (name, _) in enumerate(headers):
        if chance.random() < 0.3:
            value = "0" if name == "Content-Length" else chance.choice(CONTENTS)
            headers[position] = (name, value)
    if chance.random() < 0.2 and len(headers) < 8:
        name = chance.choice(NAMES)
        if name != "Content-Length" or name not in dict(headers):
            headers.insert(chance.randrange(len(headers) + 1), (name, "0"))
    if chance.random() < 0.1 and headers:
        del headers[chance.randrange(len(headers))]
    return target, headers


@pytest.mark.parametrize("seed", range(4))
def test_any_course_of_requests_has_the_environs_of_fresh_connections(
    lab_and_name: tuple[Lab, str], seed: int
) -> None:
    """Values and targets change, lines come and go."""
    chance = random.Random(seed)
    lab, name = lab_and_name
    target, headers = "/", [("Cookie", "a"), ("Accept", "b")]
    with lab.connect() as kept:
        for _ in range(150):
            target, headers = some_changes(chance, target, headers)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            wire = request(name, "GET", target, lines)
            kept.send(wire)
            shown = json.loads(kept.response().body)
            with lab.connect() as fresh:
                fresh.send(wire)
                expected = json.loads(fresh.response().body)
            assert shown.pop("REMOTE_PORT") and expected.pop("REMOTE_PORT")
            assert shown == expected, wire


#: It tells which of its strings are the very ones of the request before.
SHARING = """
import json
last = {}
def app(environ, start_response):
    names = ["PATH_INFO", "HTTP_HOST", "HTTP_COOKIE", "SERVER_PORT", "REMOTE_PORT"]
    shared = [name for name in names if environ.get(name) is last.get(name)]
    last.update(environ)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([shared, environ["PATH_INFO"], environ["HTTP_COOKIE"]]).encode()]
"""


def test_requests_that_are_alike_share_strings(lab: Lab) -> None:
    """Of whichever connection they are; what differs, by a byte or by its length, is each one's own."""
    name = lab.define(SHARING)

    def ask(path: str, cookie: str) -> list[object]:
        with lab.connect() as client:
            client.send(request(name, "GET", path, f"Cookie: {cookie}\r\n"))
            answer: list[object] = json.loads(client.response().body)
            return answer

    long = "x" * 2000
    ask("/path", "cookie one")
    assert ask("/path", "cookie one") == [["PATH_INFO", "HTTP_HOST", "HTTP_COOKIE", "SERVER_PORT"], "/path", "cookie one"]
    assert ask("/path", "cookie two") == [["PATH_INFO", "HTTP_HOST", "SERVER_PORT"], "/path", "cookie two"]
    assert ask("/paths", "cookie") == [["HTTP_HOST", "SERVER_PORT"], "/paths", "cookie"]
    assert ask("/paths", long) == [["PATH_INFO", "HTTP_HOST", "SERVER_PORT"], "/paths", long]
    assert ask("/paths", long) == [["PATH_INFO", "HTTP_HOST", "SERVER_PORT"], "/paths", long]


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


#: Each has two headers of one key, in spellings that no other test uses: (the lines, the key, the joined value).
REPEATED = [
    ("X-Forwarded-foR: {}\r\nX-Forwarded-foR: {}\r\n", "HTTP_X_FORWARDED_FOR", "{},{}"),
    ("X-Unseen: {}\r\nx-uNSEEN: {}\r\n", "HTTP_X_UNSEEN", "{},{}"),
    ("X-Seen: {}\r\nx-sEEN: {}\r\n", "HTTP_X_SEEN", "{},{}"),
    ("x-sEeN: {}\r\nX-Seen: {}\r\n", "HTTP_X_SEEN", "{},{}"),
    ("cOOkie: {}\r\ncOOkie: {}\r\n", "HTTP_COOKIE", "{}; {}"),
    ("Cookie: {}\r\ncOoKie: {}\r\n", "HTTP_COOKIE", "{}; {}"),
]

#: The first header's value and the second's, request by request.
VALUES = [("1", "2"), ("1", "2"), ("1", "2"), ("3", "2"), ("4", "5")]


def test_repeated_headers_are_joined_when_no_more_names_are_kept(tmp_path: Path) -> None:
    """A client that sent very many header names changes nothing for the others."""
    with running_lab(tmp_path) as lab:
        name = lab.define(SOURCE)
        with lab.connect() as flood:
            flood.send(request(name, "GET", "/", "X-Seen: 1\r\nCookie: 1\r\n"))
            flood.response()
            for i in range(14):
                names = "".join(f"N{i}-{j}: 1\r\n" for j in range(50))
                flood.send(request(name, "GET", "/", names))
                assert json.loads(flood.response().body)[f"HTTP_N{i}_49"] == "1"
        for lines, key, joined in REPEATED:
            with lab.connect() as wire:
                shown = []
                for values in VALUES:
                    wire.send(request(name, "GET", "/", lines.format(*values)))
                    shown.append(json.loads(wire.response().body)[key])
            assert shown == [joined.format(*values) for values in VALUES], lines
