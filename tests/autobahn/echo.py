"""The application under test: it sends back what it receives."""

from __future__ import annotations

from meinheld.middleware import WebSocketMiddleware

# The cases of category 9 send messages of up to 16 MiB.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


def echo(environ, _start_response):
    """Echo."""
    websocket = environ["wsgi.websocket"]
    for message in websocket:
        websocket.send(message)
    return []


app = WebSocketMiddleware(echo, max_size=MESSAGE_BYTES_MAX)
