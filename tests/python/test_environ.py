"""The environ of a request: every key of PEP 3333, native strings, and what clients try to put in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab, Wire, running_lab

SOURCE = """
import json
def app(environ, start_response):
    assert type(environ) is dict
    shown = {
        key: value if type(value) in (str, bool) else type(value).__name__
        for key, value in environ.items()
    }
    assert all(type(key) is str for key in environ)
    assert all(type(value) is str for key, value in environ.items() if key.isupper()), shown
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("environ")) as lab:
        yield lab


@pytest.fixture(scope="module")
def name(lab: Lab) -> str:
    """The application that shows its environ, below the validator."""
    return lab.define(SOURCE)


def environ_of(lab: Lab, name: str, **request: object) -> dict[str, object]:
    """The environ that a request makes."""
    response = lab.ask_again(name, **request)
    assert response.status == 200, lab.log()
    return json.loads(response.body)


def test_every_key_of_a_plain_request(lab: Lab, name: str) -> None:
    """Nothing is missing, and nothing else is there."""
    with lab.connect() as wire:
        host, port = wire.socket.getsockname()[:2]
        wire.send(lab.request(name, target="/a/b?c=d", headers="Accept: */*\r\n"))
        environ = json.loads(wire.response().body)
    assert environ.pop("SERVER_SOFTWARE").startswith("meinheld/")
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d",
        "RAW_URI": "/a/b?c=d",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(lab.server.port),
        "REMOTE_ADDR": host,
        "REMOTE_PORT": str(port),
        "HTTP_HOST": "x.test",
        "HTTP_X_APP": name,
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": "tuple",
        "wsgi.url_scheme": "http",
        "wsgi.input": "InputWrapper",
        "wsgi.errors": "ErrorWrapper",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": "type",
        "wsgi.early_hints": "EarlyHints",
        "meinheld.client": "Client",
    }


#: A target as sent, and its PATH_INFO and QUERY_STRING.
TARGETS = {
    "/": ("/", ""),
    "/?": ("/", ""),
    "/?a=b&c=%20d": ("/", "a=b&c=%20d"),
    "/?a?b": ("/", "a?b"),
    "/a%20b": ("/a b", ""),
    "/a+b": ("/a+b", ""),
    "/%E4%B8%AD": ("/\xe4\xb8\xad", ""),
    "/%e4": ("/\xe4", ""),
    "/%2541": ("/%41", ""),
    "/a%2Fb": ("/a/b", ""),
    "/%00": ("/\0", ""),
    "/%": ("/%", ""),
    "/%4": ("/%4", ""),
    "/%zz": ("/%zz", ""),
    "/%%41": ("/%A", ""),
    "//a//b/": ("//a//b/", ""),
    "/../a/./b": ("/../a/./b", ""),
    "/a;b=c": ("/a;b=c", ""),
    "/a:b@c": ("/a:b@c", ""),
}


@pytest.mark.parametrize("target", TARGETS)
def test_target(lab: Lab, name: str, target: str) -> None:
    """The path is decoded once into latin-1, the query is not, RAW_URI is what was sent."""
    environ = environ_of(lab, name, target=target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == TARGETS[target]
    assert environ["RAW_URI"] == target


def test_absolute_target(lab: Lab, name: str) -> None:
    """RFC 9112 section 3.2.2: its authority replaces the Host header."""
    environ = environ_of(lab, name, target="http://other.test:81/p%20q?r")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/p q", "r")
    assert environ["HTTP_HOST"] == "other.test:81"
    assert environ["RAW_URI"] == "http://other.test:81/p%20q?r"
    assert environ_of(lab, name, target="http://other.test")["PATH_INFO"] == "/"


def test_asterisk_target(lab: Lab, name: str) -> None:
    """OPTIONS for the server itself: no path, and the validator is content."""
    environ = environ_of(lab, name, target="*", method="OPTIONS")
    assert (environ["PATH_INFO"], environ["RAW_URI"]) == ("", "*")


def test_methods_are_kept_as_they_are(lab: Lab) -> None:
    """Unknown ones, and in their case."""
    source = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["REQUEST_METHOD"].encode()]
    """
    name = lab.define(source)
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "M-SEARCH"]:
        assert lab.ask_again(name, method=method).body == method.encode()


def test_protocol(lab: Lab, name: str) -> None:
    """The request's, not the response's."""
    assert environ_of(lab, name, version="1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


#: Header lines, and the items that they make.
HEADERS = {
    "X-Plain: value": {"HTTP_X_PLAIN": "value"},
    "x-lower: value": {"HTTP_X_LOWER": "value"},
    "X-Space:  \t value \t ": {"HTTP_X_SPACE": "value"},
    "X-Empty:": {"HTTP_X_EMPTY": ""},
    "X-Latin: J\xf6rg": {"HTTP_X_LATIN": "J\xf6rg"},
    "X-Utf8: \xe4\xb8\xad": {"HTTP_X_UTF8": "\xe4\xb8\xad"},
    "X-A: 1\r\nX-A: 2\r\nx-a: 3": {"HTTP_X_A": "1,2,3"},
    "X-A: \xe4\r\nX-A: 2": {"HTTP_X_A": "\xe4,2"},
    "Cookie: a=1\r\nCookie: b=2": {"HTTP_COOKIE": "a=1; b=2"},
    "Content-Type: text/plain": {"CONTENT_TYPE": "text/plain"},
    "content-type: text/plain": {"CONTENT_TYPE": "text/plain"},
    "Content-Length: 0": {"CONTENT_LENGTH": "0"},
    "X!#$%&'*+.^`|~9: x": {"HTTP_X!#$%&'*+.^`|~9": "x"},
}

#: Header lines of which the environ must show nothing.
DROPPED = ["X_Under: 1", "X-Mixed_Name: 1", "Content_Length: 5", "CONTENT_TYPE: x", "Proxy: http://evil/", "proxy: x"]


@pytest.mark.parametrize("lines", HEADERS)
def test_header(lab: Lab, name: str, lines: str) -> None:
    """Its key, and its value with every byte as a character."""
    plain = environ_of(lab, name)
    environ = environ_of(lab, name, headers=lines + "\r\n")
    new = {key: value for key, value in environ.items() if key not in plain}
    assert new == HEADERS[lines]
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


@pytest.mark.parametrize("line", DROPPED)
def test_dropped_header(lab: Lab, name: str, line: str) -> None:
    """An underscore would pass for a dash, and Proxy for the variable HTTP_PROXY."""
    environ = environ_of(lab, name, headers=line + "\r\n")
    assert environ.keys() == environ_of(lab, name).keys()


def test_underscore_does_not_join_its_twin(lab: Lab, name: str) -> None:
    """Nor replace it."""
    for lines in ["X-Real: 1\r\nX_Real: 2\r\n", "X_Real: 2\r\nX-Real: 1\r\n"]:
        assert environ_of(lab, name, headers=lines)["HTTP_X_REAL"] == "1"


def test_many_different_header_names(lab: Lab, name: str) -> None:
    """More than are kept: the keys are right all the same."""
    for batch in range(20):
        lines = "".join(f"X-Batch-{batch}-{number}: {number}\r\n" for number in range(50))
        environ = environ_of(lab, name, headers=lines)
        for number in range(50):
            assert environ[f"HTTP_X_BATCH_{batch}_{number}"] == str(number)


def test_post_has_type_and_length(lab: Lab, name: str) -> None:
    """Without HTTP_ before them."""
    environ = environ_of(lab, name, method="POST", headers="Content-Type: a/b\r\n", body=b"hello")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("a/b", "5")


def test_peer_is_the_one_of_this_connection(lab: Lab, name: str) -> None:
    """Also when its place in the server was another's before, and for requests in between."""
    for _ in range(5):
        with lab.connect() as one, lab.connect() as two:
            for wire in [one, two, two, one]:
                environ = json.loads(wire.send(lab.request(name)).response().body)
                assert environ["REMOTE_PORT"] == str(wire.socket.getsockname()[1])


def test_address_of_a_client_with_another_address(lab: Lab, name: str) -> None:
    """All of 127.0.0.0/8 is this machine."""
    for host in ["127.0.0.2", "127.0.0.3", "127.0.0.2"]:
        with Wire(lab.address, source=host) as wire:
            environ = json.loads(wire.send(lab.request(name)).response().body)
            assert environ["REMOTE_ADDR"] == host
            assert environ["REMOTE_PORT"] == str(wire.socket.getsockname()[1])


def test_ipv6_and_unix_addresses(tmp_path: Path) -> None:
    """IPv6 without brackets; a unix socket has no address, and a name and port that are not empty."""
    unix = str(tmp_path / "sock")
    bind = ["127.0.0.1:0", "[::1]:0", f"unix:{unix}"]
    with running_lab(tmp_path, bind=bind) as lab:
        name = lab.define(SOURCE)
        port = int(lab.server.output().split("http://[::1]:")[1].split()[0])
        six = Lab(lab.server, ("::1", port))
        environ = environ_of(six, name)
        assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == ("::1", "::1")
        assert environ["SERVER_PORT"] == str(port)
        over_unix = environ_of(Lab(lab.server, unix), name)
        assert (over_unix["REMOTE_ADDR"], over_unix["REMOTE_PORT"]) == ("", "")
        assert (over_unix["SERVER_NAME"], over_unix["SERVER_PORT"]) == ("localhost", "80")
        four = environ_of(lab, name)
        assert (four["SERVER_NAME"], four["SERVER_PORT"]) == ("127.0.0.1", str(lab.server.port))


def test_wildcard_listener_names_its_own_address(tmp_path: Path) -> None:
    """SERVER_NAME is where the server listens; which of the machine's addresses was reached only Host tells."""
    with running_lab(tmp_path, bind="0.0.0.0:0") as lab:
        name = lab.define(SOURCE)
        for host in ("127.0.0.1", "127.0.0.2"):
            environ = environ_of(Lab(lab.server, (host, lab.server.port)), name)
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("0.0.0.0", str(lab.server.port))
