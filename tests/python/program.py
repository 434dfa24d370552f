"""Programs that run a server of their own: a test gives the source, and gets what it has noted.

The source spawns what it likes and calls `serve(main)`: `main` runs in a coroutine, and the server stops
when it returns. `ask(path)` sends the server a request from a thread and returns a task to join;
`on_a_thread(call)` waits for any other call.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

#: The class of what Rust code panics with. One that is raised where the server calls Python makes the
#: panic go on there, which is how a test has one wherever it wants.
PANIC = """
from meinheld import server

try:
    server.set_keepalive("no number")
except TypeError:
    pass
Panic = next(kind for kind in BaseException.__subclasses__() if kind.__name__ == "PanicException")
"""

PREAMBLE = """\
import http.client, json, os, socket, sys, threading, time
from meinheld import server
from meinheld.middleware import CLIENT_KEY, CONTINUATION_KEY, ContinuationMiddleware

notes = []


def kind(call, *args, **kwargs):
    '''The class and the text of what a call raises.'''
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def handle(environ):
    return "nothing"


def app(environ, start_response):
    answer = str(handle(environ)).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer]


def on_a_thread(call, *args):
    '''What a call returns that is made on another thread, waited for in a coroutine.'''
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call(*args)))
    thread.start()
    while thread.is_alive():
        server.sleep(0.002)
    return answers[0]


def ask(path="/"):
    def request():
        client = http.client.HTTPConnection("127.0.0.1", server.addresses()[0][1], timeout=10)
        client.request("GET", path)
        return client.getresponse().read().decode()
    return server.spawn(on_a_thread, (kind, request))


def serve(main, app=app):
    def stopping():
        try:
            main()
        finally:
            server.stop()
    server.listen(("127.0.0.1", 0))
    handle = server.spawn(stopping)
    server.run(ContinuationMiddleware(app))
    if handle.exception is not None:
        raise handle.exception


"""

EPILOGUE = "\nprint(json.dumps(notes))\n"


@dataclass
class Ended:
    """A program that has ended well."""

    notes: list
    #: What it wrote to stderr: the log, since nothing sets up logging.
    log: str


def run_program(directory: Path, source: str, seconds: float = 30, status: int = 0) -> Ended:
    """Run a program to its end."""
    file = directory / "program.py"
    file.write_text(PREAMBLE + textwrap.dedent(source) + EPILOGUE)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    notes = json.loads(done.stdout.splitlines()[-1]) if status == 0 else []
    return Ended(notes, done.stderr)
