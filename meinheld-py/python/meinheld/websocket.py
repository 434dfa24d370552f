"""WebSockets (RFC 6455): `environ["wsgi.websocket"]` of an application that WebSocketMiddleware wraps.

>>> from meinheld import middleware, server
>>> def echo(environ, start_response):
...     for message in environ["wsgi.websocket"]:
...         environ["wsgi.websocket"].send(message)
...     return []
>>> app = middleware.WebSocketMiddleware(echo)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from meinheld._meinheld import (
    Client,
    Handshake,
    HandshakeRefused,
    Stopped,
    WebSocket,
    WebSocketClosed,
    websocket_handshake,
)
from meinheld.common import CLIENT_KEY, CONTINUATION_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "CLOSE_GOING_AWAY",
    "CLOSE_INTERNAL_ERROR",
    "CLOSE_NORMAL",
    "CLOSE_POLICY",
    "CLOSE_TOO_BIG",
    "WEBSOCKET_KEY",
    "WebSocket",
    "WebSocketClosed",
    "WebSocketMiddleware",
    "WebSocketWSGI",
]

WEBSOCKET_KEY = "wsgi.websocket"

# Codes of a close, RFC 6455 section 7.4.1; a program's own are 4000 to 4999.
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL_ERROR = 1011

# No message may be longer.
MESSAGE_BYTES_MAX = 1 << 30


class WebSocketMiddleware:
    """Answer requests for a WebSocket, and put it into the environ, under WEBSOCKET_KEY.

    It is open when the application is called, and closed when that returns, whose status, headers
    and body are not sent. Other requests pass through, as all do under another server; each has a
    continuation, as with ContinuationMiddleware.
    """

    def __init__(
        self,
        app: WSGIApplication,
        protocols: Iterable[str] = (),
        origins: Collection[str] | None = None,
        max_size: int = 1024 * 1024,
        ping_interval: float | None = 20,
        send_timeout: float = 30,
        close_timeout: float = 5,
    ) -> None:
        """Wrap `app`.

        `protocols` are the subprotocols that it speaks: the first that the client offers and that
        is among them is agreed on. Of `origins`, unless it is None, a browser's page must be.
        `max_size` is the longest message in bytes, 1 GiB at the most; a longer one is refused with
        1009. A client that has been silent for `ping_interval` seconds (0 or None: never) is pinged
        while a message is waited for, and gone if it stays so. The time-outs are seconds: for a
        client that does not read, and for one that does not answer a close.
        """
        _check_strings("protocols", protocols)
        _check_strings("origins", origins)
        _check_number("max_size", max_size, int, "bytes", 1, MESSAGE_BYTES_MAX)
        _check_number("ping_interval", ping_interval or 0, int | float, "seconds")
        _check_number("send_timeout", send_timeout, int | float, "seconds")
        _check_number("close_timeout", close_timeout, int | float, "seconds")
        self.app = app
        self.protocols = frozenset(protocols)
        self.origins = origins
        self.settings = {
            "max_size": max_size,
            "ping_interval": ping_interval,
            "send_timeout": send_timeout,
            "close_timeout": close_timeout,
        }

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request."""
        client = environ.get(CLIENT_KEY)
        if isinstance(client, Client):
            environ[CONTINUATION_KEY] = client.continuation()
        try:
            handshake = websocket_handshake(environ)
        except HandshakeRefused as refused:
            return _refuse(start_response, refused.status, str(refused), refused.headers)
        if handshake is None:
            return self.app(environ, start_response)
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and self.origins is not None and origin not in self.origins:
            return _refuse(start_response, 403, "this origin may not open a WebSocket here", [])
        try:
            websocket = self._accept(handshake)
        except ValueError as error:
            return _refuse(start_response, 400, str(error), [])
        return self._talk(environ, websocket)

    def _accept(self, handshake: Handshake) -> WebSocket:
        agreed = (name for name in handshake.protocols if name in self.protocols)
        return handshake.accept(next(agreed, None), **self.settings)  # type: ignore[arg-type]

    def _talk(self, environ: WSGIEnvironment, websocket: WebSocket) -> Iterable[bytes]:
        """Run the application on its WebSocket, and close that in every ending."""
        environ[WEBSOCKET_KEY] = websocket
        code = CLOSE_INTERNAL_ERROR
        try:
            _exhaust(self.app(environ, _ignore), websocket)
            code = CLOSE_NORMAL
        except Stopped:
            code = CLOSE_GOING_AWAY
            raise
        finally:
            environ.pop(WEBSOCKET_KEY, None)
            websocket._finish(code)
        return []


class WebSocketWSGI:
    """An application of one function of a WebSocket; other requests are answered with 400."""

    def __init__(self, handler: Callable[[WebSocket], Any], **settings: Any) -> None:
        """Call `handler` with each WebSocket; the settings are those of WebSocketMiddleware."""
        self.handler = handler
        self._middleware = WebSocketMiddleware(self._handle, **settings)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request."""
        return self._middleware(environ, start_response)

    def _handle(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        websocket = environ.get(WEBSOCKET_KEY)
        if websocket is None:
            return _refuse(start_response, 400, "this speaks WebSocket only", [])
        self.handler(websocket)
        return []


def _check_strings(name: str, strings: object) -> None:
    """Refuse one string in the place of several: its characters would be taken for them."""
    if isinstance(strings, str):
        raise TypeError(f"{name} is {strings!r} and must be several strings: [{strings!r}]")


def _check_number(
    name: str, number: Any, kind: Any, unit: str, least: int = 0, most: float = math.inf
) -> None:
    """Refuse what no handshake could be answered with."""
    if isinstance(number, bool) or not isinstance(number, kind):
        raise TypeError(f"{name} is {number!r} and must be a number of {unit}")
    if not least <= number <= most:
        bounds = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} is {number!r} and must be {bounds} {unit}")


def _refuse(
    start_response: StartResponse, status: int, reason: str, headers: list[tuple[str, str]]
) -> Iterable[bytes]:
    line = f"{status} {HTTPStatus(status).phrase}"
    start_response(line, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{reason}\n".encode()]


def _ignore(
    _status: str, _headers: list[tuple[str, str]], _exc_info: Any = None, /
) -> Callable[[bytes], object]:
    """Be the start_response of an application whose response is not sent."""
    return lambda _data: None


def _exhaust(result: Any, websocket: WebSocket) -> None:
    """Run an application that is a generator, and close what it returned; nothing is sent."""
    try:
        if hasattr(result, "__iter__"):
            for _ in result:
                if websocket.closed:
                    break
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
