"""A request as gunicorn's settings want it: its environ, the hooks around it, its line in the log.

The worker's application is wrapped in a `Gateway`. What costs time is done only if a setting asks for
it. How workers live and end belongs to `meinheld.gmeinheld`.
"""

from __future__ import annotations

import io
import ipaddress
import os
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gunicorn.glogging import Logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from meinheld.gmeinheld import MeinheldWorker

# How many clients are known to be trusted or not.
CLIENTS_MAX = 1024

# What a client that went before there was an answer is logged as.
NO_ANSWER = "499 Client Closed Request"
NO_ANSWER_CODES = (0, 499)


class Gateway:
    """The application of a worker, as a WSGI application and as the server's access logger."""

    def __init__(self, worker: MeinheldWorker) -> None:
        """Wrap the application that the worker has loaded."""
        cfg = worker.cfg
        self.worker = worker
        self.application: WSGIApplication = worker.wsgi
        self.hooks = Hooks(worker)
        self.schemes = Schemes(cfg)
        self.script_name = os.environ.get("SCRIPT_NAME", "")
        self.constants = {
            "wsgi.errors": Errors(worker.log),
            "wsgi.multiprocess": cfg.workers > 1,
        }
        self.responses: dict[int, Response] = {}

    @property
    def watched(self) -> bool:
        """Whether anything is to be done after a response."""
        return self.hooks.after

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request."""
        environ.update(self.constants)
        if self.hooks.after:
            response = Response(environ, start_response)
            self.responses[id(environ)] = response
            start_response = response.start
        scheme = self.schemes.of(environ)
        if scheme is None:
            return self.refuse_schemes(environ, start_response)
        environ["wsgi.url_scheme"] = scheme
        if self.hooks.before:
            self.hooks.pre_request(self.worker, Request(environ))
        if self.script_name:
            self.strip_script_name(environ)
        self.worker.count_request()
        return self.application(environ, start_response)

    def refuse_schemes(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request whose headers say that it is secure, and that it is not."""
        client = environ["REMOTE_ADDR"]
        self.worker.log.warning(
            "Invalid request from ip=%s: contradictory scheme headers", client
        )
        start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [b"Contradictory scheme headers\n"]

    def strip_script_name(self, environ: WSGIEnvironment) -> None:
        """Split the path where the environment's SCRIPT_NAME ends."""
        path = environ["PATH_INFO"]
        if not path.startswith(self.script_name):
            message = f"the path {path!r} does not start with SCRIPT_NAME {self.script_name!r}"
            raise RuntimeError(message)
        environ["SCRIPT_NAME"] = self.script_name
        environ["PATH_INFO"] = path[len(self.script_name) :]

    def access(self, environ: WSGIEnvironment) -> None:
        """Log a request that has been answered, and call the hook after it."""
        response = self.responses.pop(id(environ), None)
        if response is None:
            return
        took = response.finish(environ)
        request = Request(environ)
        log = self.worker.log
        if self.hooks.logs:
            log.access(response, request, environ, took)
        try:
            self.hooks.post_request(self.worker, request, environ, response)
        except Exception:
            log.exception("Exception in post_request hook")


class Hooks:
    """What the settings have called around each request."""

    def __init__(self, worker: MeinheldWorker) -> None:
        """Look which of them do anything."""
        cfg, log = worker.cfg, worker.log
        self.pre_request = cfg.pre_request
        self.post_request = cfg.post_request
        defaults = {name: type(cfg.settings[name]).default for name in ("pre_request", "post_request")}
        # The default is a message of the level debug.
        self.before = cfg.pre_request is not defaults["pre_request"] or log.loglevel <= 10
        self.logs = type(log).access is not Logger.access or log.access_log_enabled
        self.after = self.logs or cfg.post_request is not defaults["post_request"]


class Schemes:
    """Whether a request came by https to the proxy that passed it on, if that may be believed."""

    def __init__(self, cfg: Any) -> None:
        """Take the proxies and their headers from the settings."""
        self.secure = {
            "HTTP_" + name.upper().replace("-", "_"): value
            for name, value in cfg.secure_scheme_headers.items()
        }
        self.everybody = "*" in cfg.forwarded_allow_ips
        self.networks = [
            ipaddress.ip_network(network)
            for network in cfg.forwarded_allow_ips
            if network != "*"
        ]
        self.clients: dict[str, bool] = {}

    def of(self, environ: WSGIEnvironment) -> str | None:
        """Tell the scheme of a request, or None if its headers contradict each other."""
        said = {
            self.is_secure(environ[name], value)
            for name, value in self.secure.items()
            if name in environ
        }
        if not said or not self.is_trusted(environ["REMOTE_ADDR"]):
            return "http"
        if len(said) > 1:
            return None
        return "https" if True in said else "http"

    @staticmethod
    def is_secure(found: str, secure: str) -> bool:
        """Whether a header has the value that means https, each time that it was sent."""
        return found == secure or all(one == secure for one in found.split(","))

    def is_trusted(self, client: str) -> bool:
        """Whether a client is a proxy of ours. One on a unix socket, which has no address, is."""
        if self.everybody or not client:
            return True
        known = self.clients.get(client)
        if known is None:
            if len(self.clients) >= CLIENTS_MAX:
                self.clients.clear()
            address = ipaddress.ip_address(client.partition("%")[0])
            known = self.clients[client] = any(address in network for network in self.networks)
        return known


class Request:
    """What a hook or a log may ask of a request, by the names of gunicorn's own."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        """Look at the request of an environ."""
        item = environ.get
        self.environ = environ
        self.method: str = item("REQUEST_METHOD", "")
        self.uri: str = item("RAW_URI", "")
        self.path = self.uri.partition("?")[0]
        self.query: str = item("QUERY_STRING", "")
        self.fragment = ""
        self.scheme: str = item("wsgi.url_scheme", "http")
        self.version = (1, 0) if item("SERVER_PROTOCOL") == "HTTP/1.0" else (1, 1)
        self.peer_addr = self.remote_addr = (item("REMOTE_ADDR", ""), int(item("REMOTE_PORT") or 0))

    @property
    def body(self) -> Any:
        """The body, to be read."""
        return self.environ.get("wsgi.input")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in capitals, and values."""
        names = {"CONTENT_TYPE": "CONTENT-TYPE", "CONTENT_LENGTH": "CONTENT-LENGTH"}
        found = []
        for key, value in self.environ.items():
            if key.startswith("HTTP_"):
                found.append((key[5:].replace("_", "-"), value))
            elif key in names:
                found.append((names[key], value))
        return found


class Response:
    """What a hook or a log may ask of a response, by the names of gunicorn's own."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        """Note a request that begins."""
        self.began = time.monotonic()
        # Kept, so that no other environ has its identity meanwhile.
        self.environ = environ
        self.start_response = start_response
        self.status: str | None = None
        self.status_code: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.headers_sent = False
        self.response_length: int | None = None
        self.sent = 0

    def start(
        self,
        status: str | bytes,
        headers: list[tuple[str, str]],
        exc_info: Any = None,
    ) -> Any:
        """Note what the application answers, once the server has taken it."""
        write = self.start_response(status, headers, exc_info)  # type: ignore[arg-type]
        self.status = status.decode("latin-1") if isinstance(status, bytes) else status
        self.headers = headers
        return write

    def finish(self, environ: WSGIEnvironment) -> timedelta:
        """Note what was really sent; tell how long it took."""
        code = self.status_code = environ["STATUS_CODE"]
        if self.status is None or not self.status.startswith(str(code)):
            # The server's own answer.
            self.headers = []
            self.status = NO_ANSWER if code in NO_ANSWER_CODES else f"{code} {HTTPStatus(code).phrase}"
        self.sent = self.response_length = environ["SEND_BYTES"]
        self.headers_sent = self.status != NO_ANSWER
        return timedelta(seconds=time.monotonic() - self.began)


class Errors(io.TextIOBase):
    """`wsgi.errors`: writes to where gunicorn's error log goes."""

    def __init__(self, log: Any) -> None:
        """Write to the streams of this logger."""
        self.log = log

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write at once."""
        for stream in self.streams():
            stream.write(text)
            stream.flush()
        return len(text)

    def streams(self) -> list[Any]:
        """The streams as they are now: a log may have been reopened."""
        handlers = self.log.error_log.handlers
        streams = [getattr(handler, "stream", None) for handler in handlers]
        return [stream for stream in streams if stream is not None] or [sys.stderr]
