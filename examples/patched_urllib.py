"""A page that fetches several others at once, with urllib as it is.

`python examples/patched_urllib.py 127.0.0.1:8000 URL...`, then `curl http://127.0.0.1:8000/`: a line for each
URL, with what came from it. Each is fetched in a coroutine of its own, on the one thread of the server; while
they wait, it serves everyone else.
"""

# Before anything else: modules that are imported afterwards get the cooperative sockets.
from meinheld.patch import patch_all

patch_all()

import sys
import urllib.request

from meinheld import server

FETCH_SECONDS = 10
SHOWN_BYTES = 60

DEFAULT_URLS = ["http://127.0.0.1:8001/", "http://127.0.0.1:8002/"]


def fetch(url):
    """What comes from a URL: the status, how long it is, and how it begins."""
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as response:
            body = response.read()
    except OSError as error:
        return f"failed: {error}"
    return f"{response.status}, {len(body)} bytes: {body[:SHOWN_BYTES].decode(errors='replace')}"


def page(urls):
    """An application that shows them all."""

    def app(environ, start_response):
        fetching = [(url, server.spawn(fetch, (url,))) for url in urls]
        lines = [f"{url} {task.join()}\n" for url, task in fetching]
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return ["".join(lines).encode()]

    return app


def main(bind="127.0.0.1:8000", *urls):
    """Serve the page until Ctrl-C."""
    host, _, port = bind.rpartition(":")
    server.listen((host, int(port)))
    host, port = server.addresses()[0]
    print(f"Serving http://{host}:{port}", flush=True)
    server.run(page(urls or DEFAULT_URLS), silent=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
