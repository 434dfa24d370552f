"""What a program has the server call, loggers and watchdogs, and what it does to a connection itself."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import scripts

ASK = """
import logging, time

SEEN = []

class Log:
    def access(self, environ):
        SEEN.append(environ)
    def error(self, kind, value, traceback):
        SEEN.append((kind, value, traceback))

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise RuntimeError("the reason")
    if path == "/slow":
        time.sleep(0.05)
    if path == "/empty":
        environ.clear()
    start_response("404 Not Found" if path == "/missing" else "200 OK", [])
    return [b"hello"]

def asking(*paths):
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    answers = []
    def work():
        for path in paths:
            connection = http.client.HTTPConnection(*address, timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
            connection.close()
    serve(work)
    return answers
"""


def output_of(directory: Path, program: str) -> str:
    """What a program that has ASK writes."""
    return scripts.output_of(directory, ASK + textwrap.dedent(program))


def run(directory: Path, program: str) -> None:
    """Run a program that has ASK, and says nothing."""
    assert output_of(directory, program) == ""


def test_access_logger_sees_each_answered_request(tmp_path: Path) -> None:
    """Its own environ, with what came of it."""
    program = r"""
    import re
    server.set_access_logger(Log())
    asking("/", "/missing", "/slow", "/fail", "/empty")
    seen = [(e["STATUS_CODE"], e["SEND_BYTES"], e.get("PATH_INFO")) for e in SEEN if isinstance(e, dict)]
    assert seen == [
        (200, 5, "/"), (404, 5, "/missing"), (200, 5, "/slow"), (500, 26, "/fail"), (200, 5, None),
    ], seen
    for environ in SEEN:
        assert re.fullmatch(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", environ["LOCAL_TIME"])
        assert isinstance(environ["REQUEST_TIME"], int)
    assert 50 <= SEEN[2]["REQUEST_TIME"] < 5000
    assert SEEN[0]["REQUEST_TIME"] < 5000
    """
    assert "RuntimeError: the reason" in output_of(tmp_path, program)


def test_loggers_can_be_taken_back(tmp_path: Path) -> None:
    """None is the default: nothing of access, exceptions through logging."""
    program = """
    server.set_access_logger(Log())
    server.set_error_logger(Log())
    server.set_access_logger(None)
    server.set_error_logger(None)
    assert [status for status, _ in asking("/", "/fail")] == [200, 500]
    assert SEEN == []
    """
    assert "RuntimeError: the reason" in output_of(tmp_path, program)


def test_error_logger_gets_the_exception(tmp_path: Path) -> None:
    """In three parts, as sys.exc_info has it; logging is not told too."""
    program = """
    server.set_error_logger(Log())
    asking("/fail", "/")
    ((kind, value, traceback),) = SEEN
    assert kind is RuntimeError and str(value) == "the reason" and value.__traceback__ is traceback
    while traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code.co_name == "app"
    """
    assert output_of(tmp_path, program) == ""


def test_logger_that_raises_fails_no_request(tmp_path: Path) -> None:
    """Its exception is written as one that cannot be raised."""
    program = """
    class Broken:
        def access(self, environ):
            raise OSError("no space for access")
        def error(self, *exc_info):
            raise OSError("no space for errors")
    server.set_access_logger(Broken())
    server.set_error_logger(Broken())
    assert [status for status, _ in asking("/", "/fail", "/")] == [200, 500, 200]
    """
    output = output_of(tmp_path, program)
    assert output.count("OSError: no space for access") == 3
    assert output.count("OSError: no space for errors") == 1


def test_loggers_may_be_set_by_a_request(tmp_path: Path) -> None:
    """They hold from the next one on."""
    program = """
    inner = app
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/on":
            server.set_access_logger(Log())
        return inner(environ, start_response)
    asking("/", "/on", "/", "/")
    assert [environ["PATH_INFO"] for environ in SEEN] == ["/", "/"], SEEN
    """
    run(tmp_path, program)


def test_what_is_no_logger_is_refused(tmp_path: Path) -> None:
    """And the one that was set stays."""
    program = """
    class Odd:
        access = error = 5
    server.set_access_logger(Log())
    for setter in [server.set_access_logger, server.set_error_logger]:
        assert "or be None; int has none" in str(raises(TypeError, setter, 5))
        assert "callable" in str(raises(TypeError, setter, Odd()))
        raises(TypeError, setter)
    asking("/")
    assert len(SEEN) == 1
    """
    run(tmp_path, program)


def test_exit_out_of_an_access_logger_ends_the_server(tmp_path: Path) -> None:
    """A signal's handler may run, and raise, in there."""
    program = """
    class Leaving:
        def access(self, environ):
            raise SystemExit(7)
    server.set_access_logger(Leaving())
    assert raises(SystemExit, asking, "/").code == 7
    """
    run(tmp_path, program)


def test_watchdog_is_called_while_nothing_happens(tmp_path: Path) -> None:
    """At the first turn and then at its interval, until the run ends."""
    program = """
    beats = []
    def beat():
        beats.append(time.monotonic())
        if len(beats) == 5:
            server.stop()
    server.set_watchdog(beat, 0.02)
    server.listen(("127.0.0.1", 0))
    server.run(app)
    gaps = [later - sooner for sooner, later in zip(beats, beats[1:])]
    assert len(beats) == 5 and min(gaps) >= 0.02, gaps
    asking("/")
    assert len(beats) == 5, "the watchdog belonged to the first run"
    """
    run(tmp_path, program)


def test_watchdog_is_called_once_a_second_if_nothing_is_said(tmp_path: Path) -> None:
    """As it was of old; None ends it."""
    program = """
    beats = []
    def beat():
        beats.append(time.monotonic())
        if len(beats) == 2:
            server.set_watchdog(None)
            server.stop()
    server.set_watchdog(watchdog=beat)
    server.listen(("127.0.0.1", 0))
    server.run(app)
    assert 1 <= beats[1] - beats[0] < 5, beats
    assert "callable" in str(raises(TypeError, server.set_watchdog, 5))
    raises(ValueError, server.set_watchdog, beat, -1)
    """
    run(tmp_path, program)


def test_watchdog_that_raises_is_logged_and_called_again(tmp_path: Path) -> None:
    """Unless it raises what ends the process."""
    program = """
    beats = []
    def beat():
        beats.append(1)
        if len(beats) == 3:
            raise SystemExit(9)
        raise ValueError("a bad beat")
    server.set_watchdog(beat, 0.01)
    server.listen(("127.0.0.1", 0))
    assert raises(SystemExit, server.run, app).code == 9
    assert len(beats) == 3
    """
    output = output_of(tmp_path, program)
    assert output.count("ValueError: a bad beat") == 2
    assert "the watchdog raised an exception" in output


def test_fast_watchdog_touches_its_file(tmp_path: Path) -> None:
    """By the monotonic clock, for as long as the parent is the one that is named."""
    program = """
    import tempfile
    file = tempfile.TemporaryFile()
    os.utime(file.fileno(), (1, 1))
    server.set_fastwatchdog(file.fileno(), os.getppid(), 10)
    before = time.monotonic_ns()
    asking("/")
    assert before <= os.fstat(file.fileno()).st_mtime_ns <= time.monotonic_ns()
    file.close()
    assert raises(OSError, server.set_fastwatchdog, 999, 1, 1).errno == errno.EBADF
    raises(ValueError, server.set_fastwatchdog, 0, -1, 1)
    raises(ValueError, server.set_fastwatchdog, 0, 1, -1)
    """
    run(tmp_path, program)


def test_fast_watchdog_stops_when_the_parent_is_gone(tmp_path: Path) -> None:
    """Suspended requests then have the time that was given, and no more."""
    program = """
    import tempfile
    ended = []
    def app(environ, start_response):
        # Its parent is another from now on.
        server.set_fastwatchdog(FILE.fileno(), os.getpid(), 0.05)
        try:
            environ["meinheld.client"].continuation().suspend()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise
    FILE = tempfile.TemporaryFile()
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    def work():
        connection = http.client.HTTPConnection(*address, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 503
        connection.close()
    thread = threading.Thread(target=work)
    thread.start()
    server.run(app)
    thread.join()
    assert ended == ["Stopped"], ended
    """
    assert "the parent process has changed: stopping" in output_of(tmp_path, program)


def test_set_closed_leaves_the_answer_to_the_application(tmp_path: Path) -> None:
    """Nothing more is sent, whatever is returned, and the connection ends."""
    program = """
    bodies = {
        "/list": lambda: [b"lost"],
        "/none": lambda: [],
        "/pieces": lambda: iter([b"lost", b"lost"]),
        "/endless": lambda: itertools.repeat(b"lost"),
        "/file": lambda: WRAPPER(open("program.py", "rb")),
        "/write": lambda: WRITE(b"lost") or [],
        "/raise": lambda: 1 / 0,
    }
    import itertools
    def app(environ, start_response):
        global WRAPPER, WRITE
        WRAPPER = environ["wsgi.file_wrapper"]
        client = environ["meinheld.client"]
        with socket.fromfd(client.get_fd(), socket.AF_INET, socket.SOCK_STREAM) as mine:
            mine.sendall(b"my own words")
        client.set_closed(1)
        WRITE = start_response("200 OK", [])
        return bodies[environ["PATH_INFO"]]()
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    def work():
        for path in bodies:
            with socket.create_connection(address, 5) as client:
                client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
                answer = b""
                while data := client.recv(1000):
                    answer += data
                assert answer == b"my own words", (path, answer)
    serve(work)
    """
    assert output_of(tmp_path, program).count("Traceback") == 1


def test_set_closed_needs_no_start_response(tmp_path: Path) -> None:
    """What is returned then is closed, and no matter; but an exception is one."""
    program = """
    import logging
    logging.basicConfig(level=logging.DEBUG)
    closed = []
    class Body:
        def __iter__(self):
            return iter([""])
        def close(self):
            closed.append(self)
    def pieces(client, *rest):
        client.set_closed(1)
        yield from rest
    bodies = {
        "/list": lambda client: client.set_closed(1) or [],
        "/str": lambda client: client.set_closed(1) or [""],
        "/bytes": lambda client: client.set_closed(1) or [b"lost"],
        "/body": lambda client: client.set_closed(1) or Body(),
        "/none": lambda client: client.set_closed(1),
        "/late": lambda client: pieces(client),
        "/later": lambda client: pieces(client, ""),
        "/raise": lambda client: client.set_closed(1) or 1 / 0,
        "/back": lambda client: client.set_closed(1) or client.set_closed(0) or [],
    }
    def app(environ, start_response):
        client = environ["meinheld.client"]
        with socket.fromfd(client.get_fd(), socket.AF_INET, socket.SOCK_STREAM) as mine:
            mine.sendall(b"my own words")
        return bodies[environ["PATH_INFO"]](client)
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    def work():
        for path in bodies:
            with socket.create_connection(address, 5) as client:
                client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
                answer = b""
                while data := client.recv(1000):
                    answer += data
                assert (answer == b"my own words") == (path != "/back"), (path, answer)
    serve(work)
    assert len(closed) == 1
    """
    output = output_of(tmp_path, program)
    assert output.count("ERROR:meinheld.error:") == 2, output
    assert "GET /raise raised" in output
    assert "GET /back raised" in output


def test_set_closed_can_be_taken_back(tmp_path: Path) -> None:
    """And means nothing once the request has ended."""
    program = """
    def app(environ, start_response):
        global kept
        kept = environ["meinheld.client"]
        kept.set_closed(True)
        kept.set_closed(0)
        start_response("200 OK", [])
        return [b"heard"]
    assert asking("/") == [(200, b"heard")]
    raises(RuntimeError, kept.set_closed, 1)
    """
    run(tmp_path, program)


def test_continuation_is_made_of_a_client(tmp_path: Path) -> None:
    """As `meinheld.common` had it."""
    program = """
    from meinheld import common, middleware
    assert (common.CLIENT_KEY, common.CONTINUATION_KEY) == ("meinheld.client", "meinheld.continuation")
    assert middleware.CLIENT_KEY is common.CLIENT_KEY
    waiting = []
    def app(environ, start_response):
        c = common.Continuation(environ[common.CLIENT_KEY])
        assert c.client is environ[common.CLIENT_KEY] and c.connected and not c.suspended
        if environ["PATH_INFO"] == "/wait":
            waiting.append(c)
            answer = c.suspend()
        else:
            other = waiting.pop()
            assert other.suspended
            other.resume(b"woken")
            answer = b"sent"
        start_response("200 OK", [])
        return [answer]
    server.listen(("127.0.0.1", 0))
    address = server.addresses()[0]
    def work():
        first, second = (http.client.HTTPConnection(*address, timeout=5) for _ in range(2))
        first.request("GET", "/wait")
        while not waiting:
            time.sleep(0.001)
        second.request("GET", "/send")
        assert second.getresponse().read() == b"sent"
        assert first.getresponse().read() == b"woken"
        first.close()
        second.close()
    serve(work)
    """
    run(tmp_path, program)


def test_package_has_what_the_server_has(tmp_path: Path) -> None:
    """`import meinheld` alone was enough of old."""
    program = """
    import meinheld
    for name in server.__all__:
        assert getattr(meinheld, name) is getattr(server, name), name
    """
    run(tmp_path, program)


def test_run_may_be_wrapped(tmp_path: Path) -> None:
    """Its first argument is the application, by place or by name."""
    program = """
    for call in [lambda: server.run(app), lambda: server.run(app=app, silent=1)]:
        server.listen(("127.0.0.1", 0))
        threading.Timer(0.05, server.stop).start()
        call()
    """
    run(tmp_path, program)


def test_mlogging_logs_with_one_import(tmp_path: Path) -> None:
    """A line a request, and the traceback of one that failed."""
    program = """
    from meinheld import mlogging
    assert asking("/?a=%22", "/fail")[0] == (200, b"hello")
    """
    output = output_of(tmp_path, program)
    line = r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    assert re.findall(rf"^{line}(.*)$", output, re.MULTILINE) == [
        '"GET /?a=%22 HTTP/1.1" 200 5 "-" "-"',
        '"GET /fail HTTP/1.1" 500 26 "-" "-"',
    ]
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\d+\] \[ERROR\] Traceback", output, re.MULTILINE)
    assert output.count("RuntimeError: the reason") == 1


def test_mlogging_is_in_the_package(tmp_path: Path) -> None:
    """From when it is asked for; until then no logger is set. What is not there is missed as ever."""
    program = """
    import meinheld
    assert "meinheld.mlogging" not in sys.modules
    assert meinheld.mlogging is sys.modules["meinheld.mlogging"]
    assert not hasattr(meinheld, "nothing")
    """
    run(tmp_path, program)


def test_mlogging_format(tmp_path: Path) -> None:
    """Atoms of the request, its headers, and the time; nothing from a client ends its field."""
    program = r"""
    import re
    from meinheld import mlogging
    log = mlogging.logger
    server.set_access_logger(None)
    lines = []
    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
    logging.getLogger("meinheld.access").handlers[:] = [Handler()]
    log.access_log_format = "%(s)s %(b)s %(T)s %(D)s %(p)s <%({user-agent}i)s> <%({X-Long-Name}i)s> %({none}i)s %(nothing)s"
    log.access({"STATUS_CODE": 200, "SEND_BYTES": 7, "REQUEST_TIME": 2500,
                "HTTP_USER_AGENT": 'a"b\\\n\xe4', "HTTP_X_LONG_NAME": "x"})
    assert lines == [rf'200 7 2 2500 <{os.getpid()}> <a\"b\\\x0a\xe4> <x> - -'], lines
    log.access({})
    assert lines[1].startswith("- - 0 0"), lines
    """
    run(tmp_path, program)


def test_mlogging_reopens_its_files(tmp_path: Path) -> None:
    """After they were moved away."""
    program = """
    from meinheld import mlogging
    log = mlogging.logger
    log.access_log.handlers[:] = [logging.FileHandler("access.log")]
    log.error_log.handlers[:] = []
    log.close_on_exec()
    log.access({})
    os.rename("access.log", "access.log.1")
    log.access({})
    log.reopen_files()
    log.access({})
    assert [len(open(name).readlines()) for name in ["access.log.1", "access.log"]] == [2, 1]
    """
    output_of(tmp_path, program)
