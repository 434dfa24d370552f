"""The access log as the server writes it itself: the same lines, at once, and nothing lost or waited for."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from lab import Lab, Wire, running_lab
from logged import APP, LINES, TIME, get
from program import run_program
from wire import wait_until

#: What keeps the lines of a logger from being written by the server, and does nothing else.
THROUGH_LOGGING = """
import logging
logging.getLogger("meinheld.access").addFilter(lambda record: True)
"""


@contextmanager
def both(directory: Path, source: str, **options: object) -> Iterator[tuple[Lab, Lab]]:
    """Two servers that differ in who writes the lines of their access log: the server, and logging."""
    folders = [directory / name for name in ("direct", "logging")]
    for folder in folders:
        folder.mkdir()
    with running_lab(folders[0], source, **options) as direct:
        with running_lab(folders[1], source + THROUGH_LOGGING, **options) as through:
            yield direct, through


def lines(lab: Lab, count: int) -> list[str]:
    """So many lines of a log, with * for their times."""
    path = lab.server.directory / "log"
    wait_until(lambda: path.read_text().count("\n") >= count, path.read_text)
    found = path.read_text()
    assert re.fullmatch(rf"([^\n]* - - \[{TIME}\] [^\n]*\n){{{count}}}", found), found
    return re.sub(TIME, "*", found).splitlines()


def test_the_lines_are_those_of_logging_to_the_byte(tmp_path: Path) -> None:
    requests = [request for request, _ in LINES]
    with both(tmp_path, APP, access_log="log") as labs:
        for request in requests:
            for lab in labs:
                with lab.connect() as wire:
                    wire.send(request).until(b"\r\n\r\n")
        direct, through = (lines(lab, len(requests)) for lab in labs)
        assert direct == through
        assert direct == [f"127.0.0.1 - - [*] {line}" for _, line in LINES]


#: What is refused, and how it is shown.
REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", '"GET / HTTP/1.1" 400 16'),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", r'"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" 400 16'),
    (b'GET /"\\ HTTP/1.1\r\nHost: x\r\n\r\n', r'"GET /\"\\ HTTP/1.1" 400 16'),
    (b"\r\n\r\nGET /\x00\r\n\r\n", r'"GET /\x00" 400 16'),
    (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), '"GET /' + "a" * 507 + '..." 414 17'),
    (b"GET /x HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 40000), '"GET /x HTTP/1.1" 431 36'),
    (b"POST /y HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", '"POST /y HTTP/1.1" 413 22'),
    (b"HEAD /z HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", '"HEAD /z HTTP/1.1" 413 0'),
    (b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", '"POST /c HTTP/1.1" 400 16'),
]


def test_requests_that_are_refused_have_their_lines(tmp_path: Path) -> None:
    """With what came of the first line, and the bytes of the body that they were answered."""
    with both(tmp_path, APP, access_log="log") as labs:
        for wire_bytes, line in REFUSED:
            for lab in labs:
                with lab.connect() as wire:
                    response = wire.send(wire_bytes).response(wire_bytes.lstrip()[:4].decode("latin-1"))
                    assert f'" {response.status} {len(response.body)}' in line, (line, response)
        for lab in labs:
            assert lines(lab, len(REFUSED)) == [f'127.0.0.1 - - [*] {line} "-" "-"' for _, line in REFUSED]


def test_a_request_that_took_too_long_has_its_line(tmp_path: Path) -> None:
    source = APP + "\nserver.set_head_timeout(0.05)\nserver.set_body_timeout(0.05)\n"
    with both(tmp_path, source, access_log="log") as labs:
        for lab in labs:
            with lab.connect() as wire:
                assert wire.send(b"GET /slow HTTP/1.1\r\nHo").response().status == 408
            with lab.connect() as wire:
                assert wire.send(get("/body", "Content-Length: 9\r\n", "POST") + b"half").response().status == 408
            # A connection on which nothing is asked is no request.
            with lab.connect() as wire:
                assert wire.closed()
            assert [line.split('"')[1:3] for line in lines(lab, 2)] == [
                ["GET /slow HTTP/1.1", " 408 20 "],
                ["POST /body HTTP/1.1", " 408 20 "],
            ]


def test_a_request_that_panics_has_its_line(tmp_path: Path) -> None:
    with both(tmp_path, APP, access_log="log") as labs:
        for lab in labs:
            with lab.connect() as wire:
                assert wire.send(get("/panic")).response().status == 500
            assert lines(lab, 1) == ['127.0.0.1 - - [*] "GET /panic HTTP/1.1" 500 26 "-" "-"']
            lab.server.expects_traceback = True


#: A logger that shows what it is told.
OWN = APP + """
class Own:
    def access(self, environ):
        with open("log", "a") as log:
            print(environ["PATH_INFO"], environ["STATUS_CODE"], environ["SEND_BYTES"], file=log)
server.set_access_logger(Own())
"""


def leave_parked(lab: Lab, how: Callable[[socket.socket], object]) -> bytes:
    """Ask for what does not come, and go; what came yet."""
    before = lab.server.get("/parked")[1]
    with lab.connect() as wire:
        wire.send(get("/park"))
        wait_until(lambda: lab.server.get("/parked")[1] != before, lab.server.output)
        how(wire.socket)
        return b"" if wire.socket.fileno() < 0 else wire.socket.recv(100)


def test_a_client_that_goes_before_the_answer_is_no_error(tmp_path: Path) -> None:
    """Nobody took the bytes of an answer: there is none, and 499 in the log."""
    with both(tmp_path, APP, access_log="log") as labs:
        for lab in labs:
            log = lab.server.directory / "log"
            assert leave_parked(lab, socket.socket.close) == b""
            assert leave_parked(lab, lambda client: client.shutdown(socket.SHUT_WR)) == b""
            wait_until(lambda log=log: log.read_text().count('"GET /park HTTP/1.1" 499 0 "-" "-"\n') == 2, log.read_text)
            assert lab.server.get("/other")[0] == 500
            wait_until(lambda log=log: '"GET /other HTTP/1.1" 500 26 ' in log.read_text(), log.read_text)
    own = tmp_path / "own"
    own.mkdir()
    with running_lab(own, OWN) as lab:
        leave_parked(lab, socket.socket.close)
        wait_until(lambda: "/park 499 0\n" in (own / "log").read_text(), (own / "log").read_text)


def test_lines_stay_in_their_order_with_errors(tmp_path: Path) -> None:
    """Both go to standard error: what happened first is there first."""
    with running_lab(tmp_path, APP, access_log=True) as lab:
        with lab.connect() as wire:
            wire.send(get("/1") + get("/2") + get("/fail") + get("/never"))
            lab.log('GET /fail HTTP/1.1"')
        log = lab.server.output()
        places = [log.index(what) for what in ['"GET /1 ', '"GET /2 ', "RuntimeError: the reason", '"GET /fail ']]
        assert places == sorted(places), log


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """As logrotate does it, and with copytruncate."""
    log = tmp_path / "log"
    with running_lab(tmp_path, APP, access_log="log") as lab:

        def seen(path: str) -> Callable[[], bool]:
            return lambda: log.exists() and f"GET {path} " in log.read_text()

        lab.server.get("/one")
        wait_until(seen("/one"))
        log.rename(tmp_path / "log.1")
        lab.server.get("/two")
        wait_until(seen("/two"))
        (tmp_path / "log.2").write_text(log.read_text())
        os.truncate(log, 0)
        lab.server.get("/three")
        wait_until(seen("/three"))
        assert log.read_text().startswith("127.0.0.1 - - [")
        log.unlink()
        lab.server.get("/four")
        wait_until(seen("/four"))
    assert [(tmp_path / name).read_text().count("\n") for name in ["log.1", "log.2", "log"]] == [1, 1, 1]


def test_a_directory_that_is_gone_fails_no_request_and_no_line(tmp_path: Path) -> None:
    """It is said once, in one line; and when it is back, the lines are written that were kept."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with running_lab(tmp_path, APP, access_log="logs/log") as lab:
        quiet = lab.server.output()
        (folder / "log").unlink()
        folder.rmdir()
        for number in range(20):
            assert lab.server.get(f"/kept/{number}")[0] == 200
        lab.server.wait_for("the access log cannot be written: [Errno 2] No such file or directory: ")
        folder.mkdir()
        log = folder / "log"
        wait_until(lambda: log.exists() and log.read_text().count("\n") == 20, lab.server.output)
        assert re.findall(r"/kept/(\d+) ", log.read_text()) == [str(number) for number in range(20)]
        assert lab.server.get("/more")[0] == 200
        wait_until(lambda: "/more" in log.read_text())
        said = lab.server.output().removeprefix(quiet)
        assert said.count("\n") == 1, said


def test_a_directory_that_is_gone_at_the_end_loses_lines_that_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with running_lab(tmp_path, APP, access_log="logs/log") as lab:
        folder.rename(tmp_path / "away")
        for _ in range(3):
            assert lab.server.get()[0] == 200
        assert lab.server.stop() == 0
        assert "lines of the access log that could not be written in time and are lost: 3\n" in lab.server.output()


def test_a_full_disk_fails_no_request_and_is_said_once(tmp_path: Path) -> None:
    with running_lab(tmp_path, APP, access_log="/dev/full") as lab:
        for _ in range(20):
            assert lab.server.get()[0] == 200
        lab.server.wait_for("the access log cannot be written: No space left on device")
        assert lab.server.output().count("cannot be written") == 1
        assert lab.server.stop() == 0
        assert "lines of the access log that could not be written in time and are lost: 20\n" in lab.server.output()


#: A server that writes its log to standard error.
TO_STDERR = APP + """
import logging
access = logging.getLogger("meinheld.access")
access.setLevel(logging.INFO)
access.propagate = False
access.addHandler(logging.StreamHandler())
logging.getLogger("meinheld.error").addHandler(logging.FileHandler("errors"))
server.listen(("127.0.0.1", 0))
print(server.addresses()[0][1], flush=True)
server.run(app)
"""


@contextmanager
def piped(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A server whose standard error is a pipe; its port, and the pipe's end."""
    (directory / "program.py").write_text(TO_STDERR)
    reading, writing = os.pipe()
    command = [sys.executable, "program.py"]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=writing) as running:
        os.close(writing)
        assert running.stdout is not None
        try:
            yield running, int(running.stdout.readline()), reading
        finally:
            running.kill()


def ask_often(port: int, count: int) -> None:
    """Send so many requests, and check each answer."""
    with Wire(("127.0.0.1", port), 30) as wire:
        for begin in range(0, count, 500):
            wire.send(b"".join(get(f"/{number}") for number in range(begin, begin + 500)))
            for _ in range(500):
                assert wire.response().status == 200


def test_a_reader_that_stands_still_stops_nobody(tmp_path: Path) -> None:
    """A MiB is kept for it; what is lost beyond is counted, and no line is cut."""
    with piped(tmp_path) as (running, port, reading):
        ask_often(port, 20_000)
        received = bytearray()
        errors = tmp_path / "errors"
        os.set_blocking(reading, False)

        def read() -> bool:
            try:
                received.extend(os.read(reading, 1 << 16))
            except BlockingIOError:
                pass
            return "are lost" in errors.read_text()

        wait_until(read)
        os.set_blocking(reading, True)
        running.send_signal(signal.SIGTERM)
        while data := os.read(reading, 1 << 16):
            received += data
        assert running.wait() == 0
        found = re.findall(rb'^127\.0\.0\.1 - - \[[^]]*\] "GET /(\d+) HTTP/1\.1" 200 5 "-" "-"$', received, re.M)
        assert len(found) == received.count(b"\n")
        assert list(map(int, found)) == list(range(len(found)))
        assert len(received) > 1 << 20
        os.close(reading)
        lost = int(re.search(r"are lost: (\d+)", errors.read_text())[1])
        assert lost == 20_000 - len(found)


def test_a_reader_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    with piped(tmp_path) as (running, port, reading):
        ask_often(port, 500)
        os.close(reading)
        ask_often(port, 500)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        assert "the access log cannot be written: Broken pipe" in (tmp_path / "errors").read_text()


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 2)", "server.stop()"])
def test_nothing_is_lost_at_the_end(tmp_path: Path, end: str) -> None:
    """However it ends that is not sudden: also the requests of its last turn."""
    source = f"""
    import logging
    def handle(environ):
        if environ["PATH_INFO"] == "/end":
            {end}
            server.sleep(0)
    access = logging.getLogger("meinheld.access")
    access.setLevel(logging.INFO)
    access.propagate = False
    access.addHandler(logging.FileHandler("log"))
    def ask(port):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"".join(b"GET %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % p for p in [b"/1", b"/2", b"/3", b"/end"]))
            while client.recv(1000):
                pass
    server.listen(("127.0.0.1", 0))
    thread = threading.Thread(target=ask, args=(server.addresses()[0][1],))
    thread.start()
    try:
        server.run(ContinuationMiddleware(app))
    except (SystemExit, KeyboardInterrupt):
        pass
    finally:
        notes.extend(open("log").read().split(chr(10)))
    """
    found = [line.split()[6] for line in run_program(tmp_path, source).notes if line]
    assert found == ["/1", "/2", "/3", "/end"]


def test_a_child_that_a_request_forks_writes_no_lines(tmp_path: Path) -> None:
    """They are its parent's, who writes them."""
    with running_lab(tmp_path, APP, access_log="log") as lab:
        with lab.connect() as wire:
            wire.send(get("/1") + get("/2") + get("/fork") + get("/3"))
            for _ in range(4):
                assert wire.response().status == 200
        targets = [line.split('"')[1].split()[1] for line in lines(lab, 4)]
        assert targets == ["/1", "/2", "/fork", "/3"]


#: What a request may do to the logger, and what becomes of the line of the next one: seen by a handler of
#: one's own, by the file, or by neither.
CHANGES = {
    "nothing": ("pass", "file"),
    "a handler": ("access.addHandler(own)", "own file"),
    "another handler": ("access.handlers[:] = [own]", "own"),
    "no handler": ("access.handlers.clear()", ""),
    "a filter": ("access.addFilter(lambda record: print('own', flush=True) or True)", "own file"),
    "a handler's filter": ("access.handlers[0].addFilter(lambda record: False)", ""),
    "a level": ("access.setLevel(logging.ERROR)", ""),
    "a handler's level": ("access.handlers[0].setLevel(logging.ERROR)", ""),
    "disabled": ("access.disabled = True", ""),
    "logging.disable": ("logging.disable(logging.CRITICAL)", ""),
    "a formatter": ("access.handlers[0].setFormatter(logging.Formatter('own %(message)s'))", "formatted"),
    "a stream": ("access.handlers[0].setStream(sys.stdout)", "stdout"),
    "propagation": ("access.propagate = True; logging.getLogger().addHandler(own)", "own file"),
    "a closed file": ("access.handlers[0].close()", "file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_the_logger_later_holds(tmp_path: Path, change: str) -> None:
    """From the turn on in which it was done."""
    what, seen = CHANGES[change]
    program = f"""
    import http.client, logging, sys, threading
    from meinheld import server
    class Own(logging.Handler):
        def emit(self, record):
            print("own", flush=True)
    own = Own()
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/change":
            {what}
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]
    access = logging.getLogger("meinheld.access")
    access.setLevel(logging.INFO)
    access.propagate = False
    access.addHandler(logging.FileHandler("log"))
    server.listen(("127.0.0.1", 0))
    port = server.addresses()[0][1]
    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for path in ["/before", "/change", "/a", "/b"]:
            connection.request("GET", path)
            connection.getresponse().read()
        server.stop()
    threading.Thread(target=ask).start()
    server.run(app)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    log = (tmp_path / "log").read_text().splitlines()
    assert '"GET /before HTTP' in log[0]
    after = [line for line in log if re.search("GET /[ab] ", line)]
    assert len(after) == (2 if "file" in seen or seen == "formatted" else 0), (log, done.stdout)
    assert all(line.startswith("own 127") == (seen == "formatted") for line in after), log
    # It is the turn of the change itself, too.
    assert done.stdout.count("own\n") == (3 if "own" in seen else 0), done.stdout
    assert done.stdout.count("GET /b ") == (1 if seen == "stdout" else 0)


MLOGGING = """
from meinheld import mlogging, server
import logging
logging.getLogger("meinheld.access").handlers[:] = [logging.FileHandler("log")]
def app(environ, start_response):
    what = environ["PATH_INFO"]
    if what == "/proxy":
        environ["REMOTE_ADDR"] = environ["HTTP_X_FORWARDED_FOR"]
    if what == "/empty":
        environ.clear()
    if what == "/odd":
        environ.update(REMOTE_ADDR=None, RAW_URI="", REQUEST_METHOD=5, HTTP_REFERER="a\\ud800\\u20ac\\"\\\\", HTTP_USER_AGENT=None)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""

MLOGGING_REQUESTS = [get("/"), get("/proxy", "X-Forwarded-For: 10.0.0.7\r\n"), get("/empty"), get("/odd"), get("/a%20b?c"), get(method="HEAD")]


def test_the_lines_of_mlogging_are_those_of_its_logger_to_the_byte(tmp_path: Path) -> None:
    """Of the environ as the application leaves it."""
    with both(tmp_path, MLOGGING) as labs:
        for request in MLOGGING_REQUESTS:
            for lab in labs:
                with lab.connect() as wire:
                    wire.send(request).until(b"\r\n\r\n")
        direct, through = (lines(lab, len(MLOGGING_REQUESTS)) for lab in labs)
        assert direct == through
        assert direct[1] == '10.0.0.7 - - [*] "GET /proxy HTTP/1.1" 200 5 "-" "-"'
        assert direct[3] == r'- - - [*] "5 /odd HTTP/1.1" 200 5 "a\xd800\x20ac\"\\" "None"'


def test_a_logger_of_mlogging_that_was_changed_is_called(tmp_path: Path) -> None:
    """Another format, a subclass, other methods: each is what it was told to be."""
    for name, change in {
        "format": "mlogging.logger.access_log_format = 'own %(s)s'",
        "class": "mlogging.Logger.access_log_format = 'own %(s)s'",
        "subclass": "class L(mlogging.Logger):\n    access_log_format = 'own %(s)s'\nserver.set_access_logger(L())",
        "method": "mlogging.Logger.access = lambda self, environ: self.access_log.info('own 200')\nserver.set_access_logger(mlogging.logger)",
        "atoms": "mlogging.Logger.atoms = lambda self, environ: {}\nmlogging.Logger.access_log_format = 'own 200'",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        with running_lab(folder, MLOGGING + change + "\nlogging.getLogger('meinheld.access').handlers[:] = [logging.FileHandler('log')]\n") as lab:
            assert lab.server.get()[0] == 200
            log = folder / "log"
            wait_until(lambda log=log: log.exists() and log.read_text().count("\n") == 1, name)
            assert log.read_text() == "own 200\n"


def test_requests_of_one_connection_have_lines_of_their_own(tmp_path: Path) -> None:
    """Whether they are the last one again or not, and while others of it wait."""
    heads = [get("/a"), get("/a"), get("/b", "User-Agent: x\r\n"), get("/b", "User-Agent: x\r\n")]
    heads += [get("/b", "User-Agent: longer\r\nUSER-agent: two\r\n"), get("/c", version="1.1"), get("/c"), get("/a")]
    with both(tmp_path, APP, access_log="log") as labs:
        for lab in labs:
            with lab.connect() as first, lab.connect() as second:
                for head in heads:
                    for wire in (first, second):
                        assert wire.send(head).response().status == 200
        direct, through = (lines(lab, 2 * len(heads)) for lab in labs)
        assert direct == through
        shown = [(line.split()[5], line.split('"')[-2]) for line in direct[::2]]
        expected = [("/a", "-"), ("/a", "-"), ("/b", "x"), ("/b", "x"), ("/b", "longer,two"), ("/c", "-"), ("/c", "-"), ("/a", "-")]
        assert shown == expected


def test_long_heads_are_forgotten(tmp_path: Path) -> None:
    """Neither their lines nor the names in them stay in memory, however many connections send them."""
    with running_lab(tmp_path, APP, access_log="log", keep_alive=60) as lab, ExitStack() as stack:

        def resident() -> int:
            """The server's memory in KiB."""
            status = Path(f"/proc/{lab.server.pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0])

        wires = [stack.enter_context(lab.connect()) for _ in range(500)]
        for wire in wires:
            assert wire.send(get("/a")).response().status == 200
        before = resident()
        for number, wire in enumerate(wires):
            # Each takes up 120,000 bytes in its line, and 60,000 as a name and its key.
            for header in (f"User-Agent: {30_000 * chr(0xff)}\r\n", f"N{number}{30_000 * 'n'}: 1\r\n"):
                assert wire.send(get("/a", header)).response().status == 200
        lines(lab, 3 * len(wires))
        assert resident() - before < 16 * 1024


def test_a_head_is_not_taken_for_one_before_another_logger(tmp_path: Path) -> None:
    """Lines are kept for a connection's next request; those that went elsewhere are not among them."""
    source = """
from meinheld import server
class Own:
    def access(self, environ):
        pass
def app(environ, start_response):
    if environ["PATH_INFO"] == "/on":
        server.set_access_logger(Own())
    if environ["PATH_INFO"] == "/off" and environ["HTTP_X"] == "now":
        server.set_access_logger(None)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]
"""
    with running_lab(tmp_path, source, access_log="log") as lab:
        with lab.connect() as wire:
            for target, header in [("/1", ""), ("/on", ""), ("/2", ""), ("/off", "X: now\r\n"), ("/2", ""), ("/2", "")]:
                assert wire.send(get(target, header)).response().status == 200
        # That of the request in which a logger is set, or taken back, is nobody's.
        assert [line.split()[5] for line in lines(lab, 4)] == ["/1", "/on", "/2", "/2"]


DIRECT = """
import logging, sys
from meinheld import _direct, server
def app(environ, start_response):
    access = logging.getLogger("meinheld.access")
    targets = [_direct.target_of(access)]
    if "meinheld.mlogging" in sys.modules:
        targets.append(_direct.target_of_hook(sys.modules["meinheld.mlogging"].logger.access))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str([target is not None for target in targets]).encode()]
"""


def test_the_server_writes_the_lines_of_what_it_sets_up_itself(tmp_path: Path) -> None:
    """Otherwise the other tests would show that logging is like logging."""
    for name, source, options, expected in [
        ("file", DIRECT, {"access_log": "log"}, b"[True]"),
        ("stderr", DIRECT, {"access_log": "-"}, b"[True]"),
        ("mlogging", DIRECT + "from meinheld import mlogging\n", {}, b"[True, True]"),
        ("filter", DIRECT + THROUGH_LOGGING, {"access_log": "log"}, b"[False]"),
        ("none", DIRECT, {}, b"[False]"),
    ]:
        (tmp_path / name).mkdir()
        with running_lab(tmp_path / name, source, **options) as lab:
            assert lab.server.get() == (200, expected), name


def test_a_body_that_is_cut_off_has_its_line(tmp_path: Path) -> None:
    """Its client has ended its side, and is told."""
    with both(tmp_path, APP, access_log="log") as labs:
        for lab in labs:
            with lab.connect() as wire:
                wire.send(get("/cut-off", "Content-Length: 10\r\n", "POST") + b"half!")
                wire.socket.shutdown(socket.SHUT_WR)
                response = wire.response()
                assert (response.status, response["Connection"]) == (400, "close")
                assert wire.closed()
            assert lines(lab, 1) == ['127.0.0.1 - - [*] "POST /cut-off HTTP/1.1" 400 16 "-" "-"']
