"""Logs on standard error, with one import: a line a request, and the exceptions of applications.

>>> from meinheld import mlogging, server  # doctest: +SKIP

Importing this module gives the server its `logger`, which writes to the loggers `meinheld.access` and
`meinheld.error`. `server.set_access_logger(None)` takes the first back. To change the line, set
`mlogging.logger.access_log_format`; its atoms are those of `Logger.access`. How a request is served,
and when a logger is called, belongs to `meinheld.server`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from traceback import format_exception
from types import TracebackType
from typing import Any, ClassVar

from meinheld import server
from meinheld._direct import COMBINED

__all__ = ["Logger", "SafeAtoms", "logger"]


class SafeAtoms(dict[str, str]):
    """What a format takes its atoms from: text that cannot end its field or its line.

    An atom that is not there is a dash. Names in braces, those of headers, are found whatever their
    case.
    """

    def __init__(self, atoms: Mapping[str, object]) -> None:
        """Keep the atoms, escaped."""
        super().__init__({name: escape(str(value)) for name, value in atoms.items()})

    def __missing__(self, name: str) -> str:
        """Say `-` for an atom that is not there."""
        lower = name.lower()
        return self[lower] if name.startswith("{") and name != lower else "-"


def escape(text: str) -> str:
    """Write quotes, backslashes and whatever is not printable ASCII as escapes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(escape_character, text))


def escape_character(character: str) -> str:
    """One character of it."""
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\x{ord(character):02x}"


class Logger:
    """The loggers of a server: `access(environ)` and `error(type, value, traceback)`."""

    LOG_LEVELS: ClassVar[dict[str, int]] = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }

    error_fmt = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = "%Y-%m-%d %H:%M:%S"

    #: With this one the server may write the lines itself.
    access_log_format = COMBINED
    access_fmt = "%(message)s"

    def __init__(self, cfg: object = None) -> None:
        """Take `meinheld.error` and `meinheld.access`, and set them up."""
        self.error_log = logging.getLogger("meinheld.error")
        self.access_log = logging.getLogger("meinheld.access")
        self.setup(cfg)

    def setup(self, cfg: object) -> None:
        """Have both write to standard error; a subclass may do otherwise, and use `cfg`."""
        self.error_log.setLevel(logging.ERROR)
        self.access_log.setLevel(logging.INFO)
        set_handler(self.error_log, logging.Formatter(self.error_fmt, self.datefmt))
        set_handler(self.access_log, logging.Formatter(self.access_fmt))

    def access(self, environ: dict[str, Any]) -> None:
        """Log a request that has been answered.

        The atoms are `h` the client, `t` the local time, `r` the request line, `s` the status, `b`
        the bytes of the body, `f` the referrer, `a` the user agent, `T` the seconds and `D` the
        milliseconds that it took, `p` the process, `{name}i` a header of the request.
        """
        self.access_log.info("%s", self.access_log_format % SafeAtoms(self.atoms(environ)))

    def atoms(self, environ: dict[str, Any]) -> dict[str, object]:
        """What a line is made of."""
        item = environ.get
        target = item("RAW_URI") or item("PATH_INFO", "-")
        milliseconds = item("REQUEST_TIME", 0)
        return {
            "h": item("REMOTE_ADDR") or "-",
            "l": "-",
            "u": "-",
            "t": item("LOCAL_TIME", "-"),
            "r": f"{item('REQUEST_METHOD', '-')} {target} {item('SERVER_PROTOCOL', '-')}",
            "s": item("STATUS_CODE", "-"),
            "b": item("SEND_BYTES", "-"),
            "f": item("HTTP_REFERER", "-"),
            "a": item("HTTP_USER_AGENT", "-"),
            "T": milliseconds // 1000,
            "D": milliseconds,
            "p": f"<{os.getpid()}>",
            **{
                "{" + key[5:].lower().replace("_", "-") + "}i": value
                for key, value in environ.items()
                if key.startswith("HTTP_")
            },
        }

    def error(
        self, exc: type[BaseException], val: BaseException, tb: TracebackType | None
    ) -> None:
        """Log an exception."""
        self.error_log.error("%s", "".join(format_exception(exc, val, tb)))

    def critical(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log on the error log."""
        self.error_log.critical(msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log on the error log."""
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log on the error log."""
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log on the error log."""
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any) -> None:
        """Log on the error log, with the exception that is being handled."""
        self.error_log.exception(msg, *args)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log on the error log, at a level or the name of one."""
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    def reopen_files(self) -> None:
        """Open the files of the handlers anew, after they have been moved away."""
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler):
                    # A closed handler opens its file at its next record.
                    handler.close()

    def close_on_exec(self) -> None:
        """Keep the files of the handlers from programs that are started; Python does so itself."""
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler) and handler.stream:
                    os.set_inheritable(handler.stream.fileno(), False)


def set_handler(log: logging.Logger, form: logging.Formatter) -> None:
    """Give a logger the handler of this module, in the place of an earlier one."""
    for handler in list(log.handlers):
        if getattr(handler, "_meinheld", False):
            log.removeHandler(handler)
    handler = logging.StreamHandler()
    handler._meinheld = True  # type: ignore[attr-defined]
    handler.setFormatter(form)
    log.addHandler(handler)


logger = Logger()
server.set_access_logger(logger)
server.set_error_logger(logger)
