"""Whose lines of the access log the server may write itself: those that `logging` would only pass on.

The server makes a line anyway. Where the logger's one handler would write it as it is to a file, to
standard output or to standard error, and nothing of `logging` was replaced or subclassed, the server
writes the lines of a turn at once, to the same descriptor. Here it is decided whether that is so, when
the server begins to run and each second; and what has to stay as it is for that, at which the server
looks whenever it writes. Writing itself is native, and belongs to the access log.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

#: The format of `meinheld.mlogging`, which is that of the server's own lines.
COMBINED = '%(h)s %(l)s %(u)s [%(t)s] "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

#: Encodings in which a line, which is ASCII, is the same bytes.
ENCODINGS = frozenset({"ascii", "utf-8", "iso8859-1", "cp1252"})

LOGGER_METHODS = ("info", "isEnabledFor", "_log", "makeRecord", "handle", "filter", "callHandlers")
HANDLER_METHODS = ("handle", "filter", "format", "acquire", "emit", "flush")
FORMATTER_METHODS = ("format", "formatMessage", "usesTime")


class Target(NamedTuple):
    """Where the server writes, and what has to stay as it is."""

    #: What logs a line if it did not.
    info: Callable[..., None]
    flush: Callable[[], None]
    fileno: Callable[[], int]
    #: What opens the file anew if another one is at the path, and the path.
    reopen: Callable[[], None] | None
    path: str | None
    #: Objects, their attributes, and the values of those; for an attribute of the object alone, its
    #: dictionary, which is quicker to look into.
    watched: list[tuple[object, str, object]]


def target_of_hook(access: object) -> Target | None:
    """The target of what was given to `set_access_logger`, if it is the one of `meinheld.mlogging`."""
    mlogging = sys.modules.get("meinheld.mlogging")
    logger: Any = getattr(access, "__self__", None)
    if mlogging is None or type(logger) is not mlogging.Logger:
        return None
    if not are_stock(mlogging, mlogging.Logger, ("access", "atoms")) or "atoms" in vars(logger):
        return None
    if getattr(access, "__func__", None) is not mlogging.Logger.access:
        return None
    target = target_of(logger.access_log)
    if target is None or logger.access_log_format != COMBINED:
        return None
    target.watched.append((logger, "access_log_format", COMBINED))
    watch(target.watched, logger, "access_log")
    return target


def target_of(logger: Any) -> Target | None:
    """The target of a logger, or None if its lines have to go through `logging`."""
    watched: list[tuple[object, str, object]] = []
    handlers = handlers_of(logger, watched)
    if handlers is None or len(handlers) != 1 or not logger.isEnabledFor(logging.INFO):
        return None
    handler: Any = handlers[0]
    if not is_plain(handler):
        return None
    watch(watched, handler, "stream", "formatter", "filters", "level")
    watches_file = type(handler).__name__ == "WatchedFileHandler"
    reopen = partial(reopen_file, handler) if watches_file else None
    path = handler.baseFilename if watches_file else None
    return Target(logger.info, handler.stream.flush, handler.stream.fileno, reopen, path, watched)


def reopen_file(handler: Any) -> None:
    """Have a handler open its file anew; an OSError leaves it as it is.

    `reopenIfNeeded` alone closes the file that it has, before it finds that there can be no other.
    """
    os.close(os.open(handler.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))
    handler.reopenIfNeeded()


def handlers_of(logger: Any, watched: list[tuple[object, str, object]]) -> list[Any] | None:
    """All handlers that a record of the logger gets to; None if it has ways of its own."""
    if logging.getLogRecordFactory() is not logging.LogRecord or logger.disabled or logger.filters:
        return None
    watch(watched, logger, "disabled", "filters")
    watch(watched, logger.manager, "_disable")
    handlers: list[Any] = []
    one = logger
    while one is not None:
        if type(one) not in (logging.Logger, logging.RootLogger):
            return None
        if not are_stock(logging, type(one), LOGGER_METHODS) or has_own(one, LOGGER_METHODS):
            return None
        handlers.extend(one.handlers)
        watch(watched, one, "handlers", "level", "propagate", "parent")
        one = one.parent if one.propagate else None
    return handlers


def watch(watched: list[tuple[object, str, object]], owner: object, *names: str) -> None:
    """Note what some attributes are now."""
    own = vars(owner)
    for name in names:
        value = own[name]
        watched.append((own, name, list(value) if isinstance(value, list) else value))


def is_plain(handler: Any) -> bool:
    """Whether it would write a line as it is, and a line end."""
    kind = type(handler)
    handlers = sys.modules.get("logging.handlers")
    if kind is logging.StreamHandler:
        known = handler.stream in (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
        stock = known and are_stock(logging, kind, HANDLER_METHODS)
    elif kind is logging.FileHandler:
        stock = are_stock(logging, kind, (*HANDLER_METHODS, "_open"))
    elif handlers is not None and kind is handlers.WatchedFileHandler:
        stock = are_stock(handlers, kind, ("emit", "reopenIfNeeded", "_statstream")) and are_stock(
            logging, kind, ("handle", "filter", "format", "acquire", "flush", "_open")
        )
    else:
        return False
    return (
        stock
        and not has_own(handler, HANDLER_METHODS)
        and not handler.filters
        and handler.level <= logging.INFO
        and handler.terminator == "\n"
        and is_as_it_is(handler.formatter)
        and is_file(handler.stream)
    )


def is_as_it_is(formatter: Any) -> bool:
    """Whether it formats a record as its message."""
    return formatter is None or (
        type(formatter) is logging.Formatter
        and type(formatter._style) is logging.PercentStyle
        and formatter._fmt == formatter._style._fmt == "%(message)s"
        and are_stock(logging, logging.Formatter, FORMATTER_METHODS)
        and not has_own(formatter, FORMATTER_METHODS)
    )


def is_file(stream: Any) -> bool:
    """Whether it is text of a known encoding on an open file, with nothing in between."""
    if type(stream) is not io.TextIOWrapper or stream.closed:
        return False
    buffer: Any = stream.buffer
    raw = buffer.raw if type(buffer) is io.BufferedWriter else buffer
    return type(raw) is io.FileIO and codecs.lookup(stream.encoding).name in ENCODINGS


def are_stock(module: object, kind: type, names: tuple[str, ...]) -> bool:
    """Whether these methods are the module's own, and nobody has put others in their place."""
    own = vars(module)
    return all(getattr(getattr(kind, name), "__globals__", None) is own for name in names)


def has_own(instance: object, names: tuple[str, ...]) -> bool:
    """Whether an object has any of these methods for itself alone."""
    return not vars(instance).keys().isdisjoint(names)
