"""A server on a socket that the process before it has opened, as a supervisor does.

    python examples/inherited_socket.py

The first process listens, and starts itself again with the descriptor; the second serves. While the
second is restarted the socket stays open, and clients wait instead of being refused.
"""

import socket
import subprocess
import sys

from meinheld import server


def app(environ, start_response):
    """Say which port was inherited."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"inherited port {environ['SERVER_PORT']}\n".encode()]


def supervise(port):
    """Open the socket, and serve from another process."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        fd = listener.fileno()
        command = [sys.executable, __file__, "--fd", str(fd)]
        child = subprocess.Popen(command, pass_fds=[fd])
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The child has had its own.
            return child.wait()


def main(arguments):
    """Supervise, or serve if there is a descriptor."""
    if arguments[:1] == ["--fd"]:
        server.set_listen_socket(int(arguments[1]))
        server.run(app, silent=True)
        return 0
    return supervise(int(arguments[0]) if arguments else 8000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
