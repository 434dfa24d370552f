"""What ``listen`` takes, what it refuses and how, and the settings of ``meinheld.server``.

Each test is a small program in a process of its own, since there is one server in a process.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
from scripts import run

ADDRESSES = {
    "tuple": 'server.listen(("127.0.0.1", 0))',
    "by name": 'server.listen(address=("127.0.0.1", 0))',
    "host name": 'server.listen(("localhost", 0))',
    "empty host": 'server.listen(("", 0))',
    "IPv6": 'server.listen(("::1", 0))',
    "str path": 'server.listen("a.sock")',
    "bytes path": 'server.listen(b"b.sock")',
    "path that is not UTF-8": 'server.listen(b"\\xff.sock")',
    "tuple of several": 'server.listen((("127.0.0.1", 0), "e.sock"))',
    "list": 'server.listen([("127.0.0.1", 0), ("::1", 0), "c.sock", b"d.sock"])',
}


#: How many each is at the least; a name may stand for several.
ADDRESS_COUNTS = {"tuple of several": 2, "list": 4}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_address(tmp_path: Path, kind: str) -> None:
    """Each is served, and `addresses` tells where."""
    program = f"""
    {ADDRESSES[kind]}
    found = server.addresses()
    assert len(found) >= {ADDRESS_COUNTS.get(kind, 1)}, found
    def work():
        for address in found:
            answer = ask(address)
            assert not isinstance(address, tuple) or answer == str(address[1])
    serve(work)
    """
    run(tmp_path, program)


@pytest.mark.parametrize("form", ["one", "list"])
def test_inherited_socket(tmp_path: Path, form: str) -> None:
    """An int, or a list of ints: TCP and unix sockets that listen already."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "inherited.sock"))
        unix.listen()
        fds = (tcp.fileno(), unix.fileno())
        program = f"""
        server.listen(socket_fd={list(fds) if form == "list" else fds[0]})
        def work():
            assert ask(("127.0.0.1", {tcp.getsockname()[1]})) == "{tcp.getsockname()[1]}"
            if {form == "list"}:
                ask("inherited.sock")
        serve(work)
        """
        run(tmp_path, program, fds)


def test_second_call_is_refused(tmp_path: Path) -> None:
    """Several addresses are one list."""
    program = """
    server.listen(("127.0.0.1", 0))
    assert "list of addresses" in str(raises(RuntimeError, server.listen, ("127.0.0.1", 0)))
    assert len(server.addresses()) == 1
    """
    run(tmp_path, program)


def test_failed_call_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a listener nor the state of one."""
    program = """
    before = len(os.listdir("/proc/self/fd"))
    raises(OSError, server.listen, [("127.0.0.1", 0), "no/such/directory/x.sock"])
    assert server.addresses() == []
    assert len(os.listdir("/proc/self/fd")) == before
    raises(RuntimeError, server.run, app)
    server.listen(("127.0.0.1", 0))
    assert len(server.addresses()) == 1
    """
    run(tmp_path, program)


def test_addresses_are_told_while_it_runs(tmp_path: Path) -> None:
    """To a request, too; and no more when it has ended."""
    program = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr(server.addresses()).encode()]

    server.listen(("127.0.0.1", 0))
    listened = server.addresses()
    def work():
        assert ask(listened[0]) == repr(listened)
    serve(work)
    assert server.addresses() == []
    """
    run(tmp_path, program)


def test_server_can_listen_and_run_again(tmp_path: Path) -> None:
    """After it has stopped."""
    program = """
    for _ in range(3):
        server.listen(("127.0.0.1", 0))
        port = server.addresses()[0][1]
        serve(lambda: ask(("127.0.0.1", port)))
        assert server.addresses() == []
    """
    run(tmp_path, program)


ERRORS = {
    "port in use": ("server.listen, ('127.0.0.1', taken)", "EADDRINUSE"),
    "address of another machine": ("server.listen, ('192.0.2.1', 0)", "EADDRNOTAVAIL"),
    "no such directory": ("server.listen, 'no/such/x.sock'", "ENOENT"),
    "path of a file": ("server.listen, 'program.py'", "EEXIST"),
    "closed descriptor": ("server.listen, None, 999", "EBADF"),
    "descriptor of a file": ("server.listen, None, os.open('program.py', os.O_RDONLY)", "ENOTSOCK"),
    "socket that does not listen": ("server.listen, None, socket.socket().detach()", "EINVAL"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_error_has_its_number(tmp_path: Path, kind: str) -> None:
    """An OSError with errno, whose text names what could not be listened on."""
    call, number = ERRORS[kind]
    program = f"""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        error = raises(OSError, {call})
    assert errno.errorcode.get(error.errno) == "{number}", repr(error)
    assert error.strerror
    """
    run(tmp_path, program)
    assert (tmp_path / "program.py").exists()


NONSENSE = {
    "nothing": "TypeError, server.listen",
    "None": "TypeError, server.listen, None",
    "int": "TypeError, server.listen, 8000",
    "empty list": "TypeError, server.listen, []",
    "str port": "TypeError, server.listen, ('127.0.0.1', '8000')",
    "port too large": "ValueError, server.listen, ('127.0.0.1', 65536)",
    "negative port": "ValueError, server.listen, [('127.0.0.1', 0), ('127.0.0.1', -1)]",
    "tuple of one": "TypeError, server.listen, ('127.0.0.1',)",
    "str descriptor": "TypeError, server.listen, None, '3'",
    "negative descriptor": "(OSError, ValueError), server.listen, None, -1",
    "NUL in a path": "(OSError, ValueError), server.listen, 'a\\0b'",
    "path too long": "(OSError, ValueError), server.listen, 'x' * 200",
    "empty path": "(OSError, ValueError), server.listen, ''",
    "unknown host": "OSError, server.listen, ('no.such.host.invalid', 0)",
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_refused(tmp_path: Path, kind: str) -> None:
    """With an error that says what it must be, and nothing listens then."""
    program = f"""
    error = raises({NONSENSE[kind]})
    assert str(error)
    assert server.addresses() == []
    """
    run(tmp_path, program)


def test_listener_is_not_inherited_and_reuses_its_address(tmp_path: Path) -> None:
    """A restart can listen where connections of the old process linger."""
    program = """
    import subprocess
    server.listen(("127.0.0.1", 0))
    port = server.addresses()[0][1]
    links = "import os; print([os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)])"
    child = subprocess.run([sys.executable, "-c", links], capture_output=True, text=True, close_fds=False, check=True)
    assert "pipe:" in child.stdout and "socket:" not in child.stdout, child.stdout
    serve(lambda: ask(("127.0.0.1", port)))
    server.listen(("127.0.0.1", port))
    """
    run(tmp_path, program)


SETTINGS = {
    "backlog": [1, 128, 65_535],
    "max_content_length": [1, 1 << 40, (1 << 64) - 1],
    "client_body_buffer_size": [1, 1 << 30],
    "picoev_max_fd": [1, 1024, 1 << 40],
    "accepts_max": [1, 64, 1 << 40],
    "max_head_bytes": [1, 4096, 1 << 20],
    "max_target_bytes": [1, 4096, 1 << 20],
    "max_header_bytes": [1, 4096, 1 << 20],
    "max_header_count": [1, 100, 128],
}

TIMEOUTS = ["head_timeout", "body_timeout", "send_timeout", "stop_idle_timeout", "keepalive"]


@pytest.mark.parametrize("name", SETTINGS)
def test_setting(tmp_path: Path, name: str) -> None:
    """What is set is what is got; nonsense is refused and changes nothing."""
    program = f"""
    set_it, get_it = server.set_{name}, server.get_{name}
    assert get_it() > 0
    for value in {SETTINGS[name]}:
        assert set_it(value) is None
        assert get_it() == value
    class Index:
        def __index__(self):
            return 7
    set_it(Index())
    assert get_it() == 7
    for nonsense in ["5", None, 1.5, True, [], b"5"]:
        assert "{name}" in str(raises(TypeError, set_it, nonsense)), nonsense
    for nonsense in [0, -1, 1 << 64, -(1 << 100)]:
        assert "{name}" in str(raises(ValueError, set_it, nonsense)), nonsense
    raises(TypeError, set_it)
    assert get_it() == 7
    """
    run(tmp_path, program)


@pytest.mark.parametrize("name", TIMEOUTS)
def test_timeout_setting(tmp_path: Path, name: str) -> None:
    """Seconds of any size, whole or not; nonsense is refused and changes nothing."""
    program = f"""
    set_it, get_it = server.set_{name}, server.get_{name}
    for value in [1, 0.25, 10**9]:
        assert set_it(value) is None
        assert get_it() == value
    for huge in [1e300, 10**400, float("inf")]:
        set_it(huge)
        assert get_it() > 1e15
    set_it(7)
    for nonsense in ["5", None, True, [], b"5", 1j]:
        assert "{name}" in str(raises(TypeError, set_it, nonsense)), nonsense
    for nonsense in [-1, -0.5, float("nan"), -10**400]:
        assert "{name}" in str(raises(ValueError, set_it, nonsense)), nonsense
    if "{name}" in ["stop_idle_timeout", "keepalive"]:
        set_it(0)
        assert get_it() == 0
    else:
        assert "{name} is 0" in str(raises(ValueError, set_it, 0))
        assert get_it() == 7
    """
    run(tmp_path, program)


def test_a_port_out_of_range_is_named(tmp_path: Path) -> None:
    """Rather than the form of the address, in which nothing is wrong."""
    program = """
    for port in [70000, -1, 1 << 100]:
        error = raises(ValueError, server.listen, ("127.0.0.1", port))
        assert str(error) == f"port is {port} and must be 0 to 65535"
    """
    run(tmp_path, program)


def test_keepalive_is_whole_or_not(tmp_path: Path) -> None:
    """What is got of whole seconds is an int; and a part of a second is kept to."""
    program = """
    for given, got in [(2.5, 2.5), (3, 3), (3.0, 3), (0.0, 0), (0.2, 0.2)]:
        server.set_keepalive(given)
        assert server.get_keepalive() == got and type(server.get_keepalive()) is type(got), given
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    def work():
        with socket.create_connection(address, 5) as client:
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 2)
            assert client.makefile("rb").read().count(b"HTTP/1.1 200") == 2
    serve(work)
    """
    run(tmp_path, program)


def test_what_no_limit_can_be_is_refused(tmp_path: Path) -> None:
    """Nothing at all, and more than the server obeys."""
    program = """
    for name in ["picoev_max_fd", "accepts_max", "max_head_bytes", "max_header_count"]:
        assert name in str(raises(ValueError, getattr(server, "set_" + name), 0))
    raises(ValueError, server.set_max_header_count, 129)
    raises(ValueError, server.set_max_head_bytes, (1 << 20) + 1)
    """
    run(tmp_path, program)


def test_limits_of_heads_hold(tmp_path: Path) -> None:
    """Each has its status."""
    program = """
    server.set_max_target_bytes(10)
    server.set_max_header_count(3)
    server.set_max_header_bytes(20)
    server.listen(("127.0.0.1", 0))
    def status(head):
        with socket.create_connection(server_address, 5) as client:
            client.sendall(b"GET " + head + b"\\r\\n\\r\\n")
            return int(client.recv(1000).split()[1])
    def work():
        assert status(b"/234567890 HTTP/1.0") == 200
        assert status(b"/2345678901 HTTP/1.0") == 414
        assert status(b"/ HTTP/1.0" + 3 * b"\\r\\nA: b") == 200
        assert status(b"/ HTTP/1.0" + 4 * b"\\r\\nA: b") == 431
        assert status(b"/ HTTP/1.0\\r\\nA: " + 19 * b"b") == 200
        assert status(b"/ HTTP/1.0\\r\\nA: " + 20 * b"b") == 431
    server_address = server.addresses()[0]
    serve(work)
    """
    run(tmp_path, program)


def test_a_slow_head_has_the_time_that_was_set(tmp_path: Path) -> None:
    """And is answered 408 then."""
    program = """
    server.set_head_timeout(0.05)
    server.listen(("127.0.0.1", 0))
    def work():
        with socket.create_connection(server_address, 5) as client:
            client.sendall(b"GET / HT")
            assert client.recv(1000).startswith(b"HTTP/1.1 408")
    server_address = server.addresses()[0]
    serve(work)
    """
    run(tmp_path, program)


def test_connections_over_the_limit_wait(tmp_path: Path) -> None:
    """Until one that is open ends."""
    program = """
    server.set_picoev_max_fd(1)
    server.listen(("127.0.0.1", 0))
    def work():
        with socket.create_connection(server_address, 5) as first:
            first.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            assert first.recv(1000).startswith(b"HTTP/1.1 200")
            second = socket.create_connection(server_address, 0.2)
            second.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            raises(TimeoutError, second.recv, 1000)
        second.settimeout(5)
        assert second.recv(1000).startswith(b"HTTP/1.1 200")
        second.close()
    server_address = server.addresses()[0]
    serve(work)
    """
    run(tmp_path, program)


def test_set_listen_socket_takes_inherited_sockets(tmp_path: Path) -> None:
    """One or several, and once: a server that listens already says so."""
    program = """
    mine = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for fds, served in [(mine[0].fileno(), mine[:1]), ([one.fileno() for one in mine], mine)]:
        server.set_listen_socket(fds)
        raises(RuntimeError, server.set_listen_socket, fds)
        raises(RuntimeError, server.listen, ("127.0.0.1", 0))
        serve(lambda: [ask(one.getsockname()) for one in served])
    raises(TypeError, server.set_listen_socket, "x")
    for one in mine:
        one.close()
    """
    run(tmp_path, program)


def test_defaults(tmp_path: Path) -> None:
    """As the documentation has them."""
    program = """
    assert server.get_keepalive() == 5
    assert server.get_backlog() == 2048
    assert server.get_client_body_buffer_size() == 512 * 1024
    assert (server.get_head_timeout(), server.get_body_timeout(), server.get_send_timeout()) == (30, 30, 30)
    assert server.get_stop_idle_timeout() == 0
    assert server.get_max_header_count() == 100
    import resource
    assert server.get_picoev_max_fd() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    """
    run(tmp_path, program)


def test_settings_hold_for_the_next_run(tmp_path: Path) -> None:
    """A body over the limit is refused, and keepalive 0 closes each connection."""
    program = """
    server.set_max_content_length(10)
    server.set_keepalive(0)
    server.listen(("127.0.0.1", 0))
    port = server.addresses()[0][1]
    def work():
        for size, status in [(10, 200), (11, 413)]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", "/", b"x" * size)
            response = connection.getresponse()
            assert (response.status, response.getheader("Connection")) == (status, "close"), size
            response.read()
            connection.close()
    serve(work)
    """
    run(tmp_path, program)


def test_run_without_listen_is_refused(tmp_path: Path) -> None:
    """With a word on what is missing."""
    run(tmp_path, 'assert "listen()" in str(raises(RuntimeError, server.run, app))')


def test_unix_socket_has_no_length_to_hide(tmp_path: Path) -> None:
    """A path of the greatest length that the system takes."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/".ljust(107, "s")
        run(tmp_path, f"server.listen({path!r})\nserve(lambda: ask({path!r}))")


def test_run_needs_a_callable(tmp_path: Path) -> None:
    """Said before anything is served."""
    program = """
    server.listen(("127.0.0.1", 0))
    assert "app is 42" in str(raises(TypeError, server.run, 42))
    """
    run(tmp_path, program)


def test_an_inherited_descriptor_stays_the_callers(tmp_path: Path) -> None:
    """The server closes its own copy, at the end and when listening fails."""
    program = """
    mine = socket.create_server(("127.0.0.1", 0))
    raises(OSError, server.listen, socket_fd=[mine.fileno(), 999])
    assert mine.getsockname()[1] > 0
    server.listen(socket_fd=[mine.fileno(), mine.fileno()])
    serve(lambda: ask(mine.getsockname()))
    assert mine.getsockname()[1] > 0
    mine.close()
    """
    run(tmp_path, program)


def test_a_unix_socket_is_removed_wherever_the_program_has_gone(tmp_path: Path) -> None:
    """A relative path means what it meant when it was listened on; a file of that name elsewhere stays."""
    program = """
    os.mkdir("elsewhere")
    open("elsewhere/here.sock", "w").close()
    server.listen("here.sock")
    os.chdir("elsewhere")
    serve(lambda: ask("../here.sock"))
    assert os.path.exists("here.sock")
    assert not os.path.exists("../here.sock")
    """
    run(tmp_path, program)


def test_a_unix_socket_whose_queue_is_full_is_in_use(tmp_path: Path) -> None:
    """Finding that out does not wait for a place in the queue."""
    program = """
    busy = socket.socket(socket.AF_UNIX)
    busy.bind("busy.sock")
    busy.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect("busy.sock")
    assert raises(OSError, server.listen, "busy.sock").errno == errno.EADDRINUSE
    waiting.close()
    busy.close()
    """
    run(tmp_path, program)


def test_a_time_out_beyond_the_clock_is_none(tmp_path: Path) -> None:
    """The greatest keepalive that is taken keeps a connection, and the server."""
    program = """
    server.set_keepalive(2**64 - 1)
    server.set_graceful_timeout(1e300)
    server.listen(("127.0.0.1", 0))
    def work():
        connection = http.client.HTTPConnection(*server_address, timeout=5)
        for _ in range(2):
            connection.request("GET", "/")
            assert connection.getresponse().read() == str(server_address[1]).encode()
        connection.close()
    server_address = server.addresses()[0]
    serve(work)
    """
    run(tmp_path, program)


def test_a_kept_underscore_says_nothing_of_the_body(tmp_path: Path) -> None:
    """What would pass for a header that tells what the body is is dropped all the same."""
    program = """
    @validator
    def app(environ, start_response):
        names = ("CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr([environ.get(name) for name in names]).encode()]

    server.set_underscore_headers(True)
    server.listen(("127.0.0.1", 0))
    def work(port=server.addresses()[0][1]):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        headers = {"Content-Type": "a/b", "Content_Length": "99", "Content_Type": "c/d", "Transfer_Encoding": "chunked"}
        for body in [b"hello", b"four"]:
            connection.request("POST", "/", body, headers)
            seen = connection.getresponse().read().decode()
            assert seen == repr([str(len(body)), "a/b", None]), seen
        connection.close()
    serve(work)
    """
    run(tmp_path, program)


def test_headers_with_underscores_can_be_kept(tmp_path: Path) -> None:
    """They are dropped unless asked for, since they impersonate those with dashes."""
    program = """
    @validator
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ.get("HTTP_X_USER", "none").encode()]

    import logging.handlers
    warnings = logging.handlers.BufferingHandler(10)
    logging.getLogger("meinheld.error").addHandler(warnings)

    for keep, answer in [(server.get_underscore_headers(), b"none"), ("refuse", b"400 Bad Request\\n"), (True, b"ann")]:
        server.set_underscore_headers(keep)
        server.listen(("127.0.0.1", 0))
        def work(port=server.addresses()[0][1]):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/", headers={"X_User": "ann"})
            assert connection.getresponse().read() == answer
            connection.close()
        serve(work)
        assert server.get_underscore_headers() == keep
    for wrong in [1, "keep", None]:
        try:
            server.set_underscore_headers(wrong)
        except TypeError as error:
            assert str(error) == f"underscore_headers is {wrong!r} and must be True, False or 'refuse'", error
        else:
            raise AssertionError(wrong)
    assert server.get_underscore_headers() is True
    assert ["header X_User holds an underscore" in each.getMessage() for each in warnings.buffer] == [True]
    """
    run(tmp_path, program)
