"""The command ``meinheld``: parse, load the application, listen, say so, run.

It owns what a person sees on the terminal. How a request is served belongs to
``meinheld.server``. Whatever keeps the server from starting is one line on
stderr and exit status 2; a traceback appears only when the application itself
raised, and then begins at the application's own frames.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from meinheld import server
from meinheld.cli.binding import Tcp, Unix, listen
from meinheld.cli.loading import load
from meinheld.cli.options import Options, parse, versions
from meinheld.cli.words import ApplicationError, Refusal, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        app, name = load(options)
        configure_logging(options)
        configure_server(options)
        listen(options.binds)
        with server.stopping_signals():
            say(banner(options, name))
            server.run(app, silent=True)
    except Refusal as refusal:
        trace = refusal.trace if isinstance(refusal, ApplicationError) else ""
        say(f"{trace}meinheld: {one_line(refusal)}")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


# Logging and limits.


def configure_logging(options: Options) -> None:
    """Write the server's messages to stderr, unless the application took them over."""
    errors = logging.getLogger("meinheld.error")
    errors.disabled = False
    if not errors.handlers:
        form = "%(asctime)s [%(process)d] %(levelname)s %(message)s"
        attach(errors, logging.StreamHandler(), form)
        errors.setLevel(options.log_level.upper())
    access = logging.getLogger("meinheld.access")
    if options.access_log is not None:
        access.disabled = False
        access.setLevel(logging.INFO)
        attach(access, access_handler(options.access_log), "%(message)s")
    elif access.level == logging.NOTSET:
        # Off is off, even if the application opened the root logger for INFO.
        access.setLevel(logging.WARNING)


def access_handler(file: str) -> logging.Handler:
    if file == "-":
        return logging.StreamHandler()
    try:
        # It opens the file anew after a rotation.
        return logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise Refusal(f"cannot write the access log {file}: {error.strerror}") from None


def attach(logger: logging.Logger, handler: logging.Handler, form: str) -> None:
    handler.setFormatter(logging.Formatter(form))
    logger.addHandler(handler)
    logger.propagate = False


def configure_server(options: Options) -> None:
    server.set_graceful_timeout(options.graceful_timeout)
    if options.backlog is not None:
        server.set_backlog(options.backlog)
    if options.keep_alive is not None:
        server.set_keepalive(options.keep_alive)
    if options.client_max_body is not None:
        server.set_max_content_length(options.client_max_body)
    if options.stack_size is not None:
        try:
            server.set_stack_size(options.stack_size)
        except ValueError as error:
            raise Refusal(f"--stack-size: {error}") from None


# What is said.


def say(text: str) -> None:
    """Write it to stderr; all goes on the same if nobody reads that."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def banner(options: Options, name: str) -> str:
    places = "\n".join(f"  {url(place)}" for place in server.addresses())
    return (
        f"meinheld {versions()}, pid {os.getpid()}, serves {name} on\n"
        f"{places}\n"
        "Ctrl-C or SIGTERM stops it; requests in flight then have "
        f"{options.graceful_timeout} s to end."
    )


def url(place: tuple[str, int] | str) -> str:
    if isinstance(place, str):
        return str(Unix(place))
    return f"http://{Tcp(place[0], place[1])}"
