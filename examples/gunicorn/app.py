"""A page that waits and one that wakes it, to be served by gunicorn with the worker of meinheld.

    cd examples/gunicorn
    gunicorn -c gunicorn.conf.py app:app
    curl http://127.0.0.1:8000/wait &
    curl http://127.0.0.1:8000/wake

Every worker is a process of its own, so that a request wakes those of its own worker only.
"""

import os

from meinheld import middleware, server

waiting = []


def application(environ, start_response):
    """Answer with the number of the process, after a wait where one is asked for."""
    answer = f"process {os.getpid()}\n"
    if environ["PATH_INFO"] == "/wait":
        continuation = environ[middleware.CONTINUATION_KEY]
        waiting.append(continuation)
        try:
            answer = continuation.suspend(20)
        except server.timeout:
            answer = "nobody came\n"
        finally:
            if continuation in waiting:
                waiting.remove(continuation)
    elif environ["PATH_INFO"] == "/wake":
        answer = f"woke {len(waiting)}\n"
        while waiting:
            waiting.pop(0).resume("woken\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]


app = middleware.SpawnMiddleware(application)
