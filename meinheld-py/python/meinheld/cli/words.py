"""What the terminal is told: refusals of one line, and the words they are made of."""

from __future__ import annotations

import difflib
import importlib
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType


class Refusal(Exception):
    """Why the server cannot start: one line for the terminal."""


class ApplicationError(Refusal):
    """The application raised before it could be served."""

    def __init__(self, line: str, error: BaseException) -> None:
        super().__init__(line)
        self.trace = "".join(
            traceback.format_exception(type(error), error, application_frames(error.__traceback__))
        )


def application_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our frames and those of the import system."""
    ours = (str(Path(__file__).parent), importlib.import_module.__code__.co_filename)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((*ours, "<frozen importlib")):
            return trace
        trace = trace.tb_next
    return None


def did_you_mean(word: str, names: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def a_kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def one_line(text: object) -> str:
    return " ".join(str(text).split())
