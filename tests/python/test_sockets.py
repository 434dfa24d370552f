"""`meinheld.msocket`: what each operation of a socket does, in a coroutine and outside of one."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from program import Ended, run_program

# Each of these notes what it sees, and must see the same in a coroutine as on a thread.
SCENARIOS = {
    "stream": """
        here, there = msocket.socketpair()
        later(lambda: there.sendall(b"hello"))
        notes.append(here.recv(3).decode())
        buffer = bytearray(10)
        notes.append([here.recv_into(buffer), buffer[:2].decode()])
        later(lambda: (there.send(b"ab"), time.sleep(0.01), there.send(b"cd")))
        notes.append(here.recv(4, socket.MSG_WAITALL).decode())
        later(lambda: there.shutdown(socket.SHUT_WR))
        notes.append(here.recv(1).decode())
        later(here.close)
        notes.append(there.recv(1).decode())
    """,
    "large": """
        here, there = msocket.socketpair()
        data = bytes(range(256)) * 20000
        got = []
        def read():
            while sum(map(len, got)) < len(data):
                got.append(there.recv(100000))
        reader = start(read)
        here.sendall(memoryview(data).cast("H"))
        reader.join()
        notes.append(b"".join(got) == data)
        notes.append(here.sendall(b""))
    """,
    "datagrams": """
        one, two = (msocket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        later(lambda: two.sendto(b"a", one.getsockname()))
        data, address = one.recvfrom(10)
        notes.append([data.decode(), address == two.getsockname()])
        later(lambda: two.sendto(b"bc", 0, one.getsockname()))
        buffer = bytearray(10)
        notes.append(one.recvfrom_into(buffer)[0])
        later(lambda: two.sendmsg([b"d", b"e"], [], 0, one.getsockname()))
        notes.append(one.recvmsg(10)[0].decode())
        later(lambda: two.sendmsg([b"fg"], [], 0, one.getsockname()))
        notes.append([one.recvmsg_into([buffer])[0], buffer[:2].decode()])
        notes.append(kind(two.sendto, b"x"))
    """,
    "connections": """
        listener = msocket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        def client():
            made = msocket.create_connection(address)
            made.sendall(made.recv(5))
            made.close()
        later(client)
        accepted, peer = listener.accept()
        notes.append([type(accepted) is msocket.socket, accepted.getpeername() == peer, accepted.getblocking()])
        accepted.sendall(b"12345")
        with accepted.makefile("rb") as file:
            notes.append(file.read().decode())
        accepted.close()
        one = msocket.socket()
        notes.append([one.connect_ex(address), one.getblocking(), os.get_blocking(one.fileno())])
        notes.append(os.get_blocking(listener.fileno()))
        listener.close()
        refused = msocket.socket()
        notes.append(kind(refused.connect, address))
        notes.append(kind(msocket.create_connection, address, 5))
        notes.append(msocket.socket().connect_ex(address))
        notes.append(kind(refused.connect, ("no.such.host.invalid", 1)).split(":")[0])
    """,
    "unix": """
        path = f"{os.getpid()}-{threading.get_ident()}-{server.get_ident()}.sock"
        listener = msocket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(0)
        clients = [msocket.socket(socket.AF_UNIX) for _ in range(5)]
        connecting = [start(one.connect, path) for one in clients]
        time.sleep(0.02)
        accepted = [listener.accept()[0] for _ in clients]
        for one in connecting:
            one.join()
        for one in clients:
            one.send(b"x")
        notes.append([one.recv(1).decode() for one in accepted])
    """,
    "timeouts": """
        here, there = msocket.socketpair()
        here.settimeout(0.03)
        for call in (lambda: here.recv(1), lambda: here.recv_into(bytearray(1)), lambda: here.recvfrom(1)):
            before = time.monotonic()
            notes.append(kind(call))
            notes.append(time.monotonic() - before >= 0.03)
        notes.append(kind(here.sendall, bytes(10**7)))
        listener = msocket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.03)
        notes.append(kind(listener.accept))
        here.settimeout(5)
        later(lambda: there.send(b"x"))
        notes.append([here.recv(1).decode(), here.gettimeout()])
        client = msocket.socket()
        later(client.connect, listener.getsockname())
        listener.settimeout(5)
        notes.append(listener.accept()[0].getblocking())
    """,
    "not blocking": """
        here, there = msocket.socketpair()
        here.setblocking(False)
        notes.append(kind(here.recv, 1))
        notes.append([here.gettimeout(), here.getblocking(), os.get_blocking(here.fileno())])
        listener = msocket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        notes.append(kind(listener.accept))
        one = msocket.socket()
        one.setblocking(False)
        notes.append(one.connect_ex(listener.getsockname()))
        there.setblocking(False)
        notes.append(there.gettimeout())
    """,
    "descriptors": """
        here, there = msocket.socketpair()
        copies = [here.dup(), msocket.fromfd(here.fileno(), here.family, here.type)]
        for copy in copies:
            later(lambda: there.send(b"x"))
            notes.append([type(copy) is msocket.socket, copy.recv(1).decode(), copy.fileno() != here.fileno()])
        later(lambda: there.send(b"y"))
        notes.append(here.recv(1).decode())
        number = here.detach()
        notes.append([here.fileno(), kind(here.recv, 1)])
        again = msocket.socket(fileno=number)
        later(lambda: there.send(b"z"))
        notes.append([again.recv(1).decode(), again.family == socket.AF_UNIX])
        again.close()
        notes.append([kind(again.recv, 1), kind(again.send, b""), kind(again.sendall, b"x")])
        with msocket.socket() as one:
            pass
        notes.append(one.fileno())
    """,
    "files": """
        here, there = msocket.socketpair()
        def read():
            data = b""
            while more := there.recv(100000):
                data += more
            return len(data)
        with open("data", "wb") as file:
            file.write(bytes(1000000))
        reader = start(read)
        with open("data", "rb") as file:
            notes.append(here.sendfile(file, 10))
        with here.makefile("w") as text:
            text.write("text")
        here.close()
        notes.append(reader.join())
    """,
    "default timeout": """
        socket.setdefaulttimeout(0.03)
        try:
            here, there = msocket.socketpair()
            notes.append([here.gettimeout(), kind(here.recv, 1)])
        finally:
            socket.setdefaulttimeout(None)
    """,
}

RUNNER = """
from meinheld import msocket

class Thread:
    def __init__(self, call, *args):
        self.result = None
        self.thread = threading.Thread(target=lambda: setattr(self, "result", call(*args)))
        self.thread.start()

    def join(self):
        self.thread.join()
        return self.result

def in_thread(call, *args):
    return Thread(call, *args)

def in_task(call, *args):
    return server.spawn(call, args)

def later(call, *args):
    def wait():
        (server.sleep if start is in_task else time.sleep)(0.01)
        call(*args)
    start(wait)

def scenario():
BODY

start = in_thread
scenario()
blocking = list(notes)
notes.clear()
start = in_task
serve(scenario)
notes.append(blocking == notes or blocking)
"""


def run(directory: Path, body: str) -> Ended:
    """Run a scenario on a thread, and then in a coroutine."""
    return run_program(directory, RUNNER.replace("BODY", textwrap.indent(textwrap.dedent(body), "    ")))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_socket_does_the_same_in_a_coroutine_as_on_a_thread(tmp_path: Path, name: str) -> None:
    """Every operation, what it returns and what it raises."""
    ended = run(tmp_path, SCENARIOS[name])
    *noted, same = ended.notes
    assert same is True, (same, noted)
    assert len(noted) >= 1
    assert ended.log == ""


def test_what_they_do_is_right(tmp_path: Path) -> None:
    """Both alike could still be wrong."""
    assert run(tmp_path, SCENARIOS["stream"]).notes[:-1] == ["hel", [2, "lo"], "abcd", "", ""]
    timeouts = run(tmp_path, SCENARIOS["timeouts"]).notes[:-1]
    timed_out = "TimeoutError: timed out"
    assert timeouts == [*[timed_out, True] * 3, timed_out, timed_out, ["x", 5.0], True]


def test_other_coroutines_run_while_one_waits(tmp_path: Path) -> None:
    """Each operation parks: those on the other side are coroutines of the same thread."""
    ended = run_program(
        tmp_path,
        """
        from meinheld import msocket

        def main():
            listener = msocket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            def serve_all():
                while True:
                    one, _ = listener.accept()
                    server.spawn(echo, (one,))
            def echo(one):
                with one, one.makefile("rwb", 0) as file:
                    for line in file:
                        file.write(line)
            def talk(n):
                with msocket.create_connection(listener.getsockname()) as one:
                    with one.makefile("rw") as file:
                        for turn in range(5):
                            file.write(f"{n} {turn}\\n")
                            file.flush()
                            assert file.readline() == f"{n} {turn}\\n"
                return n
            accepting = server.spawn(serve_all)
            tasks = [server.spawn(talk, (n,)) for n in range(100)]
            notes.append(sum(task.join() for task in tasks))
            accepting.kill()

        serve(main)
        """,
    )
    assert ended.notes == [4950]
    assert ended.log == ""


def test_a_close_wakes_who_waits(tmp_path: Path) -> None:
    """From a coroutine and from another thread; on a thread nobody would be told."""
    ended = run_program(
        tmp_path,
        """
        from meinheld import msocket

        def main():
            for way in ("close", "detach"):
                for elsewhere in (False, True):
                    here, there = msocket.socketpair()
                    task = server.spawn(kind, (here.recv, 1))
                    server.sleep(0)
                    if elsewhere:
                        threading.Thread(target=getattr(here, way)).start()
                    else:
                        getattr(here, way)()
                    notes.append(task.join(10))
            here, there = msocket.socketpair()
            task = server.spawn(kind, (here.recv, 1))
            server.sleep(0)
            task.kill(KeyError("killed"))
            notes.append(task.join())
            there.send(b"x")
            notes.append(here.recv(1).decode())
            first, second = (server.spawn(kind, (here.recv, 1)) for _ in range(2))
            notes.append(second.join()[:50])
            there.close()
            notes.append(str(first.join()))

        serve(main)
        """,
    )
    assert ended.notes == [
        *["OSError: [Errno 9] Bad file descriptor"] * 4,
        "KeyError: 'killed'",
        "x",
        "ContinuationError: another task waits for descriptor 1"[:50],
        "b''",
    ]


def test_a_full_unix_listener_is_waited_for(tmp_path: Path) -> None:
    """Until the time-out: the kernel says EAGAIN, and nothing tells of room."""
    ended = run_program(
        tmp_path,
        """
        from meinheld import msocket

        def main():
            listener = msocket.socket(socket.AF_UNIX)
            listener.bind("full.sock")
            listener.listen(0)
            first, late = (msocket.socket(socket.AF_UNIX) for _ in range(2))
            first.connect("full.sock")
            late.settimeout(0.03)
            notes.append(kind(late.connect, "full.sock"))
            notes.append(late.connect_ex("full.sock") == 11)
            late.settimeout(10)
            server.schedule_call(0.02, listener.accept)
            notes.append(late.connect("full.sock"))

        serve(main)
        """,
    )
    assert ended.notes == ["TimeoutError: timed out", True, None]


def test_a_socket_that_nobody_closes_is_closed_once(tmp_path: Path) -> None:
    """The view of its descriptor does not close it too, which may be another file's by then."""
    ended = run_program(
        tmp_path,
        """
        from meinheld import msocket
        import gc, warnings
        warnings.simplefilter("ignore")

        def main():
            for _ in range(50):
                here, there = msocket.socketpair()
                there.send(b"x")
                here.recv(1)
                del here, there
                gc.collect()
                files = [open(__file__) for _ in range(4)]
                gc.collect()
                for file in files:
                    os.fstat(file.fileno())
                    file.close()
            notes.append(len(os.listdir("/proc/self/fd")))

        before = len(os.listdir("/proc/self/fd"))
        serve(main)
        notes[0] -= before
        """,
    )
    # The server's own.
    assert ended.notes[0] < 12


def test_the_names_of_old(tmp_path: Path) -> None:
    """And all of the standard module's."""
    ended = run_program(
        tmp_path,
        """
        from meinheld import msocket
        from meinheld.msocket import *
        from meinheld.msocket import AF_INET6, gaierror, inet_aton, wait_readwrite

        def main():
            here, there = msocket.socketpair()
            wait_write(here.fileno())
            wait_readwrite(here.fileno(), 1)
            notes.append(kind(wait_read, here.fileno(), 0.01).split(":")[0])

        serve(main)
        notes.append([socket is msocket.socket, msocket.timeout is TimeoutError, msocket.error is OSError])
        notes.append([msocket.getaddrinfo.__module__, AF_INET6 == 10, msocket.patched])
        notes.append(kind(lambda: msocket.nonsense).split(":")[0])
        """,
    )
    assert ended.notes == ["timeout", [True] * 3, ["socket", True, True], "AttributeError"]
