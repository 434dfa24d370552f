"""Middleware that gives an application its continuation, or its WebSocket.

Under another server than meinheld it passes requests through, and the key is absent: an application
asks with `environ.get(CONTINUATION_KEY)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from meinheld._meinheld import Client
from meinheld.common import CLIENT_KEY, CONTINUATION_KEY, Continuation
from meinheld.websocket import WebSocketMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "CLIENT_KEY",
    "CONTINUATION_KEY",
    "Continuation",
    "ContinuationMiddleware",
    "SpawnMiddleware",
    "WebSocketMiddleware",
]


class ContinuationMiddleware:
    """Put a continuation of each request into its environ, under CONTINUATION_KEY."""

    def __init__(self, app: WSGIApplication) -> None:
        """Wrap `app`."""
        self.app = app

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request."""
        client = environ.get(CLIENT_KEY)
        if isinstance(client, Client):
            environ[CONTINUATION_KEY] = client.continuation()
        return self.app(environ, start_response)


class SpawnMiddleware(ContinuationMiddleware):
    """The first name of ContinuationMiddleware; every request runs in a coroutine in any case."""
