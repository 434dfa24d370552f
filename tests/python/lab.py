"""A client that speaks bytes, and a server whose applications are defined by the tests.

What goes out is what the test wrote, what comes in is kept as it came, and nothing
waits longer than a deadline.
"""

from __future__ import annotations

import itertools
import json
import socket
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import VALIDATED, Server, flags
from wire import wait_until

SECONDS = 5

DISPATCHER = '''
import json
from wsgiref.validate import validator

APPS, EVENTS = {}, {}

def define(environ):
    name = environ["HTTP_X_NAME"]
    events = EVENTS[name] = []
    names = {"events": events}
    exec(environ["wsgi.input"].read(), names)
    APPS[name] = names["app"] if "HTTP_X_PLAIN" in environ else validator(names["app"])
    return ""

def app(environ, start_response):
    name = environ.get("HTTP_X_APP", "-")
    if name in APPS:
        return APPS[name](environ, start_response)
    work = {"-define": define, "-events": lambda environ: EVENTS[environ["HTTP_X_NAME"]]}[name]
    answer = json.dumps(work(environ)).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]
'''


@dataclass
class Response:
    """One response as it came: headers in order, the body without its framing."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[Response] = field(default_factory=list)
    #: The chunks of the body, or None if it was not chunked.
    chunks: list[bytes] | None = None
    #: Whether the body came whole, by its own framing.
    complete: bool = True

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """The value of a header that may come once."""
        values = self.all(name)
        assert len(values) < 2, self.headers
        return values[0] if values else None


class Wire:
    """One connection."""

    def __init__(
        self, address: tuple[str, int] | str, seconds: float = SECONDS, source: str | None = None
    ) -> None:
        """Connect, from the address `source` if one is given."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_UNSPEC
        if family == socket.AF_UNIX:
            self.socket = socket.socket(family)
            self.socket.settimeout(seconds)
            self.socket.connect(address)
        else:
            origin = None if source is None else (source, 0)
            self.socket = socket.create_connection(address, seconds, source_address=origin)
        self._deadline = time.monotonic() + 3 * seconds
        self._kept = b""

    def __enter__(self) -> Wire:
        """Return the connection."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send all of it."""
        self.socket.sendall(data)
        return self

    def _more(self) -> bool:
        assert time.monotonic() < self._deadline, f"too slow; so far: {self._kept[:500]!r}"
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._kept += data
        return bool(data)

    def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        while end not in self._kept:
            assert self._more(), f"the connection ended before {end!r}: {self._kept[:500]!r}"
        head, _, self._kept = self._kept.partition(end)
        return head + end

    def exactly(self, count: int) -> bytes:
        """So many bytes, or fewer if the connection ends."""
        while len(self._kept) < count and self._more():
            pass
        taken, self._kept = self._kept[:count], self._kept[count:]
        return taken

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        while self._more():
            pass
        taken, self._kept = self._kept, b""
        return taken

    def closed(self) -> bool:
        """Whether the server ends the connection without sending more."""
        return self.rest() == b""

    def head(self) -> Response:
        """The head of a response."""
        line, *fields = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        version, status, reason = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        headers = [tuple(field.split(": ", 1)) for field in fields]
        return Response(int(status), reason, headers)

    def response(self, method: str = "GET") -> Response:
        """A whole response, with what was interim before it."""
        interim = []
        while (response := self.head()).status < 200:
            interim.append(response)
        response.interim = interim
        if method != "HEAD" and response.status not in (204, 304):
            self.receive_body(response)
        return response

    def receive_body(self, response: Response) -> None:
        """The body of a response, by the framing that its head tells of."""
        length, coding = response["Content-Length"], response["Transfer-Encoding"]
        assert length is None or coding is None, response.headers
        if coding is not None:
            assert coding == "chunked"
            self._chunks(response)
        elif length is not None:
            response.body = self.exactly(int(length))
            response.complete = len(response.body) == int(length)
        else:
            assert response["Connection"] == "close", response.headers
            response.body = self.rest()

    def _chunks(self, response: Response) -> None:
        response.chunks = []
        while True:
            line = self._line()
            if line is None:
                response.complete = False
                break
            size = int(line, 16)
            data = self.exactly(size + 2)
            assert data.endswith(b"\r\n") and len(data) == size + 2, data[-10:]
            if size == 0:
                break
            response.chunks.append(data[:-2])
        response.body = b"".join(response.chunks)

    def _line(self) -> bytes | None:
        """A line, or None if the connection ends."""
        while b"\r\n" not in self._kept:
            if not self._more():
                assert self._kept == b"", self._kept
                return None
        line, _, self._kept = self._kept.partition(b"\r\n")
        return line


class Lab:
    """A server that runs what the tests define."""

    def __init__(self, server: Server, address: tuple[str, int] | str | None = None) -> None:
        """Use a server of DISPATCHER."""
        self.server = server
        self.address = address or ("127.0.0.1", server.port)
        self._names = itertools.count()
        self._mark = 0

    def connect(self, seconds: float = SECONDS) -> Wire:
        """Open a connection."""
        return Wire(self.address, seconds)

    def define(self, source: str, validate: bool = True) -> str:
        """Make an application of a source with `app`; what it appends to `events` can be had.

        It runs below wsgiref's validator unless `validate` is false, which wants a reason beside it.
        """
        name = f"app{next(self._names)}"
        self._mark = len(self.server.output())
        extra = f"X-Name: {name}\r\n" + ("" if validate else "X-Plain: 1\r\n")
        response = self._ask("-define", extra, textwrap.dedent(source).encode())
        assert response.status == 200, self.server.output()
        return name

    def events(self, name: str) -> list:
        """What the application has noted."""
        return json.loads(self._ask("-events", f"X-Name: {name}\r\n").body)

    def wait_for_event(self, name: str, event: object) -> list:
        """What the application has noted, once that is among it."""
        events: list = []

        def is_noted() -> bool:
            events[:] = self.events(name)
            return event in events

        wait_until(is_noted, lambda: f"{event!r} in {events}", SECONDS)
        return events

    def log(self, wanted: str = "") -> str:
        """What the server has written since the last definition, once that has `wanted`."""
        wait_until(lambda: wanted in self._new(), lambda: f"{wanted!r} in the log:\n{self._new()}", SECONDS)
        return self._new()

    def _new(self) -> str:
        return self.server.output()[self._mark :]

    def _ask(self, app: str, extra: str, body: bytes = b"") -> Response:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nX-App: {app}\r\n{extra}"
        with self.connect() as wire:
            wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return wire.response()

    def request(
        self,
        name: str,
        target: str = "/",
        method: str = "GET",
        version: str = "1.1",
        headers: str = "",
        body: bytes | None = None,
    ) -> bytes:
        """The bytes of a request to an application; each header ends in CR LF."""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        fields = f"Host: x.test\r\nX-App: {name}\r\n{headers}{length}"
        head = f"{method} {target} HTTP/{version}\r\n{fields}\r\n"
        return head.encode("latin-1") + (body or b"")

    def ask(self, source: str, validate: bool = True, **request: object) -> Response:
        """Define an application, and send it one request on a connection of its own."""
        return self.ask_again(self.define(source, validate), **request)

    def ask_again(self, name: str, method: str = "GET", **request: object) -> Response:
        """Send an application one request on a connection of its own."""
        with self.connect() as wire:
            wire.send(self.request(name, method=method, **request))
            return wire.response(method)


COLLECT = """
    import gc

    def app(environ, start_response):
        gc.collect()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"collected"]
"""


def collect_until(lab: Lab, name: str, event: object) -> None:
    """Run the collector until the application has noted something: its request may still end."""
    collector = lab.define(COLLECT)

    def is_noted() -> bool:
        lab.ask_again(collector)
        return event in lab.events(name)

    wait_until(is_noted, lambda: f"{event!r} in {lab.events(name)}", SECONDS)


@contextmanager
def running_lab(directory: Path, source: str = DISPATCHER, **options: object) -> Iterator[Lab]:
    """Run a lab; tracebacks in its log are expected, since applications are to fail."""
    # The dispatcher puts the validator around what it is given.
    (directory / "app.py").write_text(source if source is DISPATCHER else source + VALIDATED)
    options.setdefault("bind", "127.0.0.1:0")
    server = Server(directory, ["app:app", *flags(options)])
    server.expects_traceback = True
    try:
        server.wait_for_banner()
        yield Lab(server)
    finally:
        server.check_end()
