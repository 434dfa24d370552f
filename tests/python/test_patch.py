"""`meinheld.patch`: clients of the standard library and of PyPI, used in requests, wait side by side.

That they do is counted, not timed: the upstream answers nobody before all have asked.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Server
from program import run_program
from wire import get, wait_until

COUNT = 50
#: A key that nothing but these tests trusts, with its certificate for localhost and 127.0.0.1.
KEY = Path(__file__).with_name("localhost.pem")
SECONDS = 20

#: Runs behind lines that say what PORT, SCHEME, CONTEXT and VERIFY are.
APP = """
from meinheld.patch import patch_all
patch_all()

import http.client, urllib.request
import requests

URL = f"{SCHEME}://127.0.0.1:{PORT}"
session = requests.Session()

def by_urllib():
    with urllib.request.urlopen(URL, timeout=30, context=CONTEXT) as response:
        return response.read()

def by_http_client():
    client = http.client.HTTPConnection("127.0.0.1", PORT)
    client.request("POST", "/", body=b"x" * 10)
    return client.getresponse().read()

def by_requests():
    return requests.get(URL, timeout=30, verify=VERIFY).content

def by_session():
    return session.get(URL).content

def app(environ, start_response):
    body = globals()[environ["PATH_INFO"].strip("/")]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


class Upstream(ThreadingHTTPServer):
    """Answers requests when COUNT of them are there."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.all_there = threading.Barrier(COUNT)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """Wait for the others."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Upstream)
        try:
            self.server.all_there.wait(SECONDS)
            body = b"all at once"
        except threading.BrokenBarrierError:
            body = b"one after the other"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server to fetch from."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get_many(port: int, path: str) -> list[str]:
    """The answers to COUNT requests that are sent at once."""
    with ThreadPoolExecutor(COUNT) as pool:
        return list(pool.map(lambda _: get(port, path).text, range(COUNT)))


@pytest.mark.parametrize("way", ["by_urllib", "by_http_client", "by_requests", "by_session"])
def test_fifty_requests_fetch_at_once(
    serve: Callable[..., Server], upstream: Upstream, way: str
) -> None:
    """On one process, from an upstream that answers when all have asked."""
    plain = f"PORT, SCHEME, CONTEXT, VERIFY = {upstream.server_port}, 'http', None, True\n"
    server = serve(plain + APP)
    for _ in range(2):
        assert get_many(server.port, f"/{way}") == ["all at once"] * COUNT


#: Lines that patch before anything else is imported.
PATCHED = "from meinheld.patch import patch_all\npatch_all()\n"


@pytest.mark.parametrize("imported", ["before", "after"])
@pytest.mark.parametrize("way", ["by_urllib", "by_requests"])
def test_fifty_requests_fetch_over_tls_at_once(
    serve: Callable[..., Server], upstream: Upstream, way: str, imported: str
) -> None:
    """Handshakes and all, whether `ssl` was imported before the patch or after."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(KEY)
    upstream.socket = context.wrap_socket(
        upstream.socket, server_side=True, do_handshake_on_connect=False
    )
    tls = f"""
import ssl
PORT, SCHEME, VERIFY = {upstream.server_port}, "https", {str(KEY)!r}
CONTEXT = ssl.create_default_context(cafile=VERIFY)
"""
    server = serve((PATCHED if imported == "after" else "") + tls + APP)
    assert get_many(server.port, f"/{way}") == ["all at once"] * COUNT


def test_tls_sockets_do_what_they_did(tmp_path: Path) -> None:
    """In a coroutine as on a thread: reading, writing, time-outs, the end, an untrusted peer."""
    ended = run_program(
        tmp_path,
        f"""
        from meinheld.patch import patch_all
        patch_all()
        import ssl

        SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        SERVER.load_cert_chain({str(KEY)!r})
        CLIENT = ssl.create_default_context(cafile={str(KEY)!r})

        def serve_one(listener):
            one, _ = listener.accept()
            with one:
                while data := one.recv(100000):
                    one.sendall(data)

        def talk():
            listener = SERVER.wrap_socket(socket.socket(), server_side=True)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            serving = threading.Thread(target=serve_one, args=(listener,))
            serving.start()
            with socket.create_connection(listener.getsockname()) as plain:
                with CLIENT.wrap_socket(plain, server_hostname="localhost") as one:
                    notes.append([one.version(), one.getpeercert()["subjectAltName"][0][1], one.gettimeout()])
                    data = bytes(range(256)) * 1000
                    one.sendall(data)
                    with one.makefile("rb") as file:
                        notes.append(file.read(len(data)) == data)
                    one.settimeout(0.02)
                    notes.append([kind(one.recv, 1).split(":")[0], one.gettimeout()])
                    one.setblocking(False)
                    notes.append(kind(one.recv, 1).split(":")[0])
                    one.settimeout(5)
                    one.sendall(b"again")
                    notes.append(one.recv(10).decode())
                    one.shutdown(socket.SHUT_WR)
            serving.join()
            listener.close()

        def distrust():
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            serving = threading.Thread(target=lambda: kind(SERVER.wrap_socket, listener.accept()[0], server_side=True))
            serving.start()
            plain = socket.create_connection(listener.getsockname())
            notes.append(kind(ssl.create_default_context().wrap_socket, plain, server_hostname="localhost").split(":")[0])
            plain.close()
            serving.join()
            listener.close()

        def both():
            talk()
            distrust()

        both()
        blocking = list(notes)
        notes.clear()
        serve(both)
        notes.append(notes == blocking or blocking)
        """,
    )
    assert ended.notes == [
        ["TLSv1.3", "localhost", None],
        True,
        ["TimeoutError", 0.02],
        "SSLWantReadError",
        "again",
        "SSLCertVerificationError",
        True,
    ]


@contextmanager
def running_redis(directory: Path) -> Iterator[Path]:
    """A redis-server on a unix socket."""
    path = directory / "redis.sock"
    program = shutil.which("redis-server")
    assert program, "this test needs redis-server: apt-get install redis-server"
    arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)]
    with subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: accepts(path) or process.poll() is not None, "redis-server listens", SECONDS)
            assert process.poll() is None, "redis-server does not start"
            yield path
        finally:
            process.terminate()
            process.wait(SECONDS)


def accepts(path: Path) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


REDIS = """
from meinheld.patch import patch_all
patch_all()

import json, redis

client = redis.Redis(unix_socket_path="{path}", socket_timeout=60)

def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "blocked":
        answer = client.info("clients")["blocked_clients"]
    elif name == "wake":
        answer = [client.rpush("queue", number) for number in range(50)]
    else:
        client.set(name, "value of " + name)
        answer = [int(client.blpop("queue", 50)[1]), client.get(name).decode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps(answer).encode()]
"""


def test_fifty_requests_wait_for_redis_at_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Each in a blocking command, until one more request gives them what they wait for."""
    with running_redis(tmp_path) as path:
        server = serve(REDIS.replace("{path}", str(path)))
        with ThreadPoolExecutor(COUNT) as pool:
            waiting = [pool.submit(get, server.port, f"/name{n}") for n in range(COUNT)]
            wait_until(lambda: get(server.port, "/blocked").json() == COUNT, server.output, SECONDS)
            get(server.port, "/wake")
            answers = [answer.result(SECONDS).json() for answer in waiting]
        assert sorted(number for number, _ in answers) == list(range(COUNT))
        assert [name for _, name in answers] == [f"value of name{n}" for n in range(COUNT)]


def test_sleep_select_and_poll_park(tmp_path: Path) -> None:
    """And do what they did, in coroutines and elsewhere."""
    ended = run_program(
        tmp_path,
        """
        from meinheld.patch import patch_all
        patch_all()
        patch_all()
        import select

        def same():
            here, there = socket.socketpair()
            for wait in (lambda t: select.select([here], [], [], t), lambda t: polled(here, t)):
                notes.append([wait(0), wait(0.01)])
                threading.Timer(0.02, there.send, [b"x"]).start()
                ready = wait(5)
                notes.append(ready[0] == [here] or ready == [(here.fileno(), select.POLLIN)])
                here.recv(1)
            notes.append([one is here for one in select.select([here], [here], [])[1]])
            with open(__file__) as file:
                notes.append(len(select.select([file, here], [], [], None)[0]))
            notes.append(kind(select.select, [here], [], [], -1))
            notes.append(kind(time.sleep, "1").split(":")[0])
            notes.append(kind(time.sleep, -1).split(":")[0])

        def polled(one, seconds):
            poll = select.poll()
            poll.register(one)
            poll.modify(one, select.POLLIN)
            poll.register(0, 0)
            poll.unregister(0)
            return poll.poll(seconds * 1000)

        def parked():
            ticks = []
            def tick():
                while True:
                    ticks.append(1)
                    server.sleep(0.001)
            ticking = server.spawn(tick)
            here, _there = socket.socketpair()
            for wait in (time.sleep, lambda s: select.select([here], [], [], s), lambda s: polled(here, s)):
                ticks.clear()
                wait(0.05)
                notes.append(len(ticks) > 0)
            ticking.kill()

        same()
        blocking = list(notes)
        notes.clear()
        serve(lambda: [same(), parked()])
        notes[:-3] = [notes[:-3] == blocking or [blocking, notes[:-3]]]
        """,
    )
    assert ended.notes == [True, True, True, True]


def test_the_example_fetches_several_at_once(upstream: Upstream) -> None:
    """As a program of its own."""
    example = Path(__file__).resolve().parents[2] / "examples" / "patched_urllib.py"
    upstream.all_there = threading.Barrier(3)
    url = f"http://127.0.0.1:{upstream.server_port}/"
    with subprocess.Popen(
        [sys.executable, str(example), "127.0.0.1:0", *[url + name for name in "ab"], url + "c?x=1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1].strip().strip("/"))
            answer = get(port, "/")
            assert answer.status == 200
            assert answer.text.count("all at once") == 3
            assert [line.split()[0] for line in answer.text.splitlines()] == [f"{url}a", f"{url}b", f"{url}c?x=1"]
        finally:
            process.terminate()
        assert process.wait(10) == 0
