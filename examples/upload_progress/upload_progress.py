"""An upload whose progress the browser sees: one request reads, another one tells how far it has come.

Run `python upload_progress.py [PORT]` and open the page. It needs no framework.

    GET  /                      the page
    PUT  /uploads/<name>        a file as the body; it is counted and hashed, and not kept
    GET  /progress/<name>?seen= {"received", "total", "state"} as soon as more than `seen` bytes have come

The upload's body is larger than the server collects, so `wsgi.input` reads it as it arrives, and each read that has
to wait parks the request. The question for its progress parks too, in `c.suspend()`, until the upload resumes it.
Both run on one thread, and other requests meanwhile.
"""

import hashlib
import json
import sys
from pathlib import Path
from urllib.parse import parse_qs

from meinheld import middleware, server

PAGE = Path(__file__).with_name("page.html")
UPLOAD_BYTES_MAX = 10 * 1024**3
# A read returns when all that it asked for is there, or the end: progress comes in steps of this.
READ_BYTES = 16 * 1024
POLL_SECONDS = 25
ENDED_MAX = 100

uploads = {}


class Upload:
    """What is known of one upload, and the requests that wait to hear more."""

    def __init__(self, total):
        self.total = total
        self.received = 0
        self.state = "sending"
        self.waiting = []

    def changed(self):
        """Wake all who wait; they run when this request next waits."""
        while self.waiting:
            self.waiting.pop().resume()

    def wait(self, c, seen):
        """Return once there is more to tell than `seen` bytes, or after a while in any case."""
        if self.received > seen or self.state != "sending":
            return
        self.waiting.append(c)
        try:
            c.suspend(POLL_SECONDS)
        except server.timeout:
            pass
        finally:
            # Who is woken has been taken off already.
            if c in self.waiting:
                self.waiting.remove(c)


def application(environ, start_response):
    """Find who answers."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    folder, _, name = path.lstrip("/").partition("/")
    if path == "/" and method in ("GET", "HEAD"):
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return environ["wsgi.file_wrapper"](PAGE.open("rb"))
    if folder == "uploads" and name and method == "PUT":
        return receive(environ, start_response, name)
    if folder == "progress" and name and method == "GET":
        return tell(environ, start_response, name)
    return answer(start_response, "404 Not Found", {"error": "there is nothing here"})


def receive(environ, start_response, name):
    """Read an upload to its end, and tell those who wait of each piece."""
    if name in uploads and uploads[name].state == "sending":
        return answer(start_response, "409 Conflict", {"error": "an upload of that name goes on"})
    forget_oldest()
    upload = uploads[name] = Upload(int(environ.get("CONTENT_LENGTH") or 0))
    digest = hashlib.sha256()
    try:
        while piece := environ["wsgi.input"].read(min(READ_BYTES, max(upload.total - upload.received, 1))):
            digest.update(piece)
            upload.received += len(piece)
            upload.changed()
        upload.state = "done"
    except OSError:
        # The client has gone, or sent nothing for too long.
        upload.state = "broken off"
        raise
    finally:
        upload.changed()
    return answer(start_response, "200 OK", {"received": upload.received, "sha256": digest.hexdigest()})


def tell(environ, start_response, name):
    """Answer with the progress of an upload, once there is any."""
    query = parse_qs(environ["QUERY_STRING"])
    seen = query.get("seen", ["-1"])[0]
    if not seen.lstrip("-").isdecimal() or not seen.isascii():
        return answer(start_response, "400 Bad Request", {"error": "seen is a number of bytes"})
    upload = uploads.get(name)
    if upload is None:
        return answer(start_response, "404 Not Found", {"error": "no upload of that name has begun"})
    upload.wait(environ[middleware.CONTINUATION_KEY], int(seen))
    progress = {"received": upload.received, "total": upload.total, "state": upload.state}
    return answer(start_response, "200 OK", progress)


def forget_oldest():
    """Keep what is known of uploads that have ended within bounds."""
    ended = [name for name, upload in uploads.items() if upload.state != "sending"]
    for name in ended[: max(len(ended) - ENDED_MAX + 1, 0)]:
        del uploads[name]


def answer(start_response, status, value):
    """Answer with JSON."""
    body = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    start_response(status, [*headers, ("Content-Length", str(len(body)))])
    return [body]


app = middleware.ContinuationMiddleware(application)

if __name__ == "__main__":
    server.set_max_content_length(UPLOAD_BYTES_MAX)
    server.listen(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
    print("http://%s:%d" % server.addresses()[0], flush=True)
    server.run(app, silent=True)
