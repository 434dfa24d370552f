"""Several processes on one socket: listen, fork, and serve in each child.

    python examples/fork_after_listen.py

Any child may answer. SIGTERM or Ctrl-C to the first process ends them all, and it waits for them.
"""

import os
import signal
import sys

from meinheld import server

WORKERS = 2


def app(environ, start_response):
    """Say which process answers."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]


def work():
    """Serve, in a child."""
    # What one process leaves in the queue is another's.
    server.set_accepts_max(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server.run(app, silent=True)


def main(arguments):
    """Listen, fork, and wait for the children."""
    server.listen(("127.0.0.1", int(arguments[0]) if arguments else 8000))
    print(f"http://127.0.0.1:{server.addresses()[0][1]}", flush=True)
    children = []

    def end(_number, _frame):
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for _ in range(WORKERS):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        children.append(child)
    while children:
        child, _status = os.wait()
        children.remove(child)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
