"""`server.trampoline`, `cancel_wait`, and the old names of suspend and resume."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from program import Ended, run_program

PAIR = """
def pair():
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    return here, there

def fill(one):
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass

def drain(one):
    try:
        while one.recv(65536):
            pass
    except BlockingIOError:
        pass

"""


def run(directory: Path, source: str) -> Ended:
    """Run a program that has PAIR."""
    return run_program(directory, PAIR + textwrap.dedent(source))


def test_coroutines_wait_for_descriptors(tmp_path: Path) -> None:
    """In tasks and in requests, to read and to write, by number and by object."""
    ended = run(
        tmp_path,
        """
        def handle(environ):
            here, there = pair()
            server.schedule_call(0.01, there.send, b"x")
            server.trampoline(here.fileno(), read=True)
            return here.recv(10)

        def main():
            notes.append(ask().join())
            here, there = pair()
            server.trampoline(here, write=True)
            fill(here)
            reader = server.spawn(server.trampoline, (here,), {"read": True})
            writer = server.spawn(server.trampoline, (here.fileno(), False, 1, 5))
            server.sleep(0.01)
            notes.append([reader.done, writer.done])
            there.send(b"x")
            reader.join()
            notes.append([reader.done, writer.done])
            drain(there)
            writer.join()
            server.trampoline(here, True, True)
            with open(__file__) as file:
                server.trampoline(file, read=True)
            notes.append("done")

        serve(main)
        """,
    )
    assert ended.notes == ["b'x'", [False, False], [True, False], "done"]
    assert ended.log == ""


def test_a_wait_times_out(tmp_path: Path) -> None:
    """With a TimeoutError, in coroutines and outside; the same for a wait for nothing."""
    ended = run(
        tmp_path,
        """
        def main():
            here, there = pair()
            notes.append(kind(server.trampoline, here, True, timeout=1e-300).split(":")[0])
            for options in ({"read": True}, {}):
                before = time.monotonic()
                try:
                    server.trampoline(here.fileno(), timeout=0.02, **options)
                except TimeoutError as error:
                    notes.append([type(error) is server.timeout, str(error).replace(str(here.fileno()), "N")])
                    notes.append(time.monotonic() - before >= 0.02)

        main()
        serve(main)
        """,
    )
    timed = [
        "timeout",
        [True, "timed out: descriptor N was not ready in time"],
        True,
        [True, "timed out: the time has passed"],
        True,
    ]
    assert ended.notes == timed * 2


def test_outside_of_coroutines_the_thread_waits(tmp_path: Path) -> None:
    """On the main thread before `run`, and on others."""
    ended = run(
        tmp_path,
        """
        def wait():
            here, there = pair()
            threading.Timer(0.02, there.send, [b"x"]).start()
            server.trampoline(here, read=True, timeout=10)
            notes.append(here.recv(5).decode())
            server.trampoline(here, write=True)
            number = here.fileno()
            here.close()
            notes.append(kind(server.trampoline, number, read=True))
            server.cancel_wait(number)

        wait()
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        """,
    )
    assert ended.notes == ["x", "OSError: [Errno 9] Bad file descriptor"] * 2


def test_a_second_reader_is_refused(tmp_path: Path) -> None:
    """With an error that says why; the first one goes on waiting."""
    ended = run(
        tmp_path,
        """
        def main():
            here, there = pair()
            first = server.spawn(server.trampoline, (here,), {"read": True})
            server.sleep(0)
            refused = kind(server.trampoline, here, read=True)
            notes.append(refused.replace(str(here.fileno()), "N"))
            there.send(b"x")
            first.join()
            notes.append(first.exception)

        serve(main)
        """,
    )
    assert ended.notes == [
        "ContinuationError: another task waits for descriptor N already: only one may read from it, and one write "
        "to it, at a time",
        None,
    ]


def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    """From a coroutine and from another thread, with an OSError in who waits."""
    ended = run(
        tmp_path,
        """
        def main():
            here, there = pair()
            fill(here)
            for cancel in (server.cancel_wait, lambda fd: threading.Thread(target=server.cancel_wait, args=(fd,)).start()):
                tasks = [server.spawn(kind, (server.trampoline, here.fileno(), *way)) for way in ((1, 0), (0, 1))]
                server.sleep(0)
                cancel(here.fileno())
                for task in tasks:
                    notes.append(task.join().replace(str(here.fileno()), "N"))
            server.cancel_wait(here.fileno())
            server.cancel_wait(1000)

        serve(main)
        """,
    )
    assert ended.notes == ["OSError: [Errno 125] the wait for descriptor N was cancelled"] * 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("-1, True", "ValueError: fileno is -1 and must be an open descriptor's number"),
        ("2**70, True", "OverflowError: "),
        ("2**40, True", "ValueError: fileno is 1099511627776 and must be an open descriptor's number"),
        ("1000, True", "OSError: [Errno 9] Bad file descriptor"),
        ("'a', True", "TypeError: "),
        ("0", "ValueError: trampoline waits for nothing: give it read, write or a timeout"),
        ("0, timeout=0", "ValueError: trampoline waits for nothing: give it read, write or a timeout"),
        ("0, True, timeout=-1", "ValueError: timeout is -1 and must be zero or more seconds"),
        ("0, True, timeout='1'", "TypeError: timeout must be a number of seconds, not str"),
        ("0, True, timeout=True", "TypeError: timeout must be a number of seconds, not bool"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, arguments: str, error: str) -> None:
    """In a coroutine and outside of one."""
    ended = run(
        tmp_path,
        f"""
        def refused():
            try:
                server.trampoline({arguments})
            except Exception as error:
                notes.append(f"{{type(error).__name__}}: {{error}}")

        refused()
        serve(refused)
        """,
    )
    assert [note.startswith(error) for note in ended.notes] == [True, True], ended.notes


def test_a_request_can_wait_for_its_client_by_the_descriptor(tmp_path: Path) -> None:
    """Which the server watches itself."""
    ended = run(
        tmp_path,
        """
        def handle(environ):
            fd = environ[CLIENT_KEY].get_fd()
            server.trampoline(fd, write=True)
            return kind(server.trampoline, fd, read=True, timeout=0.02).replace(str(fd), "N")

        serve(lambda: notes.append(ask().join()))
        """,
    )
    assert ended.notes == ["timeout: timed out: descriptor N was not ready in time"]


def test_the_old_suspend_and_resume_of_clients(tmp_path: Path) -> None:
    """As the middleware of 1.0.2 calls them: with the client, a time-out, and the arguments as a pair."""
    ended = run(
        tmp_path,
        """
        clients = {}

        def handle(environ):
            client = environ[CLIENT_KEY]
            clients[environ["PATH_INFO"]] = client
            if environ["PATH_INFO"] == "/late":
                return kind(server._suspend_client, client, 0.01)
            return [server._suspend_client(client), server._suspend_client(client, 5)]

        def main():
            waiting = ask("/wait")
            while "/wait" not in clients:
                server.sleep(0.002)
            client = clients["/wait"]
            server._resume_client(client, (1, 2), {"k": 3})
            notes.append(kind(server._resume_client, client).split(",")[0])
            server.sleep(0)
            server._resume_client(client, ("only",), {})
            notes.append(waiting.join())
            notes.append(ask("/late").join())
            for args in ((client,), (5,)):
                notes.append(kind(server._resume_client, *args).split(",")[0][:30])

        serve(main)
        """,
    )
    assert ended.notes == [
        "ContinuationError: already resumed",
        "[((1, 2), {'k': 3}), 'only']",
        "timeout: timed out: not resumed in time",
        "ContinuationError: its request has ended"[:30],
        "TypeError: 'int' object is not an instance"[:30],
    ]
