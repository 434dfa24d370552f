"""A build that does not fit the interpreter refuses to be imported, in one line that names both."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import meinheld

PACKAGE = Path(meinheld.__file__).parent
VERSION = platform.python_version()
MINOR = sys.version_info[1]


def release(minor: int, patch: int) -> bytes:
    """PY_VERSION_HEX of a release, as it lies in memory."""
    return (0x03000000 | minor << 16 | patch << 8 | 0xF0).to_bytes(4, "little")


def copy(directory: Path) -> Path:
    """Copy the package; the path of the native half."""
    shutil.copytree(PACKAGE, directory / "meinheld", ignore=shutil.ignore_patterns("__pycache__"))
    return next((directory / "meinheld").glob("_meinheld*.so"))


def doctor(native: Path, minor: int, patch: int) -> None:
    """Make a native half believe that it was built for another release.

    The function that tells it is `mov eax, PY_VERSION_HEX; ret`.
    """
    code = native.read_bytes()
    told = b"\xb8" + sys.hexversion.to_bytes(4, "little") + b"\xc3"
    assert code.count(told) == 1
    native.write_bytes(code.replace(told, b"\xb8" + release(minor, patch) + b"\xc3"))


def import_from(directory: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(directory)!r})\n{before}\nimport meinheld.server"
    command = [sys.executable, "-c", f"{code}; print(meinheld.__file__)"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 1, ended
    return ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("minor", [MINOR - 1, MINOR + 1])
def test_a_build_for_another_minor_is_refused(tmp_path: Path, minor: int) -> None:
    doctor(copy(tmp_path), minor, 2)
    assert error_of(import_from(tmp_path)) == (
        f"ImportError: meinheld was built for CPython 3.{minor}.2 and does not know the thread state "
        f"of {VERSION}: install a build for this version"
    )


def test_a_build_for_another_patch_release_finds_what_it_must_know(tmp_path: Path) -> None:
    doctor(copy(tmp_path), MINOR, 99)
    ended = import_from(tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert str(tmp_path) in ended.stdout


# An asyncio that keeps its loop where the scan of the thread state does not come by: what a patch release does that
# has moved the slots beyond what can be found.
ELSEWHERE = """
import types
_asyncio = types.ModuleType("_asyncio")
_asyncio._get_running_loop = lambda: None
_asyncio._set_running_loop = lambda loop: None
_asyncio._swap_current_task = lambda loop, task: None
sys.modules["_asyncio"] = _asyncio
"""


@pytest.mark.skipif(MINOR < 13, reason="nothing that moves is exchanged before 3.13")
def test_a_build_for_another_patch_release_that_misses_something_is_refused(tmp_path: Path) -> None:
    doctor(copy(tmp_path), MINOR, 99)
    assert error_of(import_from(tmp_path, ELSEWHERE)) == (
        f"ImportError: meinheld was built for CPython 3.{MINOR}.99 and does not know the thread state "
        f"of {VERSION}: install a build for this version"
    )


def test_a_file_for_another_interpreter_is_named(tmp_path: Path) -> None:
    native = copy(tmp_path)
    native.rename(native.with_name("_meinheld.cpython-39-x86_64-linux-gnu.so"))
    error = error_of(import_from(tmp_path))
    assert error.startswith(
        "ImportError: meinheld was built for cpython-39-x86_64-linux-gnu and does not load in "
        f"CPython {VERSION}: install a build for this version ("
    )


def test_a_free_threaded_interpreter_is_refused(tmp_path: Path) -> None:
    copy(tmp_path)
    pretend = "import sys; sys.abiflags = 't'"
    assert error_of(import_from(tmp_path, pretend)) == (
        f"ImportError: meinheld needs a CPython with the GIL, and this CPython {VERSION} is a "
        "free-threaded build"
    )


# The exchange alone, compiled against headers that say something else than what runs.

SOURCES = Path(__file__).parents[2] / "meinheld-py/src/tstate"

PROGRAM = """
import _asyncio, ctypes, sys
exchange = ctypes.PyDLL({library!r})
find = exchange.meinheld_tstate_find_slots
find.argtypes = [ctypes.py_object, ctypes.py_object]
loop, task = {{"loop": 1}}, {{"task": 1}}
stray = {{"nowhere": 1}}
assert find(stray, stray) == 0, "a mark that is nowhere is not found"
_asyncio._set_running_loop(loop)
if sys.version_info >= (3, 14):
    _asyncio._swap_current_task(loop, task)
    assert find(loop, stray) == 0, "each mark counts"
assert find(loop, task) == 1
assert ctypes.c_size_t.in_dll(exchange, "loop_slot").value == {offset}
"""


@pytest.mark.skipif(MINOR < 13, reason="nothing that moves is exchanged before 3.13")
@pytest.mark.parametrize("moved", [-1, 0, 2])
def test_slots_that_a_patch_release_moved_are_found_or_missed(tmp_path: Path, moved: int) -> None:
    include = sysconfig.get_path("include")
    offset = compile_probe(tmp_path, include)
    # What the headers say is off by `moved` words: they are those of another patch release.
    slot = "offsetof(_PyThreadStateImpl, asyncio_running_loop)"
    for file in SOURCES.glob("*.[ch]"):
        text = file.read_text().replace("static size_t loop_slot", "size_t loop_slot")
        (tmp_path / file.name).write_text(text.replace(slot, f"{slot} + {moved} * 8"))
    assert any(slot in file.read_text() for file in tmp_path.glob("*.h")), "there is a slot to move"
    library = build(tmp_path, "state.c", include)
    program = PROGRAM.format(library=str(library), offset=offset)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.skipif(MINOR < 14, reason="CPython keeps no limits of the C stack before 3.14")
@pytest.mark.parametrize("moved", [-2, -1, 0, 1, 2])
def test_limits_of_the_c_stack_that_a_patch_release_moved_are_noticed(tmp_path: Path, moved: int) -> None:
    for file in SOURCES.glob("*.[ch]"):
        text = file.read_text()
        for limit in ("c_stack_top", "c_stack_soft_limit", "c_stack_hard_limit"):
            text = text.replace(f"whole->{limit}", f"(&whole->{limit})[{moved}]")
        (tmp_path / file.name).write_text(text)
    exchange = ctypes.PyDLL(str(build(tmp_path, "state.c", sysconfig.get_path("include"))))
    assert exchange.meinheld_tstate_c_stack_is_known() == (moved == 0)


def build(directory: Path, name: str, include: str) -> Path:
    library = directory / (name + ".so")
    folders = [f"-I{include}{part}" for part in ("", "/internal", "/internal/mimalloc")]
    command = ["cc", "-shared", "-fPIC", "-O1", "-w", *folders, "-o", str(library), name]
    subprocess.run(command, check=True, cwd=directory, timeout=50)
    return library


def compile_probe(directory: Path, include: str) -> int:
    """The offset of the loop's slot, by the headers that are there."""
    (directory / "probe.c").write_text(
        "#define Py_BUILD_CORE 1\n#include <Python.h>\n#include <stddef.h>\n"
        "#include \"internal/pycore_tstate.h\"\n"
        "size_t probe(void) { return offsetof(_PyThreadStateImpl, asyncio_running_loop); }\n"
    )
    probe = ctypes.CDLL(str(build(directory, "probe.c", include))).probe
    probe.restype = ctypes.c_size_t
    return int(probe())
