"""The programs that the README prints run as printed, and so do those of meinheld 0.x.

Only the address is another one, so that the tests need no fixed port.
"""

from __future__ import annotations

import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Server
from lab import Wire
from process import Running, listening_port
from websockets.sync.client import connect

README = Path(__file__).resolve().parents[2] / "README.md"

OLD_HELLO = """
from meinheld import server

def hello_world(environ, start_response):
    status = b'200 OK'
    res = b"Hello world!"
    response_headers = [('Content-type','text/plain'),('Content-Length',str(len(res)))]
    start_response(status, response_headers)
    return [res]

server.listen(("0.0.0.0", 8000))
server.run(hello_world)
"""

OLD_CONTINUATION = """
from meinheld import server
from meinheld import middleware

waiters = []

def app(environ, start_response):
    #get Continuation
    c = environ.get(middleware.CONTINUATION_KEY, None)
    res = b"resumed"
    if environ["PATH_INFO"] == "/wait":
        waiters.append(c)
        #suspend
        c.suspend()
    else:
        res = str(len(waiters)).encode()
        for c in waiters:
            # resume suspend function
            c.resume()
        del waiters[:]
    start_response(b'200 OK', [('Content-type','text/plain'),('Content-Length',str(len(res)))])
    return [res]

server.listen(("0.0.0.0", 8000))
server.run(middleware.SpawnMiddleware(app))
"""


def programs() -> dict[str, str]:
    """The Python blocks of the README that name their file."""
    blocks = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return {name: text for text, name in blocks}


def block_with(text: str) -> str:
    """The one Python block of the README that has the text."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if text in block]
    return found


def commands() -> list[str]:
    """The lines of the shell blocks of the README."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


@contextmanager
def running(tmp_path: Path, program: str) -> Iterator[int]:
    """Run a program that listens on 8000, on a port that the system chose; it says nothing."""
    program, replaced = re.subn(r'\("(0\.0\.0\.0|127\.0\.0\.1)", 8000\)', '("127.0.0.1", 0)', program)
    assert replaced == 1
    (tmp_path / "program.py").write_text(program)
    process = Running([sys.executable, "program.py"], tmp_path / "output", cwd=tmp_path)
    try:
        yield listening_port(process)
    finally:
        status = process.stop()
    assert (status, process.output()) == (0, "")


def ask(port: int, path: str = "/") -> bytes:
    """The body of a response with status 200."""
    with Wire(("127.0.0.1", port)) as wire:
        response = wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).response()
        assert (response.status, response.complete) == (200, True)
        return response.body


def resume_until_answered(port: int, wait: str, resume: str) -> bytes:
    """Send one request that waits, and others until it has been answered."""
    with Wire(("127.0.0.1", port)) as waiting:
        waiting.send(f"GET {wait} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while True:
            ask(port, resume)
            if select.select([waiting.socket], [], [], 0.05)[0]:
                return waiting.response().body
            assert time.monotonic() < deadline, "the request was not resumed"


def test_readme_has_the_programs_tested_here() -> None:
    """Each with the command that runs it."""
    assert programs().keys() == {"hello.py", "poll.py", "echo.py"}
    lines = commands()
    assert "meinheld hello:app" in lines
    assert "meinheld poll:app &" in lines
    assert "curl 'http://127.0.0.1:8000/send?hello'" in lines


def test_hello(serve: Callable[..., Server]) -> None:
    """The first program."""
    server = serve(programs()["hello.py"])
    assert ask(server.port) == b"Hello, world!\n"


def test_poll(serve: Callable[..., Server]) -> None:
    """One request waits for another one's text."""
    server = serve(programs()["poll.py"])
    assert ask(server.port, "/send?nobody") == b"sent"
    assert resume_until_answered(server.port, "/wait", "/send?hello") == b"hello"


def test_program_that_runs_the_server_itself(tmp_path: Path) -> None:
    """With listen and run."""
    with running(tmp_path, block_with("server.run(")) as port:
        assert ask(port) == b"Hello, world!\n"


@pytest.mark.timeout(30)
def test_old_hello(tmp_path: Path) -> None:
    """Bytes for the status, as Python 2 had them."""
    with running(tmp_path, OLD_HELLO) as port:
        with Wire(("127.0.0.1", port)) as wire:
            for _ in range(2):
                response = wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").response()
                assert (response.status, response.reason, response.body) == (200, "OK", b"Hello world!")
                assert (response["Content-type"], response["Content-Length"]) == ("text/plain", "12")


@pytest.mark.timeout(30)
def test_old_continuation(tmp_path: Path) -> None:
    """Through SpawnMiddleware, which every old program has."""
    with running(tmp_path, OLD_CONTINUATION) as port:
        assert ask(port) == b"0"
        assert resume_until_answered(port, "/wait", "/") == b"resumed"


def test_the_echo_of_the_readme(serve: Callable[..., Server]) -> None:
    """A client library gets its messages back."""
    server = serve(programs()["echo.py"])
    with connect(f"ws://127.0.0.1:{server.port}/") as client:
        client.send("hello")
        assert client.recv(5) == "hello"


def test_flask_is_told_what_a_client_that_goes_means(serve: Callable[..., Server]) -> None:
    """No traceback, which the end of the server would find, and no 500."""
    source = f"""
import flask
from meinheld import middleware, server

app = flask.Flask(__name__)

{block_with("errorhandler")}

@app.get("/wait")
def wait():
    flask.request.environ[middleware.CONTINUATION_KEY].suspend(10)

app = middleware.SpawnMiddleware(app)
"""
    server = serve(source, access_log=True)
    with Wire(("127.0.0.1", server.port)) as wire:
        wire.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    server.wait_for('"GET /wait HTTP/1.1" 499 0 ')
    assert "Traceback" not in server.output()
