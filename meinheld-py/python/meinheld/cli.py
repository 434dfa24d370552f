"""The command ``meinheld``: parse, load the application, listen, say so, run.

It owns what a person sees on the terminal. How a request is served belongs to
``meinheld.server``. Whatever keeps the server from starting is one line on
stderr and exit status 2; a traceback appears only when the application itself
raised, and then begins at the application's own frames.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import inspect
import logging
import logging.handlers
import os
import pkgutil
import platform
import re
import socket
import stat
import struct
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

import meinheld
from meinheld import server

DEFAULT_BIND = "127.0.0.1:8000"
UNIX_PATH_BYTES_MAX = 107
BIND_FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd://N"

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


class Refusal(Exception):
    """Why the server cannot start: one line for the terminal."""


class ApplicationError(Refusal):
    """The application raised before it could be served."""

    def __init__(self, line: str, error: BaseException) -> None:
        super().__init__(line)
        self.trace = "".join(
            traceback.format_exception(type(error), error, application_frames(error.__traceback__))
        )


# What --bind can name.


@dataclass(frozen=True)
class Tcp:
    """``HOST:PORT``; an empty host is every IPv4 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Unix:
    """``unix:PATH``."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class Fd:
    """``fd://N``: a listening socket that is already open in this process."""

    number: int

    def __str__(self) -> str:
        return f"fd://{self.number}"


Bind = Tcp | Unix | Fd


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
    access_log: str | None
    log_level: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        app, name = load(options)
        configure_logging(options)
        configure_server(options)
        listen(options.binds)
        print(banner(options, name), file=sys.stderr, flush=True)
        run(app)
    except Refusal as refusal:
        if isinstance(refusal, ApplicationError):
            sys.stderr.write(refusal.trace)
        print(f"meinheld: {one_line(refusal)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(app: Callable[..., Any]) -> None:
    """Serve until a signal asks for a stop; Ctrl-C is as orderly an end as SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):
        server.run(app)


# Parsing.


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
        type=whole_number(0),
        help="the largest request body that is accepted",
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


def parse_bind(text: str) -> Bind:
    """Read one address of ``--bind``."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Unix(text.removeprefix("unix:"))
    if found := re.fullmatch(r"fd://([0-9]{1,9})", text):
        return Fd(int(found[1]))
    found = re.fullmatch(r"(?:\[([^\[\]/]+)\]|([^\[\]:/]*)):([0-9]{1,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; expected {BIND_FORMS}")
    if int(found[3]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} has port {found[3]}; expected 0 to 65535")
    return Tcp(found[1] or found[2], int(found[3]))


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


# Loading the application.


def load(options: Options) -> tuple[Callable[..., Any], str]:
    """Import the application; return it and the name it is known by."""
    enter(options.chdir)
    module = import_module(options.module)
    found, attribute = find_attribute(module, options)
    name = f"{options.module}:{attribute}"
    if options.factory:
        found = call_factory(found, name)
        name += "()"
    check_application(found, name, options.factory)
    return found, name


def enter(directory: str | None) -> None:
    """Go to the directory and import from it before anywhere else."""
    try:
        if directory is not None:
            os.chdir(directory)
        here = os.getcwd()
    except OSError as error:
        raise Refusal(f"cannot go to directory {directory or '.'}: {error.strerror}") from None
    sys.path.insert(0, here)


def import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        # With frames of its own the application did run: what is missing is a
        # module that it imports, and that is its own error.
        if application_frames(error.__traceback__) is None:
            raise Refusal(module_not_found(name, error)) from None
        raise ApplicationError(f"cannot import {name}: {describe(error)}", error) from None
    except BaseException as error:
        raise ApplicationError(f"cannot import {name}: {describe(error)}", error) from None


def module_not_found(name: str, error: ModuleNotFoundError) -> str:
    """Say which part of a dotted name is missing and which name comes nearest."""
    missing = error.name or name
    parent, _, last = missing.rpartition(".")
    if not parent:
        here = os.getcwd()
        hint = did_you_mean(last, module_names([here]))
        return f"no module named {last!r} in {here} or on sys.path{hint}"
    directories = getattr(sys.modules.get(parent), "__path__", None)
    if directories is None:
        return f"{parent!r} is a module, not a package{did_you_mean(last, [last], parent + ':')}"
    hint = did_you_mean(last, module_names(directories), parent + ".")
    return f"no module named {last!r} in package {parent!r}{hint}"


def module_names(directories: Iterable[str]) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(list(directories))]


def find_attribute(module: ModuleType, options: Options) -> tuple[Any, str]:
    """Follow the attribute that is asked for, or try the usual names."""
    usual = ("create_app", "make_app") if options.factory else ("app", "application")
    wanted = (options.attribute,) if options.attribute else usual
    for attribute in wanted:
        found: Any = module
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError:
            continue
        return found, attribute
    names = " or ".join(repr(attribute) for attribute in wanted)
    raise Refusal(f"module {options.module!r} has no {names}{nearest_callable(module, wanted[0])}")


def nearest_callable(module: ModuleType, wanted: str) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]
    prefix = f"{module.__name__}:"
    return did_you_mean(wanted, own, prefix) or (
        f"; its callables are {', '.join(own[:5])}" if own else "; it defines no callable"
    )


def call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise Refusal(f"{name} is {a_kind(factory)}; --factory needs a callable")
    if not accepts(factory, 0):
        raise Refusal(f"{name} cannot be called without arguments, as --factory does")
    try:
        return factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ApplicationError(f"cannot create {name}(): {describe(error)}", error) from None


def check_application(found: Any, name: str, made: bool) -> None:
    if not callable(found):
        raise Refusal(f"{name} is {a_kind(found)}; a WSGI application is a callable")
    if not accepts(found, 2):
        hint = "; is it a --factory?" if not made and accepts(found, 0) else ""
        raise Refusal(f"{name} does not take the two arguments environ, start_response{hint}")


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether the callable takes that many positional arguments, if it says."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def application_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our frames and those of the import system."""
    ours = (application_frames.__code__.co_filename, importlib.import_module.__code__.co_filename)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in ours and not file.startswith("<frozen importlib"):
            return trace
        trace = trace.tb_next
    return None


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


# Listening.


def listen(binds: Sequence[Bind]) -> None:
    """Open every address, or refuse with the reason and the address that has it."""
    addresses = [at for bind in binds if (at := address(bind)) is not None]
    descriptors = [checked_fd(bind) for bind in binds if isinstance(bind, Fd)]
    try:
        server.listen(address=addresses or None, socket_fd=descriptors or None)
    except OSError as error:
        bind = culprit(binds, error)
        raise Refusal(f"cannot listen on {bind}: {reason(bind, error)}") from None


def address(bind: Bind) -> tuple[str, int] | str | None:
    """What ``server.listen`` is to be given; names are resolved here."""
    if isinstance(bind, Tcp):
        return resolve(bind)[1][:2]
    if isinstance(bind, Unix):
        check_path(bind)
        return bind.path
    return None


def resolve(bind: Tcp) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host = bind.host or "0.0.0.0"
    try:
        found = socket.getaddrinfo(host, bind.port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise Refusal(f"cannot listen on {bind}: unknown host {bind.host!r}") from None
    return found[0], (str(found[4][0]), bind.port)


def check_path(bind: Unix) -> None:
    """Nothing may be there already; whatever is, is named and left as it is."""
    if len(os.fsencode(bind.path)) > UNIX_PATH_BYTES_MAX:
        raise Refusal(f"cannot listen on {bind}: the path is over {UNIX_PATH_BYTES_MAX} bytes long")
    try:
        mode = os.lstat(bind.path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a file"
        raise Refusal(f"cannot listen on {bind}: {kind} has that name and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(bind.path) == errno.ECONNREFUSED:
            stale = f"nobody listens on the socket that was left there; rm {bind.path}"
            raise Refusal(f"cannot listen on {bind}: {stale}")
    raise Refusal(f"cannot listen on {bind}: {in_use(bind)}")


def checked_fd(bind: Fd) -> int:
    """The descriptor, if it is a listening socket."""
    try:
        with socket.socket(fileno=os.dup(bind.number)) as inherited:
            listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise Refusal(f"cannot listen on {bind}: descriptor {bind.number} {what}") from None
    if not listening:
        raise Refusal(f"cannot listen on {bind}: the socket {bind.number} is not listening")
    return bind.number


def culprit(binds: Sequence[Bind], error: OSError) -> Bind:
    """The address that failed: the first on which a plain bind fails in the same way."""
    for bind in binds:
        if trial(bind) == error.errno:
            return bind
    return binds[0]


def trial(bind: Bind) -> int | None:
    """The errno that binding alone ends with."""
    at = address(bind)
    if at is None:
        return None
    family = resolve(bind)[0] if isinstance(bind, Tcp) else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(at)
        except OSError as error:
            return error.errno
    if isinstance(bind, Unix):
        os.unlink(bind.path)
    return None


def reason(bind: Bind, error: OSError) -> str:
    """The errno in words that say what to do."""
    if error.errno == errno.EADDRINUSE:
        return in_use(bind)
    if error.errno in (errno.EACCES, errno.EPERM):
        if isinstance(bind, Tcp):
            return "permission denied: low ports are for root; choose 1024 or higher"
        return f"permission denied in {Path(str(address(bind))).parent.absolute()}"
    if error.errno == errno.ENOENT and isinstance(bind, Unix):
        return f"there is no directory {Path(bind.path).parent}"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)


def in_use(bind: Bind) -> str:
    """Name the process that listens there, as far as /proc shows it to us."""
    pids = holders(listening_inodes(bind))
    if os.getpid() in pids:
        return "another --bind already covers it"
    if not pids:
        return "already in use by a process that this user cannot see"
    others = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
    return f"already in use by pid {pids[0]}{others} ({command(pids[0])})"


def listening_inodes(bind: Bind) -> set[str]:
    """The inodes of the sockets that listen where the bind wants to."""
    if isinstance(bind, Unix):
        # Num RefCount Protocol Flags Type St Inode Path; __SO_ACCEPTCON is 0x10000.
        rows = [row for row in proc_rows("unix") if len(row) > 7 and int(row[3], 16) & 0x10000]
        path = os.path.realpath(bind.path)
        return {row[6] for row in rows if os.path.realpath(row[7]) == path}
    if isinstance(bind, Fd):
        return set()
    # sl local_address rem_address st … inode; the state 0A is LISTEN.
    rows = [row for table in ("tcp", "tcp6") for row in proc_rows(table) if row[3] == "0A"]
    family, (host, port) = resolve(bind)
    mine = proc_address(family, host)
    found = set()
    for row in rows:
        theirs, _, their_port = row[1].partition(":")
        same = theirs == mine or not (int(theirs, 16) and int(mine, 16))
        if int(their_port, 16) == port and same:
            found.add(row[9])
    return found


def proc_address(family: socket.AddressFamily, host: str) -> str:
    """An address as /proc/net writes it: 32-bit words in the machine's own order."""
    packed = socket.inet_pton(family, host.partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)


def proc_rows(table: str) -> list[list[str]]:
    try:
        lines = Path("/proc/net", table).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [line.split(maxsplit=7 if table == "unix" else -1) for line in lines[1:]]


def holders(inodes: set[str]) -> list[int]:
    """The processes that have one of the sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return sorted(pid for pid in pids if wanted.intersection(open_files(pid)))


def open_files(pid: int) -> Iterator[str]:
    """The targets of the process's descriptors; nothing if they are not ours to see."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{name}")


def command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return "unknown command"
    return one_line(words.replace("\0", " "))[:80]


# Words.


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


def versions() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{meinheld.__version__} ({python})"


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
