"""``wsgi.file_wrapper``: real files go out by sendfile(2), anything else by its ``read``."""

from __future__ import annotations

import gzip
import hashlib
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Server
from lab import Lab, collect_until, running_lab
from wire import wait_until

BIG_BYTES = 10 * 1024 * 1024

#: How an application opens its file, and what of the small file is sent then.
SOURCES = {
    "sendfile": {
        "open(path, 'rb')": slice(None),
        "open(path, 'rb', buffering=0)": slice(None),
        "open(path, 'r+b')": slice(None),
        "at(open(path, 'rb'), 100)": slice(100, None),
        "at(open(path, 'rb', buffering=0), 100)": slice(100, None),
        "after_read(open(path, 'rb'), 7)": slice(7, None),
        "copied(tempfile.NamedTemporaryFile())": slice(None),
        "copied(tempfile.TemporaryFile())": slice(None),
    },
    "read": {
        "io.BytesIO(open(path, 'rb').read())": slice(None),
        "at(io.BytesIO(open(path, 'rb').read()), 5)": slice(5, None),
        "gzip.open(path + '.gz')": slice(None),
        "copied(tempfile.SpooledTemporaryFile())": slice(None),
        "OnlyRead(open(path, 'rb'))": slice(None),
        "Overridden(path)": slice(None),
    },
}

APP = """
import gzip, io, os, tempfile

def at(file, position):
    file.seek(position)
    return file

def after_read(file, count):
    assert len(file.read(count)) == count
    return file

def copied(file):
    file.write(open(path, "rb").read())
    file.seek(0)
    return file

class OnlyRead:
    def __init__(self, file):
        self.read = file.read
        self.file = file

class Overridden(io.FileIO):
    "Holds other bytes than its file does."
    def __init__(self, path):
        self.real = open(path, "rb")
        super().__init__(os.devnull)
    def read(self, size=-1):
        return self.real.read(size)

def app(environ, start_response):
    global path
    path = environ["HTTP_X_PATH"]
    file = eval(environ["HTTP_X_OPEN"])
    headers = []
    if "HTTP_X_LENGTH" in environ:
        headers.append(("Content-Length", environ["HTTP_X_LENGTH"]))
    start_response("200 OK", headers)
    wrapper = environ["wsgi.file_wrapper"](file, 8192)
    kept[:] = [file]
    return wrapper

kept = []
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file, the same compressed, and a big one."""
    directory = tmp_path_factory.mktemp("files")
    small = random.Random(1).randbytes(20_000)
    (directory / "small").write_bytes(small)
    (directory / "small.gz").write_bytes(gzip.compress(small))
    (directory / "big").write_bytes(random.Random(2).randbytes(BIG_BYTES))
    (directory / "empty").write_bytes(b"")
    (directory / "one").write_bytes(b"1")
    return directory


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One server for all."""
    with running_lab(tmp_path_factory.mktemp("file_wrapper")) as lab:
        yield lab


def define(lab: Lab, source: str) -> str:
    """Make an application, without the validator: its iterator would hide the wrapper from the server."""
    return lab.define(source, validate=False)


def headers_for(path: Path, opening: str, more: str = "") -> str:
    """The headers that tell APP what to open."""
    return f"X-Path: {path}\r\nX-Open: {opening}\r\n{more}"


@contextmanager
def traced_sendfiles(lab: Lab, directory: Path, tmp_path: Path) -> Iterator[list[int]]:
    """What each sendfile of the server returned meanwhile."""
    if shutil.which("strace") is None:
        pytest.fail("this test needs strace: apt-get install strace")
    output = tmp_path / "strace"
    command = ["strace", "-f", "-e", "trace=sendfile", "-o", output, "-p", str(lab.server.pid)]
    last = define(lab, APP)
    calls: list[int] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert "attached" in strace.stderr.readline()
        try:
            yield calls
            # What was traced before this file of one byte is in the output once this is.
            lab.ask_again(last, headers=headers_for(directory / "one", "open(path, 'rb')"))
            wait_until(lambda: bool(re.search(r", 1\) += 1\n", output.read_text())), output.read_text)
        finally:
            strace.terminate()
            strace.wait()
    calls += [int(count) for count in re.findall(r"sendfile\(.*\) += (\d+)", output.read_text())][:-1]


@pytest.mark.parametrize(("way", "opening"), [(way, opening) for way in SOURCES for opening in SOURCES[way]])
def test_what_is_sent(lab: Lab, directory: Path, tmp_path: Path, way: str, opening: str) -> None:
    """What read() would give from where the file stands, and by the way that is promised."""
    name = define(lab, APP)
    expected = (directory / "small").read_bytes()[SOURCES[way][opening]]
    with traced_sendfiles(lab, directory, tmp_path) as calls:
        response = lab.ask_again(name, headers=headers_for(directory / "small", opening))
    assert response.body == expected, lab.log()
    assert response["Content-Length"] == (str(len(expected)) if way == "sendfile" else None)
    assert sum(calls) == (len(expected) if way == "sendfile" else 0)


def test_big_file_arrives_whole(lab: Lab, directory: Path, tmp_path: Path) -> None:
    """10 MiB, by sendfile alone."""
    name = define(lab, APP)
    with traced_sendfiles(lab, directory, tmp_path) as calls:
        response = lab.ask_again(name, headers=headers_for(directory / "big", "open(path, 'rb')"))
    digest = hashlib.sha256((directory / "big").read_bytes()).digest()
    assert hashlib.sha256(response.body).digest() == digest
    assert (response["Content-Length"], sum(calls)) == (str(BIG_BYTES), BIG_BYTES)


@pytest.mark.parametrize("opening", ["open(path, 'rb')", "OnlyRead(open(path, 'rb'))"])
def test_slow_reader_holds_nobody_up(lab: Lab, directory: Path, opening: str) -> None:
    """It gets its file whole, and others are served meanwhile."""
    name = define(lab, APP)
    quick = headers_for(directory / "empty", "open(path, 'rb')")
    with lab.connect() as wire:
        wire.send(lab.request(name, headers=headers_for(directory / "big", opening)))
        head = wire.head()
        for _ in range(3):
            assert lab.ask_again(name, headers=quick).body == b""
        wire.receive_body(head)
    assert head.body == (directory / "big").read_bytes()


def test_head_and_empty_file(lab: Lab, directory: Path) -> None:
    """The length is told, and nothing is sent."""
    name = define(lab, APP)
    with lab.connect() as wire:
        request = headers_for(directory / "small", "open(path, 'rb')")
        head = wire.send(lab.request(name, method="HEAD", headers=request)).response("HEAD")
        assert head["Content-Length"] == "20000"
        empty = headers_for(directory / "empty", "open(path, 'rb')")
        response = wire.send(lab.request(name, headers=empty)).response()
        assert (response["Content-Length"], response.body) == ("0", b"")


@pytest.mark.parametrize("opening", ["at(open(path, 'rb'), 5)", "at(io.BytesIO(open(path, 'rb').read()), 5)"])
def test_content_length_ends_the_file_early(lab: Lab, directory: Path, opening: str) -> None:
    """PEP 3333: until the end of the file, or until Content-Length bytes have been sent."""
    name = define(lab, APP)
    small = (directory / "small").read_bytes()
    with lab.connect() as wire:
        for _ in range(2):
            request = headers_for(directory / "small", opening, "X-Length: 100\r\n")
            response = wire.send(lab.request(name, headers=request)).response()
            assert response.body == small[5:105]
    if "BytesIO" not in opening:
        assert "Content-Length" not in lab.log()


def test_file_shorter_than_its_content_length(lab: Lab, directory: Path) -> None:
    """The client can tell."""
    name = define(lab, APP)
    request = headers_for(directory / "small", "open(path, 'rb')", "X-Length: 20001\r\n")
    response = lab.ask_again(name, headers=request)
    assert (len(response.body), response.complete) == (20_000, False)
    lab.log("returned 1 bytes fewer than its Content-Length")


CLOSED = """
class Closing:
    "Counts, and passes everything else on."
    def __init__(self, file):
        self.file, self.name = file, file.name
    def __getattr__(self, name):
        return getattr(self.file, name)
    def close(self):
        events.append("closed")
        self.file.close()

def app(environ, start_response):
    path = environ["HTTP_X_PATH"]
    how = environ["PATH_INFO"]
    if how == "/early":
        file = open(path, "rb")
        start_response("200 OK", [("Content-Type", "text/plain")])
        body = environ["wsgi.file_wrapper"](file)
        file.close()
        return body
    if how == "/text":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(path, "r", encoding="latin-1"))
    if how == "/none":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](None)
    if how == "/size":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(path, "rb"), 0)
    if how == "/unstarted":
        return environ["wsgi.file_wrapper"](open(path, "rb"))
    if how == "/written":
        start_response("200 OK", [("Content-Type", "text/plain")])(b"before ")
        return environ["wsgi.file_wrapper"](open(path, "rb"))
    if how == "/pipe":
        import os
        start_response("200 OK", [("Content-Type", "text/plain")])
        read, write = os.pipe()
        os.write(write, b"through a pipe")
        os.close(write)
        return environ["wsgi.file_wrapper"](open(read, "rb", buffering=0))
    if how == "/again":
        body = environ["wsgi.file_wrapper"](Closing(open(path, "rb")), 100)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return list(body)
    start_response("200 OK", [("Content-Type", "text/plain")])
    events.append("opened")
    return environ["wsgi.file_wrapper"](Closing(open(path, "rb")))
"""


def test_file_is_closed_once(lab: Lab, directory: Path) -> None:
    """When it is sent, when the client goes, and when there is nothing to send."""
    name = define(lab, CLOSED)
    path = f"X-Path: {directory / 'small'}\r\n"
    assert len(lab.ask_again(name, headers=path).body) == 20_000
    assert lab.events(name) == ["opened", "closed"]
    lab.ask_again(name, headers=path, method="HEAD")
    assert lab.events(name) == ["opened", "closed"] * 2
    with lab.connect() as wire:
        wire.send(lab.request(name, headers=f"X-Path: {directory / 'big'}\r\n"))
        wire.head()
    wait_until(lambda: lab.events(name) == ["opened", "closed"] * 3, lambda: str(lab.events(name)), 5)


def test_descriptors_do_not_leak(lab: Lab, directory: Path) -> None:
    """The file's and its copy's: also for clients that go in the middle."""
    name = define(lab, APP)
    descriptors = Path(f"/proc/{lab.server.pid}/fd")

    def target(fd: Path) -> str:
        # It may be closed between its listing and this.
        with suppress(FileNotFoundError):
            return str(fd.readlink())
        return ""

    def files() -> int:
        return sum(str(directory) in target(fd) for fd in descriptors.iterdir())

    before = files()
    for _ in range(5):
        with lab.connect() as wire:
            wire.send(lab.request(name, headers=headers_for(directory / "big", "open(path, 'rb')")))
            wire.head()
        lab.ask_again(name, headers=headers_for(directory / "small", "open(path, 'rb')"))
    # The application keeps the file object of its last request; it has been closed.
    wait_until(lambda: files() <= before, lambda: f"{files()} files are open, {before} were", 5)


def test_a_file_that_has_its_wrapper_is_collected(lab: Lab) -> None:
    """A cycle of the two is no leak."""
    name = lab.define(
        """
        import weakref

        class Download:
            def __init__(self, wrapper):
                self.body = wrapper(self)
                self.left = [b"all of it"]

            def read(self, size):
                return self.left.pop() if self.left else b""

        def app(environ, start_response):
            download = Download(environ["wsgi.file_wrapper"])
            weakref.finalize(download, events.append, "collected")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return download.body
        """
    )
    assert lab.ask_again(name).body == b"all of it"
    collect_until(lab, name, "collected")


def test_a_client_that_goes_does_not_end_a_program_that_asked_for_sigpipe(tmp_path: Path) -> None:
    """Which sendfile(2) raises, whatever else is said to be ignored."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        # More than the buffers on the way take.
        file.truncate(200 * 1024 * 1024)
    # Not below wsgiref's validator, which hides that it is a file.
    (tmp_path / "piped.py").write_text(f"""
import signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](open({str(huge)!r}, "rb"))
""")
    server = Server(tmp_path, ["piped:app", "--bind", "127.0.0.1:0"])
    try:
        server.wait_for_banner()
        lab = Lab(server)
        for _ in range(5):
            with lab.connect() as wire:
                wire.send(lab.request("any"))
                wire.head()
                # Its end comes before the reset that its closing is, with unread input.
                wire.socket.shutdown(socket.SHUT_WR)
    finally:
        server.check_end()


MISTAKES = {
    "/early": "ValueError: ",
    "/text": "binary mode",
    "/none": "needs an object with read()",
    "/size": "the block size must be positive",
    "/unstarted": "without having called start_response",
}


@pytest.mark.parametrize("path", MISTAKES)
def test_mistake_is_named_and_answered_500(lab: Lab, directory: Path, path: str) -> None:
    """A file closed early, a text file, no file, no block size, no start_response."""
    name = define(lab, CLOSED)
    response = lab.ask_again(name, target=path, headers=f"X-Path: {directory / 'small'}\r\n")
    assert response.status == 500
    assert MISTAKES[path] in lab.log(MISTAKES[path])


def test_other_uses(lab: Lab, directory: Path) -> None:
    """After write(), for a pipe, and iterated by the application itself."""
    name = define(lab, CLOSED)
    small = (directory / "small").read_bytes()
    path = f"X-Path: {directory / 'small'}\r\n"
    response = lab.ask_again(name, target="/written", headers=path)
    assert (response.body, response.complete) == (b"before " + small, True)
    assert lab.ask_again(name, target="/pipe", headers=path).body == b"through a pipe"
    assert lab.ask_again(name, target="/again", headers=path).body == small


def test_validated_file(lab: Lab, directory: Path) -> None:
    """The wrapper is an iterable like any other for middleware."""
    source = f"""
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open({str(directory / "small")!r}, "rb"))
    """
    response = lab.ask(source)
    assert response.body == (directory / "small").read_bytes()
    assert "Assert" not in lab.log()
