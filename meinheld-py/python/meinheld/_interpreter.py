"""Loads the native half, or says in one line why this interpreter cannot.

It is imported before everything else of the package, and imports little itself: each program waits for
that. What the native half checks itself, the layout of the thread state, belongs to that.
"""

from __future__ import annotations

import importlib
import sys


def load() -> None:
    """Import the native half.

    Raises ImportError on a free-threaded interpreter, and on another one than it was built for.
    """
    running = f"CPython {sys.version.split()[0]}"
    if "t" in sys.abiflags:
        raise ImportError(
            f"meinheld needs a CPython with the GIL, and this {running} is a free-threaded build"
        )
    try:
        importlib.import_module("meinheld._meinheld")
    except ImportError as error:
        built = _built_for()
        if "was built for" in str(error) or not built:
            raise
        raise ImportError(
            f"meinheld was built for {built} and does not load in {running}: "
            f"install a build for this version ({error})"
        ) from error


def _built_for() -> str:
    """The tags of the native halves that lie here, such as cpython-313-x86_64-linux-gnu."""
    from pathlib import Path

    files = sorted(Path(__file__).parent.glob("_meinheld*.so"))
    tags = (file.name.removesuffix(".so").partition(".")[2] for file in files)
    return ", ".join(tag or "another interpreter" for tag in tags)


load()
