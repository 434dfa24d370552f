"""The server for an ini file of PasteDeploy, which Pyramid's `pserve` reads.

    [server:main]
    use = egg:meinheld#main
    host = 127.0.0.1
    port = 8000

`bind` may stand in place of host and port: addresses as the command has them, several with white space
between them. The settings of `meinheld.server` that are numbers may be given by their names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from meinheld import server
from meinheld.cli.binding import BIND_FORMS, Bind, Tcp, Unix, listen, parse_bind
from meinheld.cli.words import Refusal, did_you_mean, one_line

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["main"]

COUNTS = (
    "accepts_max",
    "backlog",
    "client_body_buffer_size",
    "max_content_length",
    "max_head_bytes",
    "max_header_bytes",
    "max_header_count",
    "max_target_bytes",
    "picoev_max_fd",
)
SECONDS = (
    "body_timeout",
    "graceful_timeout",
    "head_timeout",
    "keepalive",
    "send_timeout",
    "stop_idle_timeout",
)


def main(
    wsgi_app: WSGIApplication,
    global_conf: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: str | int = 8000,
    bind: str = "",
    **settings: str,
) -> None:
    """Serve an application as the section of an ini file says, until it is stopped."""
    try:
        binds = read_binds(host, port, bind)
        for name, value in settings.items():
            set_by_name(name, value)
        listen(binds)
    except Refusal as refusal:
        sys.exit(f"meinheld: {one_line(refusal)}")
    for place in server.addresses():
        shown = str(Unix(place)) if isinstance(place, str) else f"http://{Tcp(*place)}"
        print(f"meinheld serves on {shown}", file=sys.stderr, flush=True)
    server.run(wsgi_app)


def read_binds(host: str, port: str | int, bind: str) -> list[Bind]:
    """Where to listen."""
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise Refusal(f"port = {port} is not a port, a number from 0 to 65535")
    words = bind.split()
    try:
        return [parse_bind(word) for word in words] or [Tcp(host.strip("[]"), number)]
    except Exception:
        raise Refusal(f"bind = {bind} has what is not an address; expected {BIND_FORMS}") from None


def set_by_name(name: str, value: str) -> None:
    """Give the server one setting."""
    if name not in COUNTS and name not in SECONDS:
        raise Refusal(f"unknown setting {name!r}{did_you_mean(name, COUNTS + SECONDS)}")
    try:
        getattr(server, f"set_{name}")(int(value) if name in COUNTS else float(value))
    except ValueError as error:
        reason = str(error) if name in str(error) else "it must be a number"
        raise Refusal(f"{name} = {value}: {reason}") from None
