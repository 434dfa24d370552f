"""The smallest application, and a program that serves it: `python hello.py [PORT]` or `meinheld hello:app`."""

import sys

from meinheld import server


def app(environ, start_response):
    """Answer every request with a greeting."""
    body = b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    server.listen(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
    print("http://%s:%d" % server.addresses()[0], flush=True)
    server.run(app, silent=True)
