"""Programs that serve on their main thread, as a script does, and ask themselves from another one.

The source calls `server.listen`, and `serve(ask_all)`: the server runs until `ask_all` has returned.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

PRELUDE = """
import errno, http.client, os, socket, sys, threading
from wsgiref.validate import validator
from meinheld import server

@validator
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["SERVER_PORT"].encode()]

def ask(address):
    if isinstance(address, tuple):
        client = socket.create_connection(address, 5)
    else:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(address)
    with client:
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        answer = b""
        while data := client.recv(1000):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        return answer.partition(b"\\r\\n\\r\\n")[2].decode()

def serve(ask_all):
    failures = []
    def work():
        try:
            ask_all()
        except BaseException as error:
            failures.append(error)
        finally:
            server.stop()
    thread = threading.Thread(target=work)
    thread.start()
    server.run(app)
    thread.join()
    if failures:
        raise failures[0]

def raises(kind, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
"""


def output_of(directory: Path, program: str, pass_fds: Sequence[int] = ()) -> str:
    """What a program writes that ends with status 0, stdout and stderr, run in the directory."""
    (directory / "program.py").write_text(PRELUDE + textwrap.dedent(program))
    command = [sys.executable, "-X", "dev", "program.py"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=30, pass_fds=pass_fds, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(directory: Path, program: str, pass_fds: Sequence[int] = ()) -> None:
    """The same for one that says nothing."""
    assert output_of(directory, program, pass_fds) == ""
