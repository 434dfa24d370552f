"""The worker under gunicorn itself, as a process with workers of its own: loaded, reloaded, killed.

Load is bounded: a few clients in threads, each request of which must be answered.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from process import Running
from wire import wait_until

APP = """
import os, time
from meinheld import middleware

waiting = []

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = "hello"
    if path == "/pid":
        body = str(os.getpid())
    elif path == "/environ":
        body = repr([environ[key] for key in (
            "wsgi.url_scheme", "wsgi.multiprocess", "wsgi.multithread", "SCRIPT_NAME", "PATH_INFO")])
    elif path == "/block":
        time.sleep(100)
    elif path == "/wait":
        c = environ[middleware.CONTINUATION_KEY]
        waiting.append(c)
        body = c.suspend(20)
    elif path == "/send":
        body = str(len(waiting))
        while waiting:
            waiting.pop().resume("woken")
    elif path == "/fail":
        raise RuntimeError("the reason")
    elif path == "/errors":
        print("to wsgi.errors", file=environ["wsgi.errors"])
    elif path.startswith("/x/"):
        body = environ["SCRIPT_NAME"] + " " + environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Out", "out")])
    return [body.encode()]

app = middleware.SpawnMiddleware(application)
"""


class Gunicorn(Running):
    """A running gunicorn."""

    def __init__(self, directory: Path, conf: str, arguments: tuple[str, ...]) -> None:
        self.directory = directory
        (directory / "app.py").write_text(APP)
        (directory / "conf.py").write_text("control_socket_disable = True\n" + textwrap.dedent(conf))
        command = [sys.executable, "-m", "gunicorn", "-c", "conf.py", *arguments]
        if not any(word in ("-b", "--bind") for word in arguments):
            command += ["-b", "127.0.0.1:0"]
        command += ["-k", "egg:meinheld#gunicorn_worker", "app:app"]
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        super().__init__(command, directory / "gunicorn.log", cwd=directory, env=environ)

    def get(self, path: str = "/", headers: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Start gunicorns: `gunicorn(conf, *arguments)`."""
    started = []

    def start(conf: str = "", *arguments: str, workers: int = 1) -> Gunicorn:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        running = Gunicorn(directory, conf, ("-w", str(workers), *arguments))
        started.append(running)
        running.wait_for("Booting worker", workers)
        return running

    yield start
    for running in started:
        running.stop()


@contextmanager
def load(running: Gunicorn, keep_alive: bool) -> Iterator[list[int]]:
    """Four clients that ask all the time; each answer must be right. Yields a list of the counts."""
    over = threading.Event()
    failures: list[str] = []
    counts = [0, 0, 0, 0]
    port = running.port

    def work(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        try:
            while not over.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"hello")
                counts[place] += 1
                if not keep_alive:
                    connection.close()
        except Exception as error:
            failures.append(f"{counts[place]}: {error!r}")
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: bool(failures) or min(counts) > 5, "load")
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures, f"{failures}\n{running.output()}"


@pytest.mark.parametrize("keep_alive", [False, True])
def test_reload_under_load_fails_no_request(gunicorn: Callable[..., Gunicorn], keep_alive: bool) -> None:
    """Old workers answer what they have; new ones take over."""
    running = gunicorn(workers=2)
    with load(running, keep_alive) as counts:
        for times in [1, 2, 3]:
            running.send_signal(signal.SIGHUP)
            running.wait_for("Worker exiting", 2 * times)
            before = min(counts)
            wait_until(lambda before=before: min(counts) > before + 5, "requests after the reload")


@pytest.mark.parametrize("keep_alive", [False, True])
def test_max_requests_recycles_without_a_failed_request(
    gunicorn: Callable[..., Gunicorn], keep_alive: bool
) -> None:
    """A worker ends after so many, and another takes its place."""
    running = gunicorn("max_requests = 50\nmax_requests_jitter = 20", workers=2)
    with load(running, keep_alive):
        running.wait_for("Autorestarting worker after current request.", 6)
        running.wait_for("Worker exiting", 5)
    assert "Traceback" not in running.output()


def test_killed_worker_is_replaced(gunicorn: Callable[..., Gunicorn]) -> None:
    """And the other one serves meanwhile."""
    running = gunicorn(workers=2)
    killed = int(running.get("/pid")[1])
    os.kill(killed, signal.SIGKILL)
    running.wait_for("Booting worker", 3)
    assert int(running.get("/pid")[1]) != killed
    wait_until(lambda: len(running.children()) == 2, "two workers")


def test_blocked_worker_is_aborted_and_an_idle_one_is_not(gunicorn: Callable[..., Gunicorn]) -> None:
    """The sign of life comes from the loop: blocked, it does not come."""
    running = gunicorn("timeout = 2\ndef worker_abort(worker): print('hook abort', flush=True)")
    pid = running.get("/pid")[1]
    for _ in range(2):
        # Longer than the time-out.
        time.sleep(3)
        assert running.get("/pid")[1] == pid, running.output()
    with suppress(http.client.HTTPException, ConnectionError):
        assert running.get("/block")[0] != 200
    running.wait_for("WORKER TIMEOUT")
    running.wait_for("Booting worker", 2)
    assert running.get("/pid")[1] != pid
    output = running.output()
    assert "GET /block raised an exception" in output and "SystemExit: 1" in output
    assert "hook abort" in output


def test_term_lets_requests_in_flight_end(gunicorn: Callable[..., Gunicorn]) -> None:
    """Suspended ones too, which others resume while the worker retires."""
    running = gunicorn()
    kept, probe = (http.client.HTTPConnection("127.0.0.1", running.port, timeout=15) for _ in "12")
    with socket.create_connection(("127.0.0.1", running.port), 15) as waiting, closing(kept), closing(probe):
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        # One worker takes them in order, so that the first waits when the second is answered.
        for connection in (kept, probe):
            connection.request("GET", "/")
            connection.getresponse().read()
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: is_last(probe), "the worker retires")
        kept.request("GET", "/send")
        response = kept.getresponse()
        assert (response.read(), response.getheader("Connection")) == (b"1", "close")
        assert waiting.recv(1000).endswith(b"woken")
    assert running.stop() == 0


def is_last(connection: http.client.HTTPConnection) -> bool:
    """Whether the connection ends with this request."""
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.getheader("Connection") == "close"


def test_graceful_timeout_ends_what_is_left(gunicorn: Callable[..., Gunicorn]) -> None:
    """With a 503 for those that are suspended, before the arbiter kills."""
    running = gunicorn("graceful_timeout = 2")
    with socket.create_connection(("127.0.0.1", running.port), 15) as waiting:
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert running.get()[0] == 200
        running.send_signal(signal.SIGTERM)
        assert waiting.recv(1000).startswith(b"HTTP/1.1 503")
    assert running.stop() == 0
    assert "SIGKILL" not in running.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop(gunicorn: Callable[..., Gunicorn], number: signal.Signals) -> None:
    """At once, through the hooks."""
    conf = """
    def worker_int(worker): print("hook int", flush=True)
    def worker_exit(arbiter, worker): print("hook exit", flush=True)
    """
    running = gunicorn(conf, workers=2)
    assert running.get()[0] == 200
    assert running.stop(number, 10) == 0
    assert (running.output().count("hook int"), running.output().count("hook exit")) == (2, 2)
    assert "Traceback" not in running.output()


def test_hooks_around_a_request(gunicorn: Callable[..., Gunicorn]) -> None:
    """With what gunicorn's own objects say."""
    conf = """
    def pre_request(worker, req):
        print("pre", req.method, req.path, req.uri, req.version, flush=True)
    def post_request(worker, req, environ, resp):
        headers = [value for name, value in req.headers if name == "X-IN"]
        print("post", environ["PATH_INFO"], headers, resp.status, resp.sent, resp.headers, flush=True)
    def post_worker_init(worker):
        print("init", flush=True)
    """
    running = gunicorn(conf)
    assert running.get("/?a=b", {"X-In": "in"}) == (200, "hello")
    assert running.get("/fail")[0] == 500
    running.wait_for("post /fail [] 500 Internal Server Error")
    output = running.output()
    assert "init" in output
    assert "pre GET / /?a=b (1, 1)" in output
    assert "post / ['in'] 200 OK 5 [('Content-Type', 'text/plain'), ('X-Out', 'out')]" in output
    assert output.count("RuntimeError: the reason") == 1 and "[ERROR] GET /fail" in output


def test_access_log_and_reopening(gunicorn: Callable[..., Gunicorn]) -> None:
    """gunicorn's own format, and a file that is opened anew after SIGUSR1."""
    form = "%(h)s|%(r)s|%(s)s|%(b)s|%(D)s|%(L)s|%({x-in}i)s|%({x-out}o)s|%({none}i)s|%(a)s|%(p)s"
    running = gunicorn(f"accesslog = 'access.log'\naccess_log_format = {form!r}\nerrorlog = 'error.log'\n"
                       "def when_ready(arbiter): print('Listening at:', arbiter.LISTENERS[0], flush=True)\n"
                       "def post_fork(arbiter, worker): print('Booting worker', flush=True)")
    access = running.directory / "access.log"
    assert running.get("/a?b", {"X-In": "in", "User-Agent": 'ag"ent'}) == (200, "hello")
    running.get("/errors")
    wait_until(lambda: access.read_text().count("\n") == 2, "two lines")
    line = access.read_text().splitlines()[0]
    wanted = r'127\.0\.0\.1\|GET /a\?b HTTP/1\.1\|200\|5\|\d+\|0\.\d{6}\|in\|out\|-\|ag\\"ent\|<\d+>'
    assert re.fullmatch(wanted, line), line
    assert "to wsgi.errors\n" in (running.directory / "error.log").read_text()
    access.rename(running.directory / "access.log.1")
    running.send_signal(signal.SIGUSR1)
    wait_until(access.exists, "a new file")

    def is_logged_anew() -> bool:
        running.get("/new")
        return "/new" in access.read_text()

    wait_until(is_logged_anew, "lines in the new file")
    with socket.create_connection(("127.0.0.1", running.port), 15) as leaving:
        leaving.sendall(b"GET /wait HTTP/1.0\r\n\r\n")
    wait_until(lambda: "|GET /wait HTTP/1.0|499|0|" in access.read_text(), "the client that went")


def test_schemes_and_environ(gunicorn: Callable[..., Gunicorn]) -> None:
    """By the headers of trusted proxies, which may not contradict each other."""
    running = gunicorn(workers=2)
    secure = {"X-Forwarded-Proto": "https"}
    assert running.get("/environ", secure)[1] == "['https', True, True, '', '/environ']"
    assert running.get("/environ")[1].startswith("['http'")
    assert running.get("/environ", {"X-Forwarded-Proto": "http"})[1].startswith("['http'")
    assert running.get("/environ", {**secure, "X-Forwarded-Ssl": "off"})[0] == 400
    untrusting = gunicorn("forwarded_allow_ips = '10.0.0.0/8'\nraw_env = ['SCRIPT_NAME=/x']")
    assert untrusting.get("/x/environ", secure) == (200, "['http', False, True, '/x', '/environ']")
    assert untrusting.get("/y")[0] == 500


def test_limits_of_heads(gunicorn: Callable[..., Gunicorn]) -> None:
    """As the settings have them."""
    running = gunicorn(
        "limit_request_line = 100\nlimit_request_fields = 10\nlimit_request_field_size = 50\nkeepalive = 0"
    )
    assert running.get("/" + "a" * 86)[0] == 200
    assert running.get("/" + "a" * 87)[0] == 414
    assert running.get("/", {"X": "a" * 45})[0] == 200
    assert running.get("/", {"X": "a" * 46})[0] == 431
    assert running.get("/", {f"X-{number}": "a" for number in range(9)})[0] == 431


@pytest.mark.parametrize(("header_map", "status"), [("drop", 200), ("refuse", 400), ("dangerous", 200)])
def test_header_map(gunicorn: Callable[..., Gunicorn], header_map: str, status: int) -> None:
    """What becomes of a name with an underscore is what the setting says, without a warning."""
    running = gunicorn(f"header_map = {header_map!r}")
    for _ in range(3):
        assert running.get("/", {"X_User": "ann"})[0] == status
    assert "header_map" not in running.output()
    warnings = re.findall(r"\[WARNING\] answered 400 to .*X_User holds an underscore", running.output())
    assert len(warnings) == (header_map == "refuse"), "that it refuses is told, and told seldom"


@pytest.mark.parametrize("level", ["debug", "info"])
def test_why_requests_are_refused(gunicorn: Callable[..., Gunicorn], level: str) -> None:
    """Is in the error log of one who wants to know everything."""
    running = gunicorn(f"loglevel = {level!r}\nlimit_request_field_size = 50")
    assert running.get("/", {"X": "a" * 46})[0] == 431
    reason = "with 431: a header field of the request is too large"
    assert (reason in running.output()) == (level == "debug")


def test_several_binds_and_long_poll(gunicorn: Callable[..., Gunicorn]) -> None:
    """Among them a unix socket; a request that waits is woken by one from elsewhere."""
    running = gunicorn("", "-b", "127.0.0.1:0", "-b", "unix:here.sock", "--preload")
    with socket.create_connection(("127.0.0.1", running.port), 15) as waiting:
        waiting.sendall(b"GET /wait HTTP/1.0\r\n\r\n")

        def wakes() -> bool:
            with socket.socket(socket.AF_UNIX) as other:
                other.settimeout(15)
                other.connect(str(running.directory / "here.sock"))
                other.sendall(b"GET /send HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: other.recv(1000), b"")).endswith(b"\r\n\r\n1")

        wait_until(wakes, "a request that waits")
        assert b"".join(iter(lambda: waiting.recv(1000), b"")).endswith(b"woken")


def test_reloader(gunicorn: Callable[..., Gunicorn]) -> None:
    """A changed file is served soon, even if a request waits."""
    running = gunicorn("reload = True\nreload_engine = 'poll'")
    assert running.get() == (200, "hello")
    file = running.directory / "app.py"
    with socket.create_connection(("127.0.0.1", running.port), 15) as waiting:
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        file.write_text(APP.replace('body = "hello"', 'body = "new"'))

        def is_new() -> bool:
            # Changed again and again: the reloader may not have seen the first version yet.
            now = time.time() + 5
            os.utime(file, (now, now))
            return running.get() == (200, "new")

        wait_until(is_new, "the new answer", 20)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--certfile", "app.py", "--keyfile", "app.py"), "does not speak TLS"),
        (("--proxy-protocol",), "does not speak the PROXY protocol"),
        (("--protocol", "uwsgi"), "speaks HTTP only"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    """Before any worker starts."""
    running = Gunicorn(tmp_path, "", arguments)
    assert running.wait_for_end() == 1, running.output()
    (line,) = [line for line in running.output().splitlines() if line.startswith("Error:")]
    assert word in line
    assert "Traceback" not in running.output() and "Booting" not in running.output()


def test_gunicorn_s_classes_are_left_alone() -> None:
    """Importing the worker changes none of them."""
    program = """
import gunicorn.glogging, gunicorn.workers.base, gunicorn.arbiter
classes = [gunicorn.glogging.Logger, gunicorn.workers.base.Worker, gunicorn.arbiter.Arbiter]
before = [dict(vars(one)) for one in classes]
from meinheld.gmeinheld import MeinheldWorker
assert issubclass(MeinheldWorker, gunicorn.workers.base.Worker)
assert [dict(vars(one)) for one in classes] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
