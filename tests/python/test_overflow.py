"""A stack that overflows in C ends the process by SIGSEGV, after a line that says which request's, and what to raise."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from meinheld import server

# C code that recurses, as a library may; CPython cannot count that.
LIBRARY = """
int down(int levels)
{
    volatile char frame[512];
    frame[0] = 1;
    return levels == 0 ? 0 : down(levels - 1) + frame[0];
}
"""

PROGRAM = '''
import ctypes, http.client, sys, threading
{before}
from meinheld import server

down = ctypes.PyDLL({library!r}).down

def app(environ, start_response):
    {within}
    down({depth})
    start_response("200 OK", [])
    return [b"went down"]

def ask():
    connection = http.client.HTTPConnection("127.0.0.1", server.addresses()[0][1], timeout=30)
    connection.request("GET", "/deep?n=1")
    try:
        print(connection.getresponse().read().decode())
    except (http.client.HTTPException, OSError):
        pass
    server.stop(1)

server.set_stack_size({size})
server.listen(("127.0.0.1", 0))
threading.Thread(target=ask, daemon=True).start()
server.run(app)
'''


def run(
    directory: Path, before: str, depth: int, size: int, within: str = "pass", flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    program = directory / "program.py"
    (directory / "deep.c").write_text(LIBRARY)
    library = str(directory / "deep.so")
    command = ["cc", "-shared", "-fPIC", "-O0", "-o", library, str(directory / "deep.c")]
    subprocess.run(command, check=True, timeout=30)
    text = PROGRAM.format(before=before, library=library, depth=depth, size=size, within=within)
    program.write_text(text)
    command = [sys.executable, *flags, str(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


LINE = (
    "meinheld: stack overflow in GET /deep?n=1: its stack of 524288 bytes is used up; raise "
    "meinheld.server.set_stack_size (--stack-size) or recurse less deep\n"
)


def test_an_overflow_is_told_in_one_line_and_ends_the_process_by_its_signal(tmp_path: Path) -> None:
    ended = run(tmp_path, "", 200_000, 512 * 1024)
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr == LINE


@pytest.mark.parametrize(
    ("before", "flags"), [("import faulthandler; faulthandler.enable()", []), ("", ["-X", "faulthandler"])]
)
def test_faulthandler_has_its_turn_afterwards(tmp_path: Path, before: str, flags: list[str]) -> None:
    ended = run(tmp_path, before, 200_000, 512 * 1024, flags=flags)
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr.startswith(LINE + "Fatal Python error: Segmentation fault\n")
    assert "in app\n" in ended.stderr


def test_faulthandler_that_is_enabled_in_a_request_comes_first_and_is_all(tmp_path: Path) -> None:
    """It takes the fault, and then raises the signal itself, which tells no address any more."""
    within = "import faulthandler; faulthandler.enable()"
    ended = run(tmp_path, "", 200_000, 512 * 1024, within)
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr.startswith("Fatal Python error: Segmentation fault\n")
    assert ended.stderr.count("Fatal Python error") == 1 and "in app\n" in ended.stderr
    assert "meinheld: stack overflow" not in ended.stderr


def test_a_larger_stack_is_deeper(tmp_path: Path) -> None:
    ended = run(tmp_path, "", 50_000, 64 * 1024 * 1024)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went down\n", "")


def test_a_signal_that_was_sent_does_what_it_did_before(serve: Callable) -> None:
    running = serve(
        """
        import os, signal
        seen = []
        signal.signal(signal.SIGSEGV, lambda *_: seen.append(1))

        def app(environ, start_response):
            os.kill(os.getpid(), signal.SIGSEGV)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(len(seen)).encode()]
        """
    )
    assert running.get("/") == (200, b"1")
    assert running.get("/again") == (200, b"2")


KILLED = """
import os, signal
from meinheld import server

server.listen(("127.0.0.1", 0))
server.schedule_call(0, os.kill, os.getpid(), signal.SIGSEGV)
server.run(lambda environ, start_response: [])
"""


def test_the_default_action_for_a_signal_that_was_sent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (-signal.SIGSEGV, "")


def test_the_size_of_a_stack_is_checked(tmp_path: Path) -> None:
    before = server.get_stack_size()
    for wrong in (0, 256 * 1024 - 1, (1 << 30) + 1, -1, 1 << 70):
        with pytest.raises(ValueError, match="stack_size is"):
            server.set_stack_size(wrong)
    for wrong in (1e6, "1", None, True):
        with pytest.raises(TypeError, match="stack_size must be an int"):
            server.set_stack_size(wrong)
    assert server.get_stack_size() == before
    server.set_stack_size(1 << 21)
    assert server.get_stack_size() == 1 << 21
    server.set_stack_size(before)
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    for size in ("1", str(1 << 40)):
        command = [sys.executable, "-m", "meinheld", "app", "--stack-size", size]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1 and "--stack-size" in ended.stderr
