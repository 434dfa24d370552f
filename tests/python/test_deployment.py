"""The ways to deploy that the examples show, each as its user would start it; pserve and Bottle too."""

from __future__ import annotations

import configparser
import http.client
import os
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import Running, listening_port
from wire import Client, get, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = Path(sysconfig.get_path("scripts"))

Start = Callable[..., Running]


def deploy(directory: Path, command: list[str]) -> Running:
    """Run a command in a directory that it imports from."""
    environ = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    return Running(command, directory / "output", cwd=directory, env=environ)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands in a directory of their own, with copies of an example's files."""
    started = []

    def run(command: list[str], example: str = "") -> Running:
        if example:
            shutil.copytree(EXAMPLES / example, tmp_path, dirs_exist_ok=True)
        started.append(deploy(tmp_path, command))
        return started[-1]

    yield run
    for one in started:
        one.stop()
        assert "Traceback" not in one.output(), one.output()


def test_gunicorn_example(start: Start) -> None:
    """Its settings and its application: one request wakes another."""
    command = ["gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", "--no-control-socket", "app:app"]
    running = start([str(SCRIPTS / command[0]), *command[1:]], "gunicorn")
    port = running.port
    assert get(port, "/").text.startswith("process ")
    with Client(port) as waiting:
        waiting.send("/wait")
        wait_until(lambda: get(port, "/wake").text == "woke 1\n", "one that waits")
        assert waiting.response().text == "woken\n"
    assert running.stop() == 0


def test_pyramid_example(start: Start, tmp_path: Path) -> None:
    """By pserve, which finds the server by its name in the ini file."""
    shutil.copytree(EXAMPLES / "pyramid", tmp_path, dirs_exist_ok=True)
    ini = tmp_path / "site.ini"
    config = configparser.ConfigParser()
    config.read(ini)
    config["server:main"]["port"] = "0"
    with ini.open("w") as file:
        config.write(file)
    running = start([str(SCRIPTS / "pserve"), "site.ini"])
    assert get(running.port, "/hello/ann").text == "Hello, ann!\n"
    assert get(running.port, "/nobody").status == 404
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("port = x", "port = x is not a port"),
        ("bind = nonsense", "not an address"),
        ("keepalife = 5", "did you mean keepalive?"),
        ("keepalive = -0.5", "keepalive is -0.5"),
        ("backlog = 0", "backlog is 0"),
        ("send_timeout = soon", "send_timeout = soon"),
    ],
)
def test_mistake_in_an_ini_file_is_one_line(tmp_path: Path, lines: str, word: str) -> None:
    """What is wrong, and what would be right."""
    shutil.copytree(EXAMPLES / "pyramid", tmp_path, dirs_exist_ok=True)
    ini = tmp_path / "site.ini"
    wrong = lines.partition(" ")[0]
    kept = [line for line in ini.read_text().splitlines() if not line.startswith(wrong)]
    ini.write_text("\n".join(kept) + f"\n{lines}\n")
    running = deploy(tmp_path, [str(SCRIPTS / "pserve"), "site.ini"])
    # pserve itself ends with 0 after a SystemExit.
    running.wait_for_end()
    (line,) = [line for line in running.output().splitlines() if "meinheld: " in line]
    assert word in line
    assert "Traceback" not in running.output()


def test_ini_file_may_bind_several_addresses(start: Start, tmp_path: Path) -> None:
    """In place of a host and a port."""
    shutil.copytree(EXAMPLES / "pyramid", tmp_path, dirs_exist_ok=True)
    ini = tmp_path / "site.ini"
    ini.write_text(ini.read_text() + "bind = 127.0.0.1:0\n    unix:here.sock\nsend_timeout = 2.5\n")
    running = start([str(SCRIPTS / "pserve"), "site.ini"])
    assert get(running.port, "/hello/bob").text == "Hello, bob!\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / "here.sock"))
        client.sendall(b"GET /hello/eve HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"Hello, eve!\n")


def test_bottle_s_adapter(start: Start, tmp_path: Path) -> None:
    """`run(server="meinheld")` calls what there is."""
    program = """
import bottle

@bottle.route("/hello/<name>")
def hello(name):
    return "Hello, " + name

bottle.run(server="meinheld", host="127.0.0.1", port=0, quiet=True)
"""
    (tmp_path / "program.py").write_text(program)
    running = start([sys.executable, "program.py"])
    assert get(listening_port(running), "/hello/ann").text == "Hello, ann"
    assert running.stop() == 0


def test_inherited_socket_example(start: Start) -> None:
    """The port is the supervisor's."""
    running = start([sys.executable, str(EXAMPLES / "inherited_socket.py"), "0"])
    port = running.port
    assert get(port, "/").text == f"inherited port {port}\n"
    (child,) = running.children()
    os.kill(child, signal.SIGTERM)
    assert running.wait_for_end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fork_after_listen_example(start: Start, number: signal.Signals) -> None:
    """Each child answers, and none outlives the parent."""
    running = start([sys.executable, str(EXAMPLES / "fork_after_listen.py"), "0"])
    port = running.port
    seen: set[int] = set()

    def have_all_answered() -> bool:
        # Connections that are kept occupy the one, so that the other has its turn.
        held = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(8)]
        for connection in held:
            connection.request("GET", "/")
        seen.update(int(connection.getresponse().read()) for connection in held)
        for connection in held:
            connection.close()
        return len(seen) == 2

    wait_until(have_all_answered, "answers of both", 20)
    assert seen == set(running.children())
    assert running.stop(number) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen)
