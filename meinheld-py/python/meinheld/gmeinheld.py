"""The worker for gunicorn: `gunicorn -k egg:meinheld#gunicorn_worker`.

It owns what gunicorn asks of a worker process: its settings, its signals, its sign of life, its end.
What the settings mean for a single request belongs to `meinheld.gateway`. gunicorn's own classes are
used and inherited from, and never changed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker

from meinheld import _meinheld, server
from meinheld.gateway import Gateway

__all__ = ["MeinheldWorker"]

# What gunicorn's own limits allow at the most, where a setting says that there is none.
REQUEST_LINE_BYTES_MAX = 8190
HEADER_BYTES_DEFAULT = 8190

# What a request line has beside its target: the method GET, two spaces and the version.
BESIDE_TARGET_BYTES = len("GET  HTTP/1.1")

HEADERS_MAX = 128
HEAD_BYTES_MAX = 1 << 20

# How long a worker that retires waits on idle connections, whose next request may be on its way.
IDLE_SECONDS = 1.0

# How much earlier than the arbiter, which kills, a worker ends what is left when the time is over.
ENDING_SECONDS = 0.5

IGNORED = (
    "permit_obsolete_folding",
    "strip_header_spaces",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "casefold_http_method",
)


class MeinheldWorker(Worker):  # type: ignore[misc]
    """A worker process that serves with meinheld: every request in a coroutine of its own."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse what cannot be served, before any worker starts; warn of what has no effect."""
        for refusal in refusals(cfg):
            raise RuntimeError(refusal)
        for warning in warnings(cfg):
            log.warning("%s", warning)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a worker that has not been forked yet."""
        super().__init__(*args, **kwargs)
        self.retiring = False

    def init_process(self) -> None:
        """Begin, in the process of the worker."""
        # Settings may have been changed since the arbiter started, by a reload.
        for refusal in refusals(self.cfg):
            raise RuntimeError(refusal)
        super().init_process()

    def run(self) -> None:
        """Serve until told to end."""
        configure(self.cfg)
        server.set_listen_socket([socket.fileno() for socket in self.sockets])
        forward_messages(self.log)
        gateway = Gateway(self)
        server.set_access_logger(gateway if gateway.watched else None)
        server.set_watchdog(self.watchdog, beat_seconds(self.cfg.timeout))
        self.notify()
        if self.alive:
            server.run(gateway, silent=True)

    def watchdog(self) -> None:
        """Show the arbiter that the loop turns, and look whether it is time to end."""
        self.notify()
        if self.ppid != os.getppid():
            if not self.retiring:
                self.log.info("Parent changed, shutting down: %s", self)
            self.retire()
        elif not self.alive and not self.retiring:
            # The reloader's thread says so. Whoever develops does not wait for suspended requests.
            self.retiring = True
            _meinheld.interrupt(grace_seconds(self.cfg))

    def count_request(self) -> None:
        """Count a request, and end after the last one that this worker is to serve."""
        self.nr += 1
        if self.nr >= self.max_requests and not self.retiring:
            self.log.info("Autorestarting worker after current request.")
            self.retire()

    def retire(self) -> None:
        """Accept no more, let requests end within the graceful time-out, and end.

        The arbiter asks again and again; the time counts from the first.
        """
        self.alive = False
        if not self.retiring:
            self.retiring = True
            _meinheld.terminate(grace_seconds(self.cfg))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: end gracefully."""
        self.retire()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT and SIGINT: end at once. The request that runs now, if one does, is left."""
        self.alive = False
        self.retiring = True
        _meinheld.interrupt(0.0)
        self.cfg.worker_int(self)
        sys.exit(0)


def refusals(cfg: Any) -> Iterator[str]:
    """Say what the settings ask for that this worker does not have."""
    if cfg.is_ssl:
        yield (
            "the meinheld worker does not speak TLS: take certfile and keyfile out, and let a proxy "
            "in front of gunicorn end it"
        )
    if cfg.proxy_protocol not in (False, None, "off"):
        yield (
            "the meinheld worker does not speak the PROXY protocol: take proxy_protocol out, and "
            "have the proxy send X-Forwarded-For"
        )
    if cfg.protocol != "http":
        yield f"the meinheld worker speaks HTTP only: take protocol = {cfg.protocol!r} out"
    if getattr(cfg, "http2_cleartext", "off") != "off":
        yield "the meinheld worker does not speak HTTP/2: take http2_cleartext out"


def warnings(cfg: Any) -> Iterator[str]:
    """Say what the settings ask for that has no effect."""
    for name in IGNORED:
        if getattr(cfg, name, False):
            yield f"{name} has no effect on the meinheld worker, which does not relax HTTP"
    if cfg.limit_request_fields > HEADERS_MAX:
        yield (
            f"limit_request_fields is {cfg.limit_request_fields}; "
            f"the meinheld worker takes {HEADERS_MAX} at the most"
        )


def configure(cfg: Any) -> None:
    """Give the server gunicorn's settings."""
    server.set_keepalive(cfg.keepalive)
    if cfg.worker_connections > 0:
        server.set_picoev_max_fd(cfg.worker_connections)
    if cfg.workers > 1:
        # What one worker leaves is another's.
        server.set_accepts_max(1)
    server.set_stop_idle_timeout(min(IDLE_SECONDS, grace_seconds(cfg) / 2))
    header_map = getattr(cfg, "header_map", "drop")
    server.set_underscore_headers("refuse" if header_map == "refuse" else header_map == "dangerous")
    configure_limits(cfg)


def configure_limits(cfg: Any) -> None:
    """Give the server gunicorn's limits on heads."""
    line = cfg.limit_request_line
    if not 0 < line <= REQUEST_LINE_BYTES_MAX:
        line = REQUEST_LINE_BYTES_MAX
    fields = cfg.limit_request_fields
    if not 0 < fields <= HEADERS_MAX:
        fields = HEADERS_MAX
    # gunicorn counts the whole line: with the colon, one space and the end.
    header = (cfg.limit_request_field_size or HEADER_BYTES_DEFAULT) - len(": \r\n")
    header = min(max(header, 1), HEAD_BYTES_MAX)
    server.set_max_target_bytes(max(line - BESIDE_TARGET_BYTES, 1))
    server.set_max_header_count(fields)
    server.set_max_header_bytes(header)
    server.set_max_head_bytes(min(line + 4 + fields * (header + 4), HEAD_BYTES_MAX))


def beat_seconds(timeout: float) -> float:
    """How often to show a sign of life; `timeout` is half the time that the arbiter waits for it."""
    return min(1.0, timeout / 2) if timeout > 0 else 1.0


def grace_seconds(cfg: Any) -> float:
    """How long requests may take to end."""
    seconds = float(cfg.graceful_timeout)
    return max(seconds - ENDING_SECONDS, seconds / 2)


class Forward(logging.Handler):
    """Hands the server's messages to gunicorn's logger, of whatever class that is."""

    def __init__(self, log: Any) -> None:
        """Hand them to `log`."""
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one on."""
        if record.exc_info:
            self.log.exception("%s", record.getMessage(), exc_info=record.exc_info)
        else:
            self.log.log(record.levelno, "%s", record.getMessage())


def forward_messages(log: Any) -> None:
    """Have the server's messages go where gunicorn's go."""
    messages = logging.getLogger("meinheld.error")
    messages.handlers[:] = [Forward(log)]
    messages.propagate = False
    messages.disabled = False
    # What gunicorn would drop need not be made.
    target = getattr(log, "error_log", None)
    is_dropped = isinstance(target, logging.Logger) and not target.isEnabledFor(logging.DEBUG)
    messages.setLevel(logging.INFO if is_dropped else logging.DEBUG)
