"""A request that forks: the child's end is its own, whatever it does, and the parent serves on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wire import Client, get

FORKING = """
import os, sys
from meinheld import middleware

def app(environ, start_response):
    how = environ["PATH_INFO"].strip("/")
    if how:
        pid = os.fork()
        if pid == 0:
            if how == "exit":
                sys.exit(3)
            if how == "raise":
                raise ValueError("in the child")
            if how == "return":
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"child"]
            environ["meinheld.continuation"].suspend()
        status = os.waitpid(pid, 0)[1]
        body = str(os.waitstatus_to_exitcode(status))
    else:
        body = "here"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]

app = middleware.SpawnMiddleware(app)
"""


@pytest.mark.parametrize(
    ("how", "status"), [("exit", "3"), ("raise", "1"), ("return", "0"), ("suspend", "1")]
)
def test_a_forked_child_that_comes_back_ends_alone(
    serve: Callable, how: str, status: str
) -> None:
    server = serve(FORKING)
    server.expects_traceback = True
    with Client(server.port) as client:
        assert client.send(f"/{how}").response().text == status
        # The connection is in step, and new ones are taken.
        assert client.send("/").response().text == "here"
    assert get(server.port, "/").text == "here"
