"""The command line: its flags, and what they mean once they are checked."""

from __future__ import annotations

import argparse
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import meinheld
from meinheld.cli.binding import Bind, Tcp, parse_bind
from meinheld.cli.words import Refusal, did_you_mean

DEFAULT_BIND = "127.0.0.1:8000"

EPILOG = """\
addresses of --bind:
  127.0.0.1:8000   a host name or IPv4 address and a port; port 0 takes a free one
  [::1]:8000       an IPv6 address and a port
  :8000            every IPv4 address of this machine
  unix:PATH        a Unix domain socket
  fd://3           a listening socket inherited from the process that starts this one

examples:
  meinheld chat:app
  meinheld shop.web:create_app --factory --bind :8080 --access-log -
  python -m meinheld wsgi --bind unix:/run/shop.sock --chdir /srv/shop

exit status: 0 after a stop by SIGTERM or Ctrl-C, 2 if the server could not start,
130 if Ctrl-C came before it listened.
"""


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    module: str
    attribute: str | None
    factory: bool
    chdir: str | None
    binds: tuple[Bind, ...]
    backlog: int | None
    keep_alive: int | None
    graceful_timeout: int
    client_max_body: int | None
    stack_size: int | None
    access_log: str | None
    log_level: str


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message} (see meinheld --help)")


def parse(argv: Sequence[str]) -> Options:
    """Turn the words of the command line into options, or refuse the first bad one."""
    known, unknown = build_parser().parse_known_args(argv)
    if unknown:
        raise Refusal(f"unknown argument {unknown[0]!r}{nearest_flag(unknown[0])}")
    if known.app is None:
        raise Refusal(missing_app(known.access_log))
    if not known.app[0]:
        raise Refusal("APP is MODULE:ATTRIBUTE, for example chat:app; the module is missing")
    binds = tuple(known.bind or [parse_bind(DEFAULT_BIND)])
    for bind in binds:
        if binds.count(bind) > 1 and not (isinstance(bind, Tcp) and bind.port == 0):
            raise Refusal(f"--bind {bind} is given twice")
    module, attribute = known.app
    return Options(
        module=module,
        attribute=attribute,
        factory=known.factory,
        chdir=known.chdir,
        binds=binds,
        backlog=known.backlog,
        keep_alive=known.keep_alive,
        graceful_timeout=known.graceful_timeout,
        client_max_body=known.client_max_body,
        stack_size=known.stack_size,
        access_log=known.access_log,
        log_level=known.log_level,
    )


def build_parser() -> Parser:
    """Everything the command understands; the help text is the reference."""
    parser = Parser(
        prog="meinheld",
        usage="meinheld MODULE[:ATTRIBUTE] [options]",
        description="Serve a WSGI application over HTTP/1.1.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"meinheld {versions()}")
    add_application(parser.add_argument_group("application"))
    add_network(parser.add_argument_group("network"))
    add_logging(parser.add_argument_group("logging"))
    return parser


def add_application(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "app",
        metavar="MODULE[:ATTRIBUTE]",
        nargs="?",
        type=parse_app,
        help="the module to import and the WSGI callable in it; without an attribute, "
        "app and then application are tried",
    )
    group.add_argument(
        "--factory",
        action="store_true",
        help="call the attribute, with no argument, to get the application; without an "
        "attribute, create_app and then make_app are tried",
    )
    group.add_argument(
        "--chdir", metavar="DIR", help="go to DIR first; modules are imported from there"
    )


def add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bind",
        metavar="ADDRESS",
        action="append",
        type=parse_bind,
        help=f"where to listen; may be given several times (default: {DEFAULT_BIND})",
    )
    group.add_argument(
        "--backlog",
        metavar="N",
        type=whole_number(1),
        help="connections the kernel may hold before they are accepted",
    )
    group.add_argument(
        "--keep-alive",
        metavar="SECONDS",
        type=whole_number(0),
        help="how long an idle connection is kept open; 0 closes after each response",
    )
    group.add_argument(
        "--graceful-timeout",
        metavar="SECONDS",
        type=whole_number(0),
        default=30,
        help="how long requests in flight may take to end after SIGTERM (default: 30)",
    )
    group.add_argument(
        "--client-max-body",
        metavar="BYTES",
        type=whole_number(1),
        help="the largest request body that is accepted",
    )
    group.add_argument(
        "--stack-size",
        metavar="BYTES",
        type=whole_number(256 * 1024),
        help="the stack of each request, for code that recurses deep in C",
    )


def add_logging(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--access-log",
        metavar="FILE",
        nargs="?",
        const="-",
        help="write a line for each request to FILE; - or nothing is stderr (default: off)",
    )
    group.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error", "critical"],
        default="info",
        help="the least severe message of the server that is written to stderr (default: info)",
    )


def parse_app(text: str) -> tuple[str, str | None]:
    """Split ``MODULE[:ATTRIBUTE]``; a file name is the usual mistake."""
    module, colon, attribute = text.partition(":")
    parts = module.split(".")
    if "/" in module or (len(parts) > 1 and parts[-1] == "py"):
        stem = Path(module.removesuffix(".py")).name
        raise argparse.ArgumentTypeError(
            f"{text!r} names a file; a module is expected: {stem}:{attribute or 'app'}, "
            "with --chdir if it is in another directory"
        )
    if not all(parts) or (colon and not all(attribute.split("."))):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE or MODULE:ATTRIBUTE")
    return module, attribute or None


def whole_number(least: int) -> Callable[[str], int]:
    """A reader of integers that are not below ``least``."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is given; expected a whole number, {least} or more"
            )
        return int(text)

    return read


def nearest_flag(word: str) -> str:
    flags = [flag for action in build_parser()._actions for flag in action.option_strings]
    return did_you_mean(word.partition("=")[0], flags) or " (see meinheld --help)"


def missing_app(access_log: str | None) -> str:
    if access_log not in (None, "-"):
        return (
            f"no application is given: {access_log!r} was taken as the FILE of --access-log; "
            f"write --access-log - {access_log} to log to stderr"
        )
    return "no application is given: name one as MODULE:ATTRIBUTE, for example chat:app"


def versions() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{meinheld.__version__} ({python})"
