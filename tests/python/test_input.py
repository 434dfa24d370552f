"""``wsgi.input``: every way to read it, and every way in which a client fails to send it."""

from __future__ import annotations

import hashlib
import json
import socket

import pytest
from lab import Lab, running_lab

LINES = b"one\ntwo\n\nfour without end"

#: What the application does to its input as PEP 3333 has it, and what that gives for LINES.
READS = {
    "stream.read(-1)": LINES,
    "stream.read(3)": b"one",
    "stream.read(0)": b"",
    "stream.read(10**12)": LINES,
    "stream.readline()": b"one\n",
    "stream.readline(2)": b"on",
    "stream.readline(4)": b"one\n",
    "stream.readline(5)": b"one\n",
    "stream.readline(0)": b"",
    "stream.readline(-1)": b"one\n",
    "[stream.readline(2), stream.readline(), stream.readline()]": [b"on", b"e\n", b"two\n"],
    "stream.readlines()": [b"one\n", b"two\n", b"\n", b"four without end"],
    "stream.readlines(0)": [b"one\n", b"two\n", b"\n", b"four without end"],
    "stream.readlines(None)": [b"one\n", b"two\n", b"\n", b"four without end"],
    "stream.readlines(-1)": [b"one\n", b"two\n", b"\n", b"four without end"],
    "stream.readlines(1)": [b"one\n"],
    "stream.readlines(4)": [b"one\n"],
    "stream.readlines(5)": [b"one\n", b"two\n"],
    "list(stream)": [b"one\n", b"two\n", b"\n", b"four without end"],
    "stream.read(1)": b"o",
    "[stream.read(2), stream.read(0), stream.read(-1), stream.read(5), stream.readline()]": [
        b"on",
        b"",
        LINES[2:],
        b"",
        b"",
    ],
    "b''.join(iter(lambda: stream.read(7), b''))": LINES,
}

#: The same for what files can do beyond that, of which the validator would complain.
MORE_READS = {
    "stream.read()": LINES,
    "stream.read(None)": LINES,
    "[stream.read(), stream.read(), stream.read(5), stream.readline()]": [LINES, b"", b"", b""],
    "[stream.read(2), stream.read(0), stream.read()]": [b"on", b"", LINES[2:]],
    "[stream.readinto(b := bytearray(5)), bytes(b)]": [5, b"one\nt"],
    "[stream.readinto(b := bytearray(40)), bytes(b)]": [len(LINES), LINES.ljust(40, b"\0")],
    "[stream.readinto(bytearray()), stream.read(3)]": [0, b"one"],
    "[stream.readinto(memoryview(b := bytearray(4))[1:3]), bytes(b), stream.read(1)]": [2, b"\0on\0", b"e"],
    "[refused(TypeError, stream.readinto, b'abc'), stream.read(3)]": ["refused", b"one"],
    "[refused(TypeError, stream.read, 'x'), stream.read(3)]": ["refused", b"one"],
    "[refused(TypeError, stream.read, 1.5), stream.read(3)]": ["refused", b"one"],
    "[next(stream), stream.read(2), stream.readline(), stream.readlines()]": [
        b"one\n",
        b"tw",
        b"o\n",
        [b"\n", b"four without end"],
    ],
    "stream.readable()": True,
}

READER = """
import json

def refused(kind, call, *arguments):
    try:
        call(*arguments)
    except kind:
        return "refused"

def shown(value):
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    return [shown(item) for item in value] if isinstance(value, list) else value

def app(environ, start_response):
    stream = environ["wsgi.input"]
    result = eval(environ["HTTP_X_READ"], {**globals(), "stream": stream})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps(shown(result)).encode()]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("input")) as lab:
        yield lab


@pytest.fixture(scope="module")
def reader(lab: Lab) -> str:
    """The application that evaluates X-Read."""
    return lab.define(READER)


def shown(value: object) -> object:
    """A value as the reader sends it."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    return [shown(item) for item in value] if isinstance(value, list) else value


def chunked(data: bytes, size: int) -> bytes:
    """A body in chunks, with an extension here and a trailer at the end."""
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize("read", READS | MORE_READS)
def test_reading(lab: Lab, reader: str, read: str) -> None:
    """The same result for a body that came with its head, in pieces, and in chunks."""
    expected = shown((READS | MORE_READS)[read])
    reader = reader if read in READS else lab.define(READER, validate=False)
    headers = f"X-Read: {read}\r\n"
    whole = lab.ask_again(reader, method="POST", headers=headers, body=LINES)
    assert json.loads(whole.body) == expected
    with lab.connect() as wire:
        head, _, body = lab.request(reader, method="POST", headers=headers, body=LINES).partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n" + body[:5])
        wire.send(body[5:])
        assert json.loads(wire.response().body) == expected
        coded = headers + "Transfer-Encoding: chunked\r\n"
        wire.send(lab.request(reader, method="POST", headers=coded) + chunked(LINES, 3))
        assert json.loads(wire.response().body) == expected


@pytest.mark.parametrize("read", ["stream.read(-1)", "stream.readlines()", "list(stream)", "stream.read(9)"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_request_without_a_body(lab: Lab, reader: str, read: str, method: str) -> None:
    """Its input is at its end from the first."""
    response = lab.ask_again(reader, method=method, headers=f"X-Read: {read}\r\n")
    empty = shown([]) if "list" in read or "lines" in read else shown(b"")
    assert json.loads(response.body) == empty


def test_lines_of_a_large_body_are_found_across_reads(lab: Lab) -> None:
    """Short lines, lines longer than a read, and a last one without an end."""
    source = """
    import hashlib
    def app(environ, start_response):
        stream, digest, lines = environ["wsgi.input"], hashlib.sha256(), 0
        while line := stream.readline():
            digest.update(line)
            lines += 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{lines} {digest.hexdigest()}".encode()]
    """
    body = b"short\n" * 300_000 + b"x" * 500_000 + b"\n" + b"y" * 100
    response = lab.ask(source, method="POST", body=body)
    assert response.body.decode() == f"300002 {hashlib.sha256(body).hexdigest()}"


STREAMING = """
def app(environ, start_response):
    stream = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/quick":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"quick"]
    events.append(stream.read(10).decode())
    try:
        rest = stream.read(-1)
        events.append(len(rest))
    except BaseException as error:
        events.append([type(error).__name__, isinstance(error, OSError), isinstance(error, TimeoutError)])
        try:
            stream.read(-1)
        except OSError as error:
            events.append("again " + type(error).__name__)
        raise
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def test_large_body_streams_while_others_are_served(lab: Lab) -> None:
    """The application reads what has come, waits for the rest, and holds nobody up."""
    name = lab.define(STREAMING)
    total = 300_000
    with lab.connect() as wire:
        headers = f"Content-Length: {total}\r\n"
        wire.send(lab.request(name, method="POST", headers=headers) + b"0123456789")
        assert lab.wait_for_event(name, "0123456789") == ["0123456789"]
        for sent in range(5):
            wire.send(b"x" * 1000)
            assert lab.ask_again(name, target="/quick").body == b"quick", sent
        wire.send(b"x" * (total - 5010))
        assert wire.response().body == b"ok"
    assert lab.events(name) == ["0123456789", total - 10]


def test_client_that_goes_midway_is_an_oserror(lab: Lab) -> None:
    """It never looks like a shorter body, and is nobody's error in the log."""
    name = lab.define(STREAMING)
    with lab.connect() as wire:
        wire.send(lab.request(name, method="POST", headers="Content-Length: 300000\r\n") + b"0123456789")
        lab.wait_for_event(name, "0123456789")
    events = lab.wait_for_event(name, "again ClientDisconnected")
    assert events == ["0123456789", ["ClientDisconnected", True, False], "again ClientDisconnected"]
    assert "Traceback" not in lab.log()


def test_cut_small_or_chunked_body_never_reaches_the_application(lab: Lab) -> None:
    """What is collected first is complete, or nothing."""
    name = lab.define(STREAMING)
    chunked_head = lab.request(name, method="POST", headers="Transfer-Encoding: chunked\r\n")
    length_head = lab.request(name, method="POST", headers="Content-Length: 50\r\n")
    for request in [chunked_head + b"a\r\n0123456789\r\n", length_head + b"0123456789"]:
        with lab.connect() as wire:
            wire.send(request)
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.rest().count(b"HTTP/1.1 2") == 0
    assert lab.events(name) == []


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nhelloXX", b"-1\r\n", b"5 \r\nhello\r\n"])
def test_malformed_chunks_are_refused(lab: Lab, bad: bytes) -> None:
    """With 400, before the application."""
    name = lab.define(STREAMING)
    with lab.connect() as wire:
        wire.send(lab.request(name, method="POST", headers="Transfer-Encoding: chunked\r\n") + bad)
        assert wire.response().status == 400
    assert lab.events(name) == []


def test_chunked_body_has_a_length(lab: Lab) -> None:
    """Frameworks need CONTENT_LENGTH, and the coding is gone."""
    source = """
    import json
    def app(environ, start_response):
        body = environ["wsgi.input"].read(-1)
        facts = [environ["CONTENT_LENGTH"], "HTTP_TRANSFER_ENCODING" in environ, len(body), body == b"x" * len(body)]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [json.dumps([*facts, environ["wsgi.input_terminated"]]).encode()]
    """
    name = lab.define(source)
    for size in [0, 1, 70_000, 1_500_000]:
        with lab.connect() as wire:
            wire.send(lab.request(name, method="POST", headers="Transfer-Encoding: chunked\r\n"))
            wire.send(chunked(b"x" * size, 50_000))
            assert json.loads(wire.response().body) == [str(size), False, size, True, True]


def test_unread_small_body_keeps_the_connection(lab: Lab) -> None:
    """The next request on it is not what was left of the body."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        for size in [100, 65_536]:
            body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".ljust(size, b"x")
            wire.send(lab.request(name, target="/first", method="POST", body=body))
            assert wire.response().body == b"/first"
            wire.send(lab.request(name, target="/second"))
            assert wire.response().body == b"/second"


def test_unread_large_body_closes_the_connection(lab: Lab) -> None:
    """The response arrives whole in spite of what the client still sends."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"enough"]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        wire.send(lab.request(name, method="POST", headers="Content-Length: 9000000\r\n") + b"x" * 100_000)
        response = wire.response()
        assert (response.body, response["Connection"]) == (b"enough", "close")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.closed()


@pytest.mark.parametrize("size", [10, 300_000])
def test_expect_100_continue_asks_at_the_first_read(lab: Lab, size: int) -> None:
    """Once, and not before the application wants the body."""
    source = """
    def app(environ, start_response):
        events.append("called")
        if environ["PATH_INFO"] == "/refuse":
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"keep it"]
        body = environ["wsgi.input"].read(5) + environ["wsgi.input"].read(-1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(body)).encode()]
    """
    name = lab.define(source)
    headers = f"Content-Length: {size}\r\nExpect: 100-continue\r\n"
    with lab.connect() as wire:
        wire.send(lab.request(name, method="POST", headers=headers))
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"x" * size)
        response = wire.response()
        assert (response.interim, response.body) == ([], str(size).encode())
    with lab.connect() as wire:
        wire.send(lab.request(name, target="/refuse", method="POST", headers=headers))
        response = wire.response()
        assert (response.interim, response.status, response["Connection"]) == ([], 403, "close")


def test_expect_100_continue_with_chunks(lab: Lab, reader: str) -> None:
    """Collected bodies are asked for by the server."""
    headers = "X-Read: stream.read(-1)\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
    with lab.connect() as wire:
        wire.send(lab.request(reader, method="POST", headers=headers))
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(chunked(b"hello", 2))
        assert json.loads(wire.response().body) == shown(b"hello")


def test_body_over_the_limit_is_413(tmp_path) -> None:
    """By its Content-Length, and by its chunks."""
    with running_lab(tmp_path, client_max_body=5000) as lab:
        name = lab.define(STREAMING)
        with lab.connect() as wire:
            wire.send(lab.request(name, method="POST", headers="Content-Length: 5001\r\n"))
            assert wire.response().status == 413
        with lab.connect() as wire:
            wire.send(lab.request(name, method="POST", headers="Transfer-Encoding: chunked\r\n"))
            wire.send(chunked(b"x" * 5001, 1000))
            assert wire.response().status == 413
        assert lab.events(name) == []


def test_second_reader_of_a_parked_input_is_refused(lab: Lab) -> None:
    """Another request that got hold of it gets an error, and the first one all of its body."""
    source = """
    shared = []
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/second":
            try:
                shared[0].read(1)
                answer = b"read"
            except RuntimeError as error:
                answer = str(error).encode()
        else:
            shared.append(environ["wsgi.input"])
            events.append("reading")
            answer = str(len(environ["wsgi.input"].read(-1))).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        wire.send(lab.request(name, method="POST", headers="Content-Length: 100000\r\n") + b"x" * 10)
        lab.wait_for_event(name, "reading")
        assert b"another coroutine is waiting" in lab.ask_again(name, target="/second").body
        wire.send(b"x" * 99_990)
        assert wire.response().body == b"100000"
