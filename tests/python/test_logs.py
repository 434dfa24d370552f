"""The access log in the combined format, and what the error log says of a failed request."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VALIDATED
from lab import Lab, Wire, running_lab
from logged import APP, LINES, TIME, get
from wire import wait_until

@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A server with an access log on stderr."""
    with running_lab(tmp_path_factory.mktemp("logs"), APP, access_log=True) as lab:
        yield lab


def lines_of(lab: Lab, request: bytes, count: int = 1) -> list[str]:
    """The lines of the access log that a request makes."""
    before = len(access_lines(lab))
    with lab.connect() as wire:
        wire.send(request)
        wait_until(lambda: len(access_lines(lab)) >= before + count, lab.server.output)
    return access_lines(lab)[before:]


def access_lines(lab: Lab) -> list[str]:
    """All lines of the access log so far."""
    return re.findall(r"^127\.0\.0\.1 - - \[.*\n", lab.server.output(), re.MULTILINE)


@pytest.mark.parametrize(("request_bytes", "line"), LINES, ids=[line for _, line in LINES])
def test_line_of_the_access_log(lab: Lab, request_bytes: bytes, line: str) -> None:
    """One for each request, and nothing from the client ends its field."""
    (found,) = lines_of(lab, request_bytes)
    assert re.fullmatch(r"127\.0\.0\.1 - - \[" + TIME + r"\] " + re.escape(line) + "\n", found), found


def test_each_pipelined_request_has_its_line(lab: Lab) -> None:
    """In their order."""
    found = lines_of(lab, b"".join(get(f"/{number}") for number in range(5)), 5)
    assert [line.split()[6] for line in found] == [f"/{number}" for number in range(5)]


def test_unix_client_is_a_dash(tmp_path: Path) -> None:
    """It has no address."""
    path = tmp_path / "sock"
    with running_lab(tmp_path, APP, access_log=True, bind=["127.0.0.1:0", f"unix:{path}"]) as lab:
        with Wire(str(path)) as wire:
            assert wire.send(get()).response().status == 200
        lab.log('- - - [')
        assert re.search(r'^- - - \[' + TIME + r'\] "GET / HTTP/1.1" 200 5 "-" "-"$', lab.log(), re.M)


def test_traceback_shows_the_application(lab: Lab) -> None:
    """With the request that failed, and its frames."""
    lines_of(lab, get("/fail?x"))
    log = lab.log("RuntimeError: the reason")
    assert "GET /fail?x raised an exception\nTraceback (most recent call last):\n" in log
    assert re.search(r'File ".*app\.py", line \d+, in app\n', log)


def test_uncaught_timeout_is_one_line(lab: Lab) -> None:
    """It says which request, and needs no traceback."""
    before = len(lab.server.output())
    lines_of(lab, get("/timeout?y"))
    errors = [line for line in lab.server.output()[before:].splitlines() if " - - [" not in line]
    assert len(errors) == 1, errors
    assert "GET /timeout?y ended with an uncaught timeout" in errors[0]


def run_without_configuration(tmp_path: Path, before: str = "") -> str:
    """What a server of one's own program writes for one good and one failing request."""
    (tmp_path / "app.py").write_text(APP + VALIDATED)
    program = f"""
import http.client, logging, sys, threading
from meinheld import server
from app import app
{before}
server.listen(("127.0.0.1", 0))
port = server.addresses()[0][1]
def ask():
    for path in ["/", "/fail"]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()
    server.stop()
threading.Thread(target=ask).start()
server.run(app)
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_nothing_is_configured(tmp_path: Path) -> None:
    """Then there is no access log, and errors reach stderr as logging's last resort has it."""
    output = run_without_configuration(tmp_path)
    assert "RuntimeError: the reason" in output
    assert "GET / HTTP" not in output


def test_loggers_are_logging_s_own(tmp_path: Path) -> None:
    """Their names, their level, and a record with the line as its argument."""
    before = """
class Handler(logging.Handler):
    def emit(self, record):
        print(record.name, record.levelname, record.getMessage().split(']')[-1], bool(record.exc_info))
for name in ["meinheld.access", "meinheld.error"]:
    logger = logging.getLogger(name)
    logger.addHandler(Handler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
"""
    lines = run_without_configuration(tmp_path, before).splitlines()
    assert lines == [
        'meinheld.access INFO  "GET / HTTP/1.1" 200 5 "-" "-" False',
        "meinheld.error ERROR GET /fail raised an exception True",
        'meinheld.access INFO  "GET /fail HTTP/1.1" 500 26 "-" "-" False',
    ]


def test_broken_handler_does_not_break_requests(tmp_path: Path) -> None:
    """Its exception is written as one that cannot be raised."""
    before = """
class Handler(logging.Handler):
    def emit(self, record):
        raise OSError("disk full")
for name in ["meinheld.access", "meinheld.error"]:
    logging.getLogger(name).addHandler(Handler())
    logging.getLogger(name).setLevel(logging.INFO)
"""
    assert "OSError: disk full" in run_without_configuration(tmp_path, before)


def test_a_body_that_could_not_be_stored_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the client's, and whoever runs the server is to see to it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with running_lab(tmp_path, APP) as lab, lab.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n")
        wire.send(b"x" * 0x100000 + b"\r\n0\r\n\r\n")
        assert wire.response().status == 500
        reason = r"ERROR refused a request from 127\.0\.0\.1:\d+ with 500: the request body cannot be stored: "
        assert re.search(reason, lab.server.output()), lab.server.output()


@pytest.mark.parametrize("level", ["debug", "info"])
def test_why_a_request_was_refused(tmp_path: Path, level: str) -> None:
    """Is told to one who wants to know everything."""
    with running_lab(tmp_path, APP, log_level=level) as lab, lab.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.response().status == 400
        reason = r"refused a request from 127\.0\.0\.1:\d+ with 400: the Host header is missing\n"
        told = re.search(reason, lab.server.output())
        assert bool(told) == (level == "debug")
