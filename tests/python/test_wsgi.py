"""PEP 3333 to the letter: how an application begins, sends and ends a response.

Applications that obey it run below wsgiref's validator. Those that do not get an error
that names the mistake in the log, and their client a 500 or a connection that ends.
"""

from __future__ import annotations

import json

import pytest
from lab import Lab, running_lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("wsgi")) as lab:
        yield lab


PLAIN = '[("Content-Type", "text/plain")]'


def plain(body: str, before: str = "") -> str:
    """The source of an application that returns an expression."""
    return f"def app(environ, start_response):\n {before}\n start_response('200 OK', {PLAIN})\n return {body}"


# Bodies and their framing.


def test_validated_application_of_every_shape(lab: Lab) -> None:
    """The validator finds nothing to complain of, whatever shape the body has."""
    shapes = {
        "[b'one']": b"one",
        "[b'one', b'two']": b"onetwo",
        "[]": b"",
        "(b'a' for _ in range(3))": b"aaa",
        "iter([b'', b'x', b'', b'y', b''])": b"xy",
    }
    for shape, body in shapes.items():
        response = lab.ask(plain(shape))
        assert (response.status, response.body, response.complete) == (200, body, True), shape
        assert "Assert" not in lab.log(), shape


def test_validated_post_reads_its_body(lab: Lab) -> None:
    """The input is a file as the validator wants it."""
    source = """
    def app(environ, start_response):
        stream = environ["wsgi.input"]
        body = stream.read(2) + stream.readline() + b"".join(stream.readlines()) + b"".join(stream)
        environ["wsgi.errors"].write("to the errors\\n")
        environ["wsgi.errors"].writelines(["and more\\n"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    """
    response = lab.ask(source, method="POST", body=b"ab\ncd\nef")
    assert (response.status, response.body) == (200, b"ab\ncd\nef"), lab.log()
    assert "to the errors\nand more\n" in lab.log()


@pytest.mark.parametrize("shape", ["[b'one', b'', b'two']", "(b'one', b'two')", "[b'onetwo']", "(b'onetwo',)"])
def test_list_or_tuple_has_a_length(lab: Lab, shape: str) -> None:
    """What is there as a whole is sent with its length; the validator would hide that it is."""
    response = lab.ask(plain(shape), validate=False)
    assert (response["Content-Length"], response["Transfer-Encoding"]) == ("6", None)
    assert response.body == b"onetwo"


@pytest.mark.parametrize("shape", ["[]", "()", "[b'']", "[b'', b'']"])
def test_empty_sequence_has_length_zero(lab: Lab, shape: str) -> None:
    """An empty response on a kept connection says so."""
    name = lab.define(plain(shape))
    with lab.connect() as wire:
        for _ in range(2):
            response = wire.send(lab.request(name)).response()
            assert (response.status, response["Content-Length"]) == (200, "0")


def test_generator_is_chunked_for_11_and_closes_for_10(lab: Lab) -> None:
    """A body of unknown length is framed as the client understands."""
    name = lab.define(plain("iter([b'', b'one', b'', b'two'])"))
    response = lab.ask_again(name)
    assert response.chunks == [b"one", b"two"]
    assert response["Connection"] is None
    old = lab.ask_again(name, version="1.0")
    assert (old["Transfer-Encoding"], old["Content-Length"], old["Connection"]) == (None, None, "close")
    assert old.body == b"onetwo"


def test_generator_with_its_own_length_is_not_chunked(lab: Lab) -> None:
    """The application's Content-Length is the framing."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        yield b"one"
        yield b"two"
    """
    response = lab.ask(source)
    assert (response["Content-Length"], response.chunks, response.body) == ("6", None, b"onetwo")


def test_each_piece_is_sent_before_the_next_is_asked_for(lab: Lab) -> None:
    """PEP 3333, "Buffering and Streaming": no block is held back."""
    source = """
    from meinheld import middleware
    parked = []
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/go":
            parked.pop().resume()
            start_response("204 No Content", [])
            return []
        return pieces(environ, start_response)
    def pieces(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        parked.append(environ[middleware.CONTINUATION_KEY])
        parked[0].suspend(10)
        yield b"second"
    app = middleware.ContinuationMiddleware(application)
    """
    name = lab.define(source)
    with lab.connect() as wire:
        wire.send(lab.request(name))
        wire.head()
        assert wire.until(b"first\r\n") == b"5\r\nfirst\r\n"
        lab.ask_again(name, target="/go")
        assert wire.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


def test_head_is_not_sent_before_the_first_byte(lab: Lab) -> None:
    """Empty pieces send nothing, so that the status can still change."""
    source = """
    import sys
    def app(environ, start_response):
        write = start_response("200 OK", [("X-Which", "first")])
        write(b"")
        yield b""
        try:
            raise KeyError("late")
        except KeyError:
            start_response("503 Busy", [("X-Which", "second")], sys.exc_info())
        yield b"sorry"
    """
    response = lab.ask(source, validate=False)
    assert (response.status, response.reason, response["X-Which"]) == (503, "Busy", "second")
    assert response.body == b"sorry"


@pytest.mark.parametrize("shape", ["[b'hello']", "[b'hel', b'lo']", "iter([b'hel', b'lo'])"])
def test_head_request_has_no_body(lab: Lab, shape: str) -> None:
    """HEAD has the head of GET, and the connection goes on."""
    name = lab.define(plain(shape))
    with lab.connect() as wire:
        head = wire.send(lab.request(name, method="HEAD")).response("HEAD")
        get = wire.send(lab.request(name)).response()
    assert get.body == b"hello"
    assert head["Content-Length"] == get["Content-Length"]
    assert head["Content-Type"] == "text/plain"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(lab: Lab, status: str) -> None:
    """What an application returns for them anyway does not reach the next response."""
    source = f"""
    def app(environ, start_response):
        start_response({status!r}, [("ETag", '"x"')])
        return [b"none of this"]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        for _ in range(2):
            response = wire.send(lab.request(name)).response()
            assert (response.status, response["ETag"]) == (int(status[:3]), '"x"')
            assert response["Transfer-Encoding"] is None
            assert response["Content-Length"] is None


@pytest.mark.parametrize(
    ("method", "status", "length"), [("HEAD", "200 OK", ""), ("GET", "304 Not Modified", ""), ("GET", "200 OK", "3")]
)
def test_endless_body_is_not_asked_for_what_nobody_gets(
    lab: Lab, method: str, status: str, length: str
) -> None:
    """The iteration ends, and the iterable is closed, once nothing more could be sent."""
    headers = [("Content-Length", length)] if length else []
    headers += [] if status.startswith("304") else [("Content-Type", "text/plain")]
    source = f"""
    def app(environ, start_response):
        start_response({status!r}, {headers!r})
        try:
            while True:
                yield b"xx"
        finally:
            events.append("closed")
    """
    name = lab.define(source)
    response = lab.ask_again(name, method=method)
    assert response.body == (b"xxx" if length else b"")
    assert lab.events(name) == ["closed"]


def test_body_longer_than_its_content_length_is_cut(lab: Lab) -> None:
    """The excess is dropped and logged, and the connection can be used on."""
    for shape in ["[b'hello']", "[b'hel', b'lo']", "iter([b'hel', b'lo'])"]:
        source = f"""
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
            return {shape}
        """
        name = lab.define(source)
        with lab.connect() as wire:
            for _ in range(2):
                response = wire.send(lab.request(name)).response()
                assert response.body == b"hell"
        assert "returned more bytes than its Content-Length" in lab.log("Content-Length")


def test_what_is_written_beyond_the_content_length_is_logged(lab: Lab) -> None:
    """Also where nothing, of a length that is known, is returned behind it."""
    for nothing in ["[]", "[b'']", "[b'', b'']", "()", "iter([])"]:
        source = f"""
        def app(environ, start_response):
            write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
            write(b"hello")
            return {nothing}
        """
        assert lab.ask(source, validate=False).body == b"hell"
        assert "returned more bytes than its Content-Length" in lab.log("Content-Length")


def test_body_shorter_than_its_content_length_ends_the_connection(lab: Lab) -> None:
    """The client can tell, and the log says by how much."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "9")])
        return [b"hello"]
    """
    response = lab.ask(source)
    assert (response.body, response.complete) == (b"hello", False)
    assert "returned 4 bytes fewer than its Content-Length" in lab.log("fewer")


# start_response.


def test_second_call_with_exc_info_replaces_the_first(lab: Lab) -> None:
    """As long as nothing has been sent."""
    source = """
    import sys
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/css"), ("X-Which", "first"), ("Content-Length", "1")])
        try:
            raise ValueError("oops")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"it broke"]
    """
    response = lab.ask(source)
    assert (response.status, response.reason, response.body) == (500, "Oops", b"it broke")
    assert response["X-Which"] is None
    assert response.chunks == [b"it broke"]


def test_exc_info_is_raised_once_the_head_is_out(lab: Lab) -> None:
    """The very exception, with its traceback; the client sees a cut body."""
    source = """
    import sys
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"begun"
        try:
            raise LookupError("the very one")
        except LookupError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"never"
    """
    response = lab.ask(source)
    assert (response.status, response.chunks, response.complete) == (200, [b"begun"], False)
    assert "LookupError: the very one" in lab.log("LookupError")


def test_exc_info_is_taken_by_name_and_as_none(lab: Lab) -> None:
    """Applications of old pass it so."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")], exc_info=None)
        return [b"fine"]
    """
    # The validator takes it by position only.
    assert lab.ask(source, validate=False).body == b"fine"


def test_start_response_in_the_first_step_of_a_generator(lab: Lab) -> None:
    """It need not be called before the iteration begins."""
    source = """
    def app(environ, start_response):
        start_response("201 Created", [("Content-Type", "text/plain")])
        yield b"made"
    """
    response = lab.ask(source)
    assert (response.status, response.body) == (201, b"made")


def test_write_sends_before_the_returned_body(lab: Lab) -> None:
    """The callable that start_response returns; its bytes come first."""
    source = """
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        write(b"")
        write(b"twice, ")
        return [b"then ", b"returned"]
    """
    response = lab.ask(source)
    assert response.body == b"written twice, then returned"
    assert response.chunks[:2] == [b"written ", b"twice, "]


def test_write_alone_is_enough(lab: Lab) -> None:
    """The returned body may be empty."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])(b"done")
        return []
    """
    response = lab.ask(source)
    assert (response.body, response.complete) == (b"done", True)


def test_status_and_headers_as_str_are_latin_1(lab: Lab) -> None:
    """PEP 3333, "Unicode Issues"."""
    source = """
    def app(environ, start_response):
        start_response("200 Gr\\xfcn", [("X-Name", "J\\xf6rg"), ("x-lower", "a"), ("Content-Type", "a/b")])
        return [b"x"]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        head = wire.send(lab.request(name)).until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 Gr\xfcn\r\n")
    assert b"\r\nX-Name: J\xf6rg\r\n" in head
    assert b"\r\nx-lower: a\r\n" in head


def test_status_and_headers_as_bytes(lab: Lab) -> None:
    """Applications written for meinheld 0.x under Python 2 pass bytes."""
    source = """
    def app(environ, start_response):
        start_response(b"202 Fine", [(b"X-Bytes", b"\\xe4"), ("X-Mixed", b"b"), (b"X-Other", "c")])
        return [b"x"]
    """
    # PEP 3333 has str only.
    response = lab.ask(source, validate=False)
    assert (response.status, response.reason) == (202, "Fine")
    assert [response["X-Bytes"], response["X-Mixed"], response["X-Other"]] == ["\xe4", "b", "c"]


def test_repeated_headers_stay_apart(lab: Lab) -> None:
    """Set-Cookie cannot be joined."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Set-Cookie", "a=1"), ("X", ""), ("Set-Cookie", "b=2"), ("Content-Type", "text/css")])
        return [b""]
    """
    response = lab.ask(source)
    assert response.all("Set-Cookie") == ["a=1", "b=2"]
    assert response.all("X") == [""]


def test_server_and_date_are_added_unless_given(lab: Lab) -> None:
    """The application's own win."""
    theirs = lab.ask(plain("[b'x']"))
    assert theirs["Server"].startswith("meinheld/")
    assert theirs["Date"].endswith(" GMT")
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Server", "mine"), ("Date", "then"), ("Content-Type", "text/plain")])
        return [b"x"]
    """
    mine = lab.ask(source)
    assert (mine["Server"], mine["Date"]) == ("mine", "then")


def test_start_response_may_be_called_with_names(lab: Lab) -> None:
    """Those of PEP 3333, in any order; an `exc_info` of None is none."""
    source = """
    def app(environ, start_response):
        start_response(exc_info=None, headers=(pair for pair in [("X-Named", "yes")]), status="201 Created")
        return [b"x"]
    """
    response = lab.ask(source, validate=False)
    assert (response.status, response["X-Named"]) == (201, "yes")


MISTAKES = {
    "int value": ('"200 OK", [("X-Int", 5)]', "the value of header 'X-Int' must be str, not int"),
    "None value": ('"200 OK", [("X-None", None)]', "the value of header 'X-None' must be str, not NoneType"),
    "int name": ('"200 OK", [(5, "x")]', "a header name must be str, not int"),
    "beyond latin-1": ('"200 OK", [("X-Euro", "\\u20ac")]', "beyond latin-1"),
    "lone surrogate": ('"200 OK", [("X-Lone", "\\ud800")]', "beyond latin-1"),
    "CR LF in a value": ('"200 OK", [("X-Split", "a\\r\\nSet-Cookie: b")]', "X-Split"),
    "LF in a value": ('"200 OK", [("X-Split", "a\\nb")]', "X-Split"),
    "NUL in a value": ('"200 OK", [("X-Nul", "a\\0b")]', "X-Nul"),
    "CR LF in a name": ('"200 OK", [("X\\r\\nY", "a")]', "X\\r\\nY"),
    "space in a name": ('"200 OK", [("X Y", "a")]', "X Y"),
    "empty name": ('"200 OK", [("", "a")]', "header name"),
    "hop-by-hop": ('"200 OK", [("Transfer-Encoding", "chunked")]', "Transfer-Encoding"),
    "hop-by-hop Keep-Alive": ('"200 OK", [("Keep-Alive", "5")]', "Keep-Alive"),
    "Upgrade": ('"200 OK", [("Upgrade", "h2c")]', "Upgrade"),
    "malformed Content-Length": ('"200 OK", [("Content-Length", "5 ")]', "Content-Length"),
    "negative Content-Length": ('"200 OK", [("Content-Length", "-5")]', "Content-Length"),
    "two Content-Lengths": ('"200 OK", [("Content-Length", "1"), ("content-length", "1")]', "Content-Length"),
    "status without digits": ('"OK", []', "OK"),
    "status of four digits": ('"2000 OK", []', "2000"),
    "interim status": ('"100 Continue", []', "100"),
    "status beyond 599": ('"600 Huh", []', "600"),
    "int status": ("200, []", "status must be str, not int"),
    "None status": ("None, []", "status must be str, not NoneType"),
    "CR LF in the status": ('"200 OK\\r\\nX: y", []', "OK"),
    "status beyond latin-1": ('"200 \\u20ac", []', "beyond latin-1"),
    "headers is None": ('"200 OK", None', "headers are a list of (name, value) tuples"),
    "headers is a dict": ('"200 OK", {"A": "b"}', "headers are a list of (name, value) tuples"),
    "header of three": ('"200 OK", [("A", "b", "c")]', "headers are a list of (name, value) tuples"),
    "header is a str": ('"200 OK", ["ab"]', "headers are a list of (name, value) tuples"),
    "exc_info is an exception": ('"200 OK", [], ValueError()', "exc_info"),
    "no arguments": ("", "missing 2 required positional arguments"),
    "no headers": ('"200 OK"', "missing 1 required positional argument: 'headers'"),
    "no status": ("headers=[]", "missing 1 required positional argument: 'status'"),
    "status twice": ('"200 OK", [], status="200 OK"', "multiple values for argument 'status'"),
    "an unknown name": ('"200 OK", [], code=200', "unexpected keyword argument 'code'"),
    "too many arguments": ('"200 OK", [], None, None', "start_response()"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_start_response_is_named_and_answered_500(lab: Lab, mistake: str) -> None:
    """Nothing of the response is sent, and the log says what was wrong: the server, not the validator."""
    call, message = MISTAKES[mistake]
    source = f"""
    def app(environ, start_response):
        start_response({call})
        return [b"not this"]
    """
    response = lab.ask(source, validate=False)
    assert (response.status, response["Connection"]) == (500, "close")
    assert response.body == b"500 Internal Server Error\n"
    log = lab.log("Error: ")
    assert message in log[log.index("Error: ") :], log
    assert "\nTypeError: " in log or "\nValueError: " in log, log


def test_mistake_can_be_caught_and_mended(lab: Lab) -> None:
    """The error is raised in the application, which may answer otherwise."""
    source = """
    def app(environ, start_response):
        try:
            start_response("200 OK", [("X-Kept", "no"), ("X-Bad", "a\\nb")])
        except ValueError:
            start_response("400 Bad", [("X-Good", "yes")])
        return [b"mended"]
    """
    # The validator would raise first.
    response = lab.ask(source, validate=False)
    assert (response.status, response["X-Good"], response["X-Kept"]) == (400, "yes", None)
    assert response.body == b"mended"


ASSERTIONS = {
    "start_response twice": (
        "start_response('200 OK', [])\n start_response('200 OK', [])\n return [b'x']",
        "second time without exc_info",
    ),
    "start_response never, list": ("return [b'x']", "without having called start_response"),
    "start_response never, two": ("return [b'x', b'y']", "without having called start_response"),
    "start_response never, empty": ("return []", "without having called start_response"),
    "start_response never, generator": ("return (b'x' for _ in '1')", "without having called start_response"),
    "start_response never, empty pieces": ("return iter([b'', b''])", "without having called start_response"),
    "None returned": ("start_response('200 OK', [])", "returned NoneType, not an iterable of bytes"),
    "int returned": ("start_response('200 OK', [])\n return 5", "returned int, not an iterable"),
    "bytes returned": ("start_response('200 OK', [])\n return b'abc'", "not int"),
    "str returned": ("start_response('200 OK', [])\n return 'abc'", "bytes, not str: encode it"),
    "str in a list": ("start_response('200 OK', [])\n return ['abc']", "bytes, not str: encode it"),
    "str in a long list": ("start_response('200 OK', [])\n return [b'a', 'b']", "bytes, not str: encode it"),
    "str from a generator": ("start_response('200 OK', [])\n return iter(['abc'])", "bytes, not str: encode it"),
    "None in a list": ("start_response('200 OK', [])\n return [None]", "bytes, not NoneType"),
    "str to write": ("start_response('200 OK', [])('abc')\n return []", "bytes, not str: encode it"),
    "plain exception": ("raise RuntimeError('in the call')", "RuntimeError: in the call"),
    "in the first step": ("start_response('200 OK', [])\n return (1 // 0 for _ in '1')", "ZeroDivisionError"),
}


@pytest.mark.parametrize("mistake", ASSERTIONS)
def test_mistake_before_the_head_is_answered_500(lab: Lab, mistake: str) -> None:
    """With a traceback or a message in the log that says what to do."""
    body, message = ASSERTIONS[mistake]
    # It is the server that is to find it, not the validator.
    response = lab.ask(f"def app(environ, start_response):\n {body}", validate=False)
    assert (response.status, response["Connection"]) == (500, "close")
    assert message in lab.log(message)


# Endings.

CLOSING = """
from meinheld import middleware

class Body:
    def __init__(self, pieces, fail=None):
        self.pieces, self.fail = iter(pieces), fail
    def __iter__(self):
        return self
    def __next__(self):
        for piece in self.pieces:
            return piece
        if self.fail:
            raise self.fail
        raise StopIteration
    def close(self):
        events.append("closed")

def application(environ, start_response):
    events.append("called")
    ending = environ["PATH_INFO"]
    if ending == "/start":
        return Body([b"no start_response"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    if ending == "/exception":
        return Body([b"one"], fail=ValueError("midway"))
    if ending == "/early":
        return Body([], fail=ValueError("before the head"))
    if ending == "/str":
        return Body([b"one", "two"])
    if ending == "/endless":
        return Body(b"x" * 65536 for _ in iter(int, 1))
    if ending == "/timeout":
        return Body(environ[middleware.CONTINUATION_KEY].suspend(0.05) for _ in "12")
    if ending == "/suspended":
        return Body(environ[middleware.CONTINUATION_KEY].suspend(20) for _ in "12")
    return Body([b"one", b"two"])

app = middleware.ContinuationMiddleware(application)
"""


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/normal", "GET", 200),
        ("/normal", "HEAD", 200),
        ("/exception", "GET", 200),
        ("/early", "GET", 500),
        ("/str", "GET", 200),
        ("/start", "GET", 500),
        ("/timeout", "GET", 500),
    ],
)
@pytest.mark.parametrize("validate", [True, False])
def test_iterable_is_closed_once(lab: Lab, validate: bool, path: str, method: str, status: int) -> None:
    """In every ending: PEP 3333, "Specification Details"; the validator's own iterable too."""
    name = lab.define(CLOSING, validate)
    response = lab.ask_again(name, target=path, method=method)
    assert response.status == status
    assert lab.events(name) == ["called", "closed"]


@pytest.mark.parametrize("path", ["/endless", "/suspended"])
def test_iterable_is_closed_once_when_the_client_goes(lab: Lab, path: str) -> None:
    """While it waits for the client to read, and while it is suspended; nothing is logged."""
    name = lab.define(CLOSING)
    with lab.connect() as wire:
        wire.send(lab.request(name, target=path))
        lab.wait_for_event(name, "called")
    lab.wait_for_event(name, "closed")
    assert lab.events(name) == ["called", "closed"]
    assert "Traceback" not in lab.log()


def test_close_that_raises_is_logged(lab: Lab) -> None:
    """The response is out by then, and whole."""
    source = """
    class Body(list):
        def close(self):
            raise OSError("while closing")
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body([b"fine"])
    """
    response = lab.ask(source)
    assert (response.status, response.body, response.complete) == (200, b"fine", False)
    assert "OSError: while closing" in lab.log("while closing")


def test_both_errors_are_logged_if_closing_fails_too(lab: Lab) -> None:
    """The first is not hidden by the second, nor the second by the first."""
    source = """
    class Body:
        def __iter__(self):
            raise LookupError("while iterating")
        def close(self):
            raise OSError("while closing")
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()
    """
    # The validator would ask for the iterator itself, and never close what gave none.
    assert lab.ask(source, validate=False).status == 500
    lab.log("OSError: while closing")
    lab.log("while iterating")


def test_exception_after_the_head_cuts_the_body(lab: Lab) -> None:
    """No end of the chunks is sent, so the client can tell; the traceback shows the application."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        raise RuntimeError("midway")
    """
    response = lab.ask(source)
    assert (response.status, response.chunks, response.complete) == (200, [b"some"], False)
    log = lab.log("RuntimeError: midway")
    assert "GET / raised an exception" in log
    assert "in app" in log


def test_objects_of_a_request_are_refused_after_its_end(lab: Lab) -> None:
    """start_response, write, the input and early_hints belong to their request."""
    source = """
    kept = {}
    def app(environ, start_response):
        if not kept:
            kept.update(start=start_response, input=environ["wsgi.input"], hints=environ["wsgi.early_hints"])
            kept["write"] = start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"first"]
        calls = {
            "start": lambda: kept["start"]("200 OK", [], None),
            "write": lambda: kept["write"](b"x"),
            "input": lambda: kept["input"].read(),
            "hints": lambda: kept["hints"]([]),
        }
        for name, call in calls.items():
            try:
                call()
            except (RuntimeError, AssertionError) as error:
                events.append(name)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"second"]
    """
    name = lab.define(source)
    assert lab.ask_again(name).body == b"first"
    assert lab.ask_again(name).body == b"second"
    assert lab.events(name) == ["start", "write", "input", "hints"]


def test_system_exit_answers_500_and_ends_the_server_with_its_status(serve) -> None:
    """An application that calls sys.exit means the process."""
    server = serve(
        """
        import sys
        def app(environ, start_response):
            sys.exit(7)
        """
    )
    server.expects_traceback = True
    assert server.get()[0] == 500
    assert server.wait_for_end() == 7


def test_hundred_requests_on_one_connection_keep_their_order(lab: Lab) -> None:
    """Pipelined, of every framing."""
    source = """
    def app(environ, start_response):
        number = environ["QUERY_STRING"].encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([number]) if int(number) % 2 else [number]
    """
    name = lab.define(source)
    with lab.connect() as wire:
        wire.send(b"".join(lab.request(name, target=f"/?{number}") for number in range(100)))
        for number in range(100):
            assert wire.response().body == str(number).encode()


# wsgi.early_hints.


def test_early_hints_are_a_103_before_the_response(lab: Lab) -> None:
    """Each call sends one; str and bytes, as for start_response."""
    source = """
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), (b"X-Hint", b"1")])
        environ["wsgi.early_hints"]([("Link", "</b.css>; rel=preload")])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]
    """
    name = lab.define(source)
    response = lab.ask_again(name)
    first, second = response.interim
    assert (first.status, first.reason) == (103, "Early Hints")
    assert first.headers == [("Link", "</a.css>; rel=preload"), ("X-Hint", "1")]
    assert second.headers == [("Link", "</b.css>; rel=preload")]
    assert (response.status, response.body, response["Link"]) == (200, b"page", None)
    assert lab.ask_again(name, version="1.0").interim == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ('[("Link", "a\\r\\nb")]', "Link"),
        ('[("Content-Length", "1")]', "Content-Length"),
        ('[("Link", 1)]', "must be str, not int"),
        ("5", "headers are a list"),
    ],
)
def test_mistake_in_early_hints_sends_nothing(lab: Lab, headers: str, message: str) -> None:
    """It is raised in the application."""
    source = f"""
    def app(environ, start_response):
        environ["wsgi.early_hints"]({headers})
    """
    response = lab.ask(source)
    assert (response.interim, response.status) == ([], 500)
    assert message in lab.log(message)


def test_early_hints_after_the_head_are_refused(lab: Lab) -> None:
    """They would be in the middle of the body."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"begun")
        try:
            environ["wsgi.early_hints"]([("Link", "x")])
        except ValueError as error:
            return [b", refused"]
    """
    response = lab.ask(source)
    assert (response.body, response.complete) == (b"begun, refused", True)


def test_interpreter_survives_what_applications_do_to_their_environ(lab: Lab) -> None:
    """Cleared, filled with nonsense, or kept: the next request is as good as ever."""
    source = """
    import json
    kept = []
    class Evil:
        def __str__(self):
            raise ValueError("no")
        __repr__ = __str__
    def app(environ, start_response):
        kept.append(environ)
        what = environ["PATH_INFO"]
        seen = json.dumps(sorted(key for key in environ)).encode()
        if what == "/clear":
            environ.clear()
        elif what == "/evil":
            for key in list(environ):
                environ[key] = Evil()
            environ[Evil()] = 5
        if "fail" in what:
            environ.clear()
            raise RuntimeError("with a cleared environ")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [seen]
    """
    name = lab.define(source)
    before = json.loads(lab.ask_again(name).body)
    for path in ["/clear", "/evil", "/"]:
        response = lab.ask_again(name, target=path)
        assert (response.status, json.loads(response.body)) == (200, before), path
    assert lab.ask_again(name, target="/fail").status == 500
    assert "with a cleared environ" in lab.log("RuntimeError")
