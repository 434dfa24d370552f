"""The command: each mistake is one line and exit status 2, and the banner tells the truth."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wire import wait_until

from meinheld.cli import binding, options

HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"hello\\n"]
"""

CHAT = (
    HELLO
    + """
def make_app():
    return app

def needs(config):
    return app

def broken():
    raise RuntimeError("no database")

title = "chat"
"""
)


class Command:
    """Runs the command in a directory that has the given modules."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("chat.py", CHAT)

    def write(self, name: str, source: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def run(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meinheld", *words],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            **options,
        )

    def refuses(self, *words: str, **options: object) -> str:
        """The one line of a refusal, without the program's name."""
        done = self.run(*words, **options)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("meinheld: ") and done.stderr.endswith("\n"), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("meinheld: ").rstrip("\n")

    def blames_application(self, *words: str) -> list[str]:
        """The lines of an application's own traceback, with our line at the end."""
        done = self.run(*words)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "importlib" not in done.stderr and "meinheld/cli" not in done.stderr, done.stderr
        return done.stderr.splitlines()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    directory = tmp_path / "project"
    directory.mkdir()
    return Command(directory)


# Help and version


def test_version_names_the_python_too(command: Command) -> None:
    done = command.run("--version")
    python = ".".join(map(str, sys.version_info[:3]))
    assert done.returncode == 0
    assert re.fullmatch(rf"meinheld 2\.\S+ \(CPython {re.escape(python)}\S*\)\n", done.stdout)


def test_help_lists_every_flag_and_the_addresses(command: Command) -> None:
    done = command.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    flags = re.findall(r"--[a-z][a-z-]+", options.build_parser().format_help())
    assert "--graceful-timeout" in flags
    for word in [*flags, "unix:PATH", "fd://3", "exit status"]:
        assert word in done.stdout


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "meinheld"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.startswith("meinheld "), done


# Flags


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "no application is given: name one as MODULE:ATTRIBUTE, for example chat:app"),
        (["chat:app", "--bnd", ":0"], "unknown argument '--bnd'; did you mean --bind?"),
        (["chat:app", "other:app"], "unknown argument 'other:app' (see meinheld --help)"),
        (
            ["--access-log", "chat:app"],
            "no application is given: 'chat:app' was taken as the FILE of --access-log; "
            "write --access-log - chat:app to log to stderr",
        ),
        (
            ["chat:app", "--bind", ":0", "--bind", "fd://3", "--bind", "fd://3"],
            "--bind fd://3 is given twice",
        ),
        (
            ["chat:app", "--bind", "localhost"],
            "argument --bind: 'localhost' is not an address; expected HOST:PORT, [IPV6]:PORT, "
            ":PORT, unix:PATH or fd://N (see meinheld --help)",
        ),
        (
            ["chat:app", "--bind", "127.0.0.1:65536"],
            "argument --bind: '127.0.0.1:65536' has port 65536; expected 0 to 65535 "
            "(see meinheld --help)",
        ),
        (
            ["chat:app", "--keep-alive", "soon"],
            "argument --keep-alive: 'soon' is given; expected a whole number, 0 or more "
            "(see meinheld --help)",
        ),
        (
            ["chat:app", "--backlog", "0"],
            "argument --backlog: '0' is given; expected a whole number, 1 or more "
            "(see meinheld --help)",
        ),
    ],
)
def test_a_bad_flag_says_what_was_given_and_what_is_expected(
    command: Command, words: list[str], line: str
) -> None:
    assert command.refuses(*words) == line


def test_a_bad_log_level_names_the_levels(command: Command) -> None:
    line = command.refuses("chat:app", "--log-level", "loud")
    assert "--log-level" in line and "loud" in line and "warning" in line


@pytest.mark.parametrize("flag", ["--graceful-timeout", "--client-max-body", "--backlog"])
def test_a_flag_without_its_value_is_named(command: Command, flag: str) -> None:
    assert command.refuses("chat:app", flag).startswith(f"argument {flag}: expected one argument")


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", binding.Tcp("127.0.0.1", 8000)),
        ("localhost:0", binding.Tcp("localhost", 0)),
        (":8000", binding.Tcp("", 8000)),
        ("[::1]:8000", binding.Tcp("::1", 8000)),
        ("unix:/run/a b.sock", binding.Unix("/run/a b.sock")),
        ("unix:a:80", binding.Unix("a:80")),
        ("fd://12", binding.Fd(12)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, bind: binding.Bind) -> None:
    assert binding.parse_bind(text) == bind
    assert str(bind) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8000",
        "::1:8000",
        "[::1]",
        "a:b",
        "a:-1",
        "a:٣",
        "unix:",
        "fd://",
        "fd://x",
        "http://a:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected HOST:PORT"):
        binding.parse_bind(text)


# Finding the application


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("caht", "no module named 'caht' in {here} or on sys.path; did you mean chat?"),
        ("zzz:app", "no module named 'zzz' in {here} or on sys.path"),
        ("shop.wbe:app", "no module named 'wbe' in package 'shop'; did you mean shop.web?"),
        ("chat.app", "'chat' is a module, not a package; did you mean chat:app?"),
        ("chat:ap", "module 'chat' has no 'ap'; did you mean chat:app?"),
        ("chat:zzz", "module 'chat' has no 'zzz'; its callables are app, make_app, needs, broken"),
        ("shop", "module 'shop' has no 'app' or 'application'; it defines no callable"),
        ("chat:title", "chat:title is of type str; a WSGI application is a callable"),
        (
            "chat:make_app",
            "chat:make_app does not take the two arguments environ, start_response; "
            "is it a --factory?",
        ),
        (
            "./chat.py",
            "argument MODULE[:ATTRIBUTE]: './chat.py' names a file; a module is expected: "
            "chat:app, with --chdir if it is in another directory (see meinheld --help)",
        ),
        (
            "chat:",
            "argument MODULE[:ATTRIBUTE]: 'chat:' is not MODULE or MODULE:ATTRIBUTE "
            "(see meinheld --help)",
        ),
        (
            ":app",
            "argument MODULE[:ATTRIBUTE]: ':app' is not MODULE or MODULE:ATTRIBUTE "
            "(see meinheld --help)",
        ),
    ],
)
def test_an_application_that_is_not_found(command: Command, word: str, line: str) -> None:
    command.write("shop/__init__.py", "")
    command.write("shop/web.py", HELLO)
    assert command.refuses(word) == line.format(here=command.directory)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["chat:needs"], "chat:needs cannot be called without arguments, as --factory does"),
        (["chat:title"], "chat:title is of type str; --factory needs a callable"),
        (["shop"], "module 'shop' has no 'create_app' or 'make_app'; it defines no callable"),
        (["shop:dict"], "module 'shop' has no 'dict'; it defines no callable"),
    ],
)
def test_a_factory_that_cannot_be_used(command: Command, words: list[str], line: str) -> None:
    command.write("shop/__init__.py", "")
    assert command.refuses(*words, "--factory") == line


def test_a_directory_that_is_not_there(command: Command) -> None:
    line = command.refuses("chat", "--chdir", "nowhere")
    assert line == "cannot go to directory nowhere: No such file or directory"


# The application's own errors


def test_an_application_that_raises_shows_its_own_traceback(command: Command) -> None:
    command.write("boom.py", "def f():\n    return 1 / 0\n\nf()\n")
    lines = command.blames_application("boom")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{command.directory}/boom.py", line 4, in <module>'
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert lines[-1] == "meinheld: cannot import boom: ZeroDivisionError: division by zero"


def test_a_module_that_the_application_misses_is_its_own_error(command: Command) -> None:
    command.write("needy.py", "import not_installed\n")
    lines = command.blames_application("needy:app")
    assert lines[1] == f'  File "{command.directory}/needy.py", line 1, in <module>'
    error = "ModuleNotFoundError: No module named 'not_installed'"
    assert lines[-1] == f"meinheld: cannot import needy: {error}"


def test_a_syntax_error_shows_the_line(command: Command) -> None:
    command.write("wrong.py", "def (\n")
    lines = command.blames_application("wrong")
    assert f'  File "{command.directory}/wrong.py", line 1' in lines
    assert lines[-1].startswith("meinheld: cannot import wrong: SyntaxError: ")


def test_an_application_that_exits_while_it_is_imported(command: Command) -> None:
    command.write("leaves.py", "import sys\nsys.exit(0)\n")
    assert (
        command.blames_application("leaves")[-1] == "meinheld: cannot import leaves: SystemExit: 0"
    )


def test_a_factory_that_raises(command: Command) -> None:
    lines = command.blames_application("chat:broken", "--factory")
    assert lines[1].startswith(f'  File "{command.directory}/chat.py", line ')
    assert lines[-1] == "meinheld: cannot create chat:broken(): RuntimeError: no database"


def test_an_error_of_several_lines_is_one_line_at_the_end(command: Command) -> None:
    command.write("long.py", "raise ValueError('one\\ntwo')\n")
    assert (
        command.blames_application("long")[-1]
        == "meinheld: cannot import long: ValueError: one two"
    )


# Listening


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def this_process() -> str:
    return re.escape(f"already in use by pid {os.getpid()} (") + ".*" + re.escape(")")


def test_a_port_in_use_names_its_process(command: Command, taken: socket.socket) -> None:
    bind = f"127.0.0.1:{taken.getsockname()[1]}"
    line = command.refuses("chat", "--bind", bind)
    assert re.fullmatch(f"cannot listen on {bind}: {this_process()}", line)


def test_the_address_that_is_in_use_is_the_one_named(
    command: Command, taken: socket.socket
) -> None:
    bind = f":{taken.getsockname()[1]}"
    line = command.refuses("chat", "--bind", "127.0.0.1:0", "--bind", bind)
    assert re.fullmatch(f"cannot listen on {bind}: {this_process()}", line)


def test_an_ipv6_port_in_use_names_its_process(command: Command) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        bind = f"[::1]:{listener.getsockname()[1]}"
        line = command.refuses("chat", "--bind", bind)
    assert re.fullmatch(f"cannot listen on {re.escape(bind)}: {this_process()}", line)


def test_a_process_that_cannot_be_seen_is_said_so(
    monkeypatch: pytest.MonkeyPatch, taken: socket.socket
) -> None:
    monkeypatch.setattr(binding, "open_files", lambda pid: iter(()))
    bind = binding.Tcp("127.0.0.1", taken.getsockname()[1])
    assert binding.in_use(bind) == "already in use by a process that this user cannot see"


def test_a_listener_elsewhere_is_not_blamed(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    assert binding.listening_inodes(binding.Tcp("127.0.0.2", port)) == set()
    assert len(binding.listening_inodes(binding.Tcp("", port))) == 1


def test_a_unix_socket_in_use_names_its_process(command: Command) -> None:
    path = command.directory / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        line = command.refuses("chat", "--bind", f"unix:{path}")
    assert re.fullmatch(f"cannot listen on unix:{path}: {this_process()}", line)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:{}", ":{}"),
        (":{}", "127.0.0.1:{}"),
        ("127.0.0.1:{}", "localhost:{}"),
        ("[::]:{}", "[::1]:{}"),
        ("unix:s", "unix:./s"),
    ],
)
def test_an_address_that_another_bind_covers(command: Command, first: str, second: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first, second = first.format(port), second.format(port)
    line = command.refuses("chat", "--bind", first, "--bind", second)
    assert line == f"cannot listen on {second}: another --bind already covers it"
    assert not (command.directory / "s").exists()


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("unix:chat.py", "a file has that name and is not a socket"),
        ("unix:.", "a directory has that name and is not a socket"),
        ("unix:no/s", "there is no directory no"),
        (f"unix:{'x' * 108}", "the path is over 107 bytes long"),
        ("nobody.invalid:80", "unknown host 'nobody.invalid'"),
        ("203.0.113.7:0", "this machine does not have that address"),
        ("fd://77", "descriptor 77 is not open"),
        ("fd://0", "descriptor 0 is not a socket"),
    ],
)
def test_where_it_cannot_listen(command: Command, bind: str, reason: str) -> None:
    assert command.refuses("chat", "--bind", bind) == f"cannot listen on {bind}: {reason}"
    assert (command.directory / "chat.py").read_text() == CHAT


def test_a_descriptor_that_is_not_listening(command: Command) -> None:
    with socket.socket() as idle:
        number = idle.fileno()
        line = command.refuses("chat", "--bind", f"fd://{number}", pass_fds=[number])
    assert line == f"cannot listen on fd://{number}: the socket {number} is not listening"


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        (
            binding.Tcp("127.0.0.1", 80),
            "permission denied: low ports are for root; choose 1024 or higher",
        ),
        (binding.Unix("/s"), "permission denied in /"),
    ],
)
def test_permission_denied_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, bind: binding.Bind, reason: str
) -> None:
    # Root may do anything, so the refusal of the kernel is played.
    def deny(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(binding.server, "listen", deny)
    with pytest.raises(binding.Refusal) as refusal:
        binding.listen([bind])
    assert str(refusal.value) == f"cannot listen on {bind}: {reason}"


def test_an_access_log_that_cannot_be_written(command: Command) -> None:
    line = command.refuses("chat", "--access-log", "no/access.log")
    assert line == "cannot write the access log no/access.log: No such file or directory"


# Running


def test_the_banner_says_what_is_served_where(serve: Callable) -> None:
    server = serve(HELLO, bind=["127.0.0.1:0", "[::1]:0", "unix:s"], graceful_timeout=5)
    lines = server.output().splitlines()
    assert re.fullmatch(
        rf"meinheld 2\S+ \(CPython \S+\), pid {server.pid}, serves app:app on", lines[0]
    )
    assert re.fullmatch(r"  http://127\.0\.0\.1:[1-9]\d*", lines[1])
    assert re.fullmatch(r"  http://\[::1\]:[1-9]\d*", lines[2])
    assert lines[3] == "  unix:s"
    assert lines[4] == "Ctrl-C or SIGTERM stops it; requests in flight then have 5 s to end."
    assert server.get() == (200, b"hello\n")


def test_a_descriptor_is_listened_on(serve: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number, port = listener.fileno(), listener.getsockname()[1]
        server = serve(HELLO, bind=f"fd://{number}", pass_fds=[number])
    assert server.port == port
    assert server.get() == (200, b"hello\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_no_error(serve: Callable, number: signal.Signals) -> None:
    server = serve(HELLO)
    assert server.get() == (200, b"hello\n")
    assert server.stop(number) == 0


def test_ctrl_c_while_the_application_is_imported(command: Command) -> None:
    command.write("slow.py", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = command.run("slow")
    assert (done.returncode, done.stderr) == (130, "")


def test_without_the_flag_nothing_is_logged_about_a_request(serve: Callable) -> None:
    server = serve("import logging\nlogging.basicConfig(level=logging.INFO)\n" + HELLO)
    server.get("/quiet")
    server.stop()
    assert "/quiet" not in server.output()


def test_the_access_log_goes_to_stderr(serve: Callable) -> None:
    server = serve(HELLO, access_log="-")
    server.get("/seen")
    server.wait_for("/seen")
    assert server.output().count("/seen") == 1


def test_the_access_log_goes_to_a_file(serve: Callable, tmp_path: Path) -> None:
    server = serve(HELLO, access_log=tmp_path / "access.log")
    server.get("/seen")
    server.stop()
    assert (tmp_path / "access.log").read_text().count("/seen") == 1
    assert "/seen" not in server.output()


def test_the_usual_names_are_tried(command: Command, serve: Callable) -> None:
    command.write("wsgi.py", "from chat import app as application")
    server = serve(HELLO, app="wsgi", chdir=command.directory)
    assert "serves wsgi:application on" in server.output()
    assert server.get() == (200, b"hello\n")


def test_a_factory_is_called_for_the_application(command: Command, serve: Callable) -> None:
    server = serve(HELLO, app="chat", factory=True, chdir=command.directory)
    assert "serves chat:make_app() on" in server.output()
    assert server.get() == (200, b"hello\n")


@pytest.mark.parametrize("module", ["missing", "broken"])
def test_a_refusal_has_its_status_though_stderr_takes_nothing(command: Command, module: str) -> None:
    command.write("broken.py", "raise RuntimeError('at once')")
    words = [sys.executable, "-m", "meinheld", module]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, cwd=command.directory, stderr=full, timeout=20, check=False)
    assert done.returncode == 2


def test_a_server_whose_stderr_nobody_reads_serves(command: Command) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "meinheld", "chat", "--bind", "unix:s", "--access-log", "-"]
    process = subprocess.Popen(words, cwd=command.directory, stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            path = str(command.directory / "s")
            wait_until(lambda: process.poll() is not None or client.connect_ex(path) == 0, "it listens")
            assert process.poll() is None
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b""
            while piece := client.recv(4096):
                received += piece
        assert received.endswith(b"hello\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
