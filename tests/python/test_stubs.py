"""The types that are told to type checkers are those of the built module, and come with the wheel."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

USER = '''
from collections.abc import Iterable
from typing import TYPE_CHECKING

from meinheld import middleware, server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    c = environ[middleware.CONTINUATION_KEY]
    try:
        c.suspend(1.5)
    except server.timeout as error:
        print(error.errno)
    except server.ClientDisconnected:
        raise
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


server.set_keepalive(10)
server.set_keepalive(2.5)
limit: int = server.get_max_content_length()
server.listen(("0.0.0.0", 8000))
server.listen([("::", 0), "/run/a.sock", b"/run/b.sock"])
server.listen(socket_fd=[3, 4])
server.run(middleware.SpawnMiddleware(app))
server.stop(2)
'''

WRONG = """
from meinheld import server

server.listen(8000)
server.set_keepalive("5")
limit: str = server.get_backlog()
server.run(5)
server.no_such_function()
"""


def mypy(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mypy on the installed package, far from the sources."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(180)
def test_stub_is_what_the_module_has(tmp_path: Path) -> None:
    """Every name, every signature, every base."""
    done = mypy(tmp_path, "mypy.stubtest", "meinheld._meinheld")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_user_program_passes_the_strict_checker(tmp_path: Path) -> None:
    """As a user would write it."""
    (tmp_path / "user.py").write_text(USER)
    done = mypy(tmp_path, "mypy", "--strict", "user.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_wrong_program_does_not_pass(tmp_path: Path) -> None:
    """The types are there, and not all Any."""
    (tmp_path / "wrong.py").write_text(WRONG)
    done = mypy(tmp_path, "mypy", "--strict", "wrong.py")
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert [int(line.split(":")[1]) for line in errors] == [4, 5, 6, 7, 8], done.stdout


def test_wheel_ships_its_types() -> None:
    """py.typed and the stub are among the installed files."""
    files = {str(file) for file in metadata.files("meinheld") or []}
    assert {"meinheld/py.typed", "meinheld/_meinheld.pyi", "meinheld/server.py"} <= files
