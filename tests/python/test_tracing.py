"""What is traced, profiled or monitored changes while requests are parked, and while the server runs.

From 3.12 on that is written into code objects, and a parked request's are out of the interpreter's reach: 3.15 crashed
when one raised an exception.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get

TOOLS = """
import sys, threading

noted = []

def trace(*_):
    return trace

def note(code, *_):
    noted.append(code.co_name)

def set_monitoring(on):
    monitoring, events = sys.monitoring, sys.monitoring.events
    if not on:
        monitoring.set_events(3, 0)
        return
    if monitoring.get_tool(3) is None:
        monitoring.use_tool_id(3, "test")
    for event in (events.PY_UNWIND, events.RAISE, events.LINE, events.CALL):
        monitoring.register_callback(3, event, note)
    monitoring.set_events(3, events.PY_UNWIND | events.RAISE | events.LINE | events.CALL)

def set_monitoring_elsewhere(on):
    thread = threading.Thread(target=set_monitoring, args=(on,))
    thread.start()
    thread.join()

def set_tool(name, on):
    if name == "trace":
        sys.settrace(trace if on else None)
    elif name == "profile":
        sys.setprofile(trace if on else None)
    else:
        globals()[f"set_{name}"](on)
"""

REQUESTS = (
    ROUTES
    + TOOLS
    + """
def do_set(c, environ, tool, on):
    set_tool(tool, on == "on")
    return "set"

def do_raise(c, environ, name):
    try:
        return down(c, name, 3)
    except KeyError as error:
        return str(error.args[0])

def down(c, name, depth):
    # Nothing else calls this, so that its code is the interpreter's to reach in parked frames only.
    try:
        if depth == 0:
            park(c, name)
            raise KeyError(name)
        down(c, name, depth - 1)
    except KeyError as error:
        raise KeyError(f"{error.args[0]} {depth}") from None

def do_noted(c, environ):
    taken = [noted.count("down"), noted.count("do_raise")]
    noted.clear()
    return json.dumps(taken)
"""
)

NAMES = ["trace", "profile"]
if sys.version_info >= (3, 12):
    NAMES += ["monitoring", "monitoring_elsewhere"]

reaches_parked = pytest.mark.skipif(
    sys.version_info < (3, 15), reason="a parked request goes on with what was asked for when it was left"
)


@pytest.mark.parametrize("tool", NAMES)
def test_a_parked_request_raises_under_a_tool_that_was_set_meanwhile(serve: Callable, tool: str) -> None:
    port = serve(REQUESTS).port
    parked = [Client(port).send("/raise", name=name) for name in ("first", "second")]
    wait_for_parked(port, 2)
    assert get(port, "/set", tool=tool, on="on").text == "set"
    get(port, "/wake", name="first")
    assert parked[0].response().text == "first 0 1 2 3"
    assert get(port, "/set", tool=tool, on="off").text == "set"
    get(port, "/wake", name="second")
    assert parked[1].response().text == "second 0 1 2 3"


@reaches_parked
@pytest.mark.parametrize("tool", ["monitoring", "monitoring_elsewhere"])
def test_a_parked_request_is_monitored_from_where_it_goes_on(serve: Callable, tool: str) -> None:
    port = serve(REQUESTS).port
    parked = [Client(port).send("/raise", name=name) for name in ("first", "second", "third")]
    wait_for_parked(port, 3)
    get(port, "/set", tool=tool, on="on")
    get(port, "/wake", name="first")
    assert parked[0].response().text == "first 0 1 2 3"
    in_down, in_do_raise = get(port, "/noted").json()
    assert in_down >= 4 * 3 and in_do_raise >= 2
    # The second one was left before, and the third before that, by the same code.
    get(port, "/set", tool=tool, on="off")
    get(port, "/wake", name="second")
    assert parked[1].response().text == "second 0 1 2 3"
    assert get(port, "/noted").json() == [0, 0]
    get(port, "/set", tool=tool, on="on")
    get(port, "/wake", name="third")
    assert parked[2].response().text == "third 0 1 2 3"
    assert get(port, "/noted").json() == [in_down, in_do_raise]


PROGRAM = (
    TOOLS
    + """
from meinheld import server

def serve():
    server.listen(("127.0.0.1", 0))
    server.spawn(stop)
    server.run(lambda environ, start_response: [])
    raise KeyError("serve")

def stop():
    set_tool(sys.argv[1], True)
    server.stop()

try:
    serve()
except KeyError as error:
    print(error.args[0], "count", noted.count("serve"), flush=True)
sys.exit(3)
"""
)


@pytest.mark.parametrize("tool", NAMES)
def test_the_program_goes_on_after_the_server_with_a_tool_that_a_request_set(tmp_path: Path, tool: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", tool]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout[:11], ended.stderr) == (3, "serve count", ""), ended
    if sys.version_info >= (3, 15) and tool.startswith("monitoring"):
        assert int(ended.stdout.split()[-1]) >= 2
