"""Starts a server that has no command of its own: python run.py SERVER PORT MODULE."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main(server: str, port: int, module: str) -> None:
    """Run it until it is ended."""
    app = importlib.import_module(module).app
    inner = {"gevent": "gevent.pywsgi", "eventlet": "eventlet.wsgi"}
    run = importlib.import_module(inner.get(server, server))
    if server == "meinheld":
        serve_meinheld(app, port)
    elif server == "bjoern":
        run.run(app, "127.0.0.1", port)
    elif server == "fastwsgi":
        run.run(wsgi_app=app, host="127.0.0.1", port=port)
    elif server == "freastal":
        run.serve(app, host="127.0.0.1", port=port)
    elif server == "gevent":
        run.WSGIServer(("127.0.0.1", port), app, log=None, backlog=20_000).serve_forever()
    elif server == "eventlet":
        listener = importlib.import_module("eventlet").listen(("127.0.0.1", port), backlog=20_000)
        run.server(listener, app, max_size=20_000, log_output=False)
    elif server == "waitress":
        run.serve(app, host="127.0.0.1", port=port, connection_limit=20_000, _quiet=True)


def serve_meinheld(app: object, port: int) -> None:
    """With the middleware that gives each request its continuation in place."""
    middleware = importlib.import_module("meinheld.middleware")
    server = importlib.import_module("meinheld.server")
    # meinheld 1.0.2 has no SpawnMiddleware, and is not silent.
    spawning = getattr(middleware, "SpawnMiddleware", middleware.ContinuationMiddleware)
    if not isinstance(app, spawning):
        app = spawning(app)
    if hasattr(server, "set_listen_socket"):
        server.set_access_logger(None)
        server.set_picoev_max_fd(20_000)
    if log := os.environ.get("COMPARE_ACCESS_LOG"):
        access = logging.getLogger("meinheld.access")
        access.addHandler(logging.FileHandler(log))
        access.setLevel(logging.INFO)
    server.set_keepalive(75)
    server.listen(("127.0.0.1", port))
    server.run(app, silent=1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
