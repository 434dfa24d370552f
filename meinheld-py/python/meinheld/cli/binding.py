"""Where to listen: what --bind can name, and why an address cannot be had.

Listening itself is the server's; when it fails this finds out which address it was, and who has it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meinheld import server
from meinheld.cli.words import Refusal, one_line

UNIX_PATH_BYTES_MAX = 107
BIND_FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd://N"


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


def listen(binds: Sequence[Bind]) -> None:
    """Open every address, or refuse with the reason and the address that has it."""
    addresses = [at for bind in binds if (at := address(bind)) is not None]
    descriptors = [checked_fd(bind) for bind in binds if isinstance(bind, Fd)]
    try:
        server.listen(address=addresses or None, socket_fd=descriptors or None)
    except OSError as error:
        raise Refusal(explain(binds, error)) from None


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
    """Nothing may be there already but a socket that nobody listens on, which is replaced."""
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
        # The queue of a busy server may be full: that is an answer too.
        probe.setblocking(False)
        if probe.connect_ex(bind.path) == errno.ECONNREFUSED:
            return
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


def explain(binds: Sequence[Bind], error: OSError) -> str:
    """Which address failed, the first on which plain listening fails in the same way, and why.

    Those before it are held meanwhile: one may be in the way of another.
    """
    with contextlib.ExitStack() as held:
        for bind in binds:
            if trial(bind, held) == error.errno:
                return f"cannot listen on {bind}: {reason(bind, error)}"
    return f"cannot listen on {binds[0]}: {reason(binds[0], error)}"


def trial(bind: Bind, held: contextlib.ExitStack) -> int | None:
    """The errno that listening alone ends with; the socket is held."""
    at = address(bind)
    if at is None:
        return None
    family = resolve(bind)[0] if isinstance(bind, Tcp) else socket.AF_UNIX
    probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        probe.bind(at)
        probe.listen(0)
    except OSError as error:
        return error.errno
    if isinstance(bind, Unix):
        held.callback(os.unlink, bind.path)
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
    return one_line(words.replace("\0", " "))[:80].rstrip()
