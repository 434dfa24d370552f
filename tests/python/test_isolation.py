"""Each request has the Python state of a thread of its own, across every suspension.

Two requests always run interleaved here: each suspends in the middle of what it does, and finds it as it was.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get, wait_until

STATE = (
    ROUTES
    + """
import asyncio, contextlib, contextvars, decimal, gc, logging, os, threading, time, traceback, warnings, weakref

variable = contextvars.ContextVar("variable", default="unset")
local = threading.local()


def pause(c, name):
    assert park(c, name) == "woken"


def do_contextvars(c, environ, name):
    before = variable.get()
    variable.set(name)
    pause(c, name)
    inner = contextvars.copy_context().run(inside, c, name)
    pause(c, name)
    return json.dumps([before, variable.get(), inner])

def inside(c, name):
    variable.set(name + " inside")
    pause(c, name)
    return variable.get()


def do_thread_local(c, environ, name):
    local.value = name
    seen = []
    for _ in range(3):
        pause(c, name)
        seen.append(local.value == name)
    return json.dumps(seen)


def do_exc_info(c, environ, name):
    seen = [sys.exc_info()[0] is None]
    try:
        try:
            raise KeyError(name)
        except KeyError:
            pause(c, name)
            seen.append(str(sys.exc_info()[1]))
            try:
                raise ValueError("inner " + name)
            except ValueError as error:
                pause(c, name)
                seen += [str(sys.exc_info()[1]), str(error.__context__)]
            seen.append(str(sys.exc_info()[1]))
            pause(c, name)
            raise
    except KeyError as error:
        seen += [str(error), [frame.name for frame in traceback.extract_tb(error.__traceback__)]]
    pause(c, name)
    seen.append(sys.exc_info()[0] is None)
    return json.dumps(seen)


def do_generators(c, environ, name):
    def numbers():
        for number in range(3):
            pause(c, name)
            got = yield f"{name}{number}"
            assert got is None
        return name
    def delegating():
        result = yield from numbers()
        pause(c, name)
        yield result
    return json.dumps(list(delegating()))


def do_context_managers(c, environ, name):
    trace = []
    @contextlib.contextmanager
    def managed(label):
        trace.append("enter " + label)
        pause(c, name)
        try:
            yield label
        finally:
            pause(c, name)
            trace.append("exit " + label)
    with contextlib.suppress(LookupError), contextlib.ExitStack() as stack:
        stack.enter_context(managed(name + "1"))
        stack.enter_context(managed(name + "2"))
        raise LookupError
    return json.dumps(trace)


def do_depth(c, environ, name):
    def down(levels):
        if levels:
            return down(levels - 1)
        pause(c, name)
        return depth()
    def depth():
        count, frame = 0, sys._getframe()
        while frame:
            count, frame = count + 1, frame.f_back
        return count
    alone = depth()
    return json.dumps([down(300) - alone, down(0) - alone, depth() - alone])


def do_recursion(c, environ, name):
    # All of the limit is there for each request, whatever depth another one waits at.
    def down(levels):
        if levels == 0:
            pause(c, name)
            return 0
        return 1 + down(levels - 1)
    first = down(sys.getrecursionlimit() - 150)
    try:
        down(sys.getrecursionlimit() + 10)
    except RecursionError:
        pause(c, name)
        return json.dumps([first == sys.getrecursionlimit() - 150, "RecursionError"])


def do_frames(c, environ, name):
    def outer():
        return middle(name)
    def middle(value):
        frames_before = [(f.f_code.co_name, f.f_lineno) for f, _ in traceback.walk_stack(None)]
        pause(c, name)
        frames_after = [(f.f_code.co_name, f.f_lineno) for f, _ in traceback.walk_stack(None)]
        return [
            [one[0] for one in frames_before] == [one[0] for one in frames_after],
            frames_before[1:] == frames_after[1:],
            sys._getframe(1).f_code.co_name,
            value,
        ]
    return json.dumps(outer())


def do_traceback(c, environ, name):
    def raiser():
        pause(c, name)
        raise RuntimeError(name)
    try:
        raiser()
    except RuntimeError as error:
        pause(c, name)
        return json.dumps([frame.name for frame in traceback.extract_tb(error.__traceback__)])


def do_decimal(c, environ, name):
    precision = 5 + len(name)
    with decimal.localcontext() as context:
        context.prec = precision
        pause(c, name)
        inside = str(decimal.Decimal(1) / 3)
    pause(c, name)
    return json.dumps([len(inside) - 2 == precision, decimal.getcontext().prec])


def do_asyncio(c, environ, name):
    async def part(number):
        await asyncio.sleep(0)
        pause(c, f"{name}{number}") if number == 1 else None
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop() is loop
        return number
    async def whole():
        nonlocal loop
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        pause(c, f"{name}0")
        assert asyncio.current_task() is task
        return await asyncio.gather(*map(part, range(3)))
    loop = None
    numbers = asyncio.run(whole())
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return json.dumps([numbers, name])


def do_async_generator(c, environ, name):
    async def numbers():
        try:
            for number in range(2):
                await asyncio.sleep(0)
                pause(c, name)
                yield number
        finally:
            notes.append("closed " + name)
    async def whole():
        async for number in numbers():
            pause(c, name)
            return number
    return json.dumps(asyncio.run(whole()))


def do_warnings(c, environ, name):
    # As in threads, catch_warnings is one for all; the server must not mind.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        pause(c, name)
        warnings.warn(name)
    return name


def do_import(c, environ, name):
    with open(name + "_module.py", "w") as module:
        module.write("import app\\napp.pause(app.importing[__name__], __name__)\\nvalue = __name__\\n")
    sys.modules["app"] = sys.modules[__name__]
    importing[name + "_module"] = c
    module = __import__(name + "_module")
    return module.value

importing = {}


class Finalized:
    def __init__(self, c, name):
        self.c, self.name = c, name
    def __del__(self):
        pause(self.c, self.name)
        notes.append("finalized " + self.name)

def do_finalizer(c, environ, name):
    Finalized(c, name)
    try:
        raise KeyError(name)
    except KeyError:
        Finalized(c, name)
        assert sys.exc_info()[1].args == (name,)
    return name

def do_weakref(c, environ, name):
    class Target:
        pass
    target = Target()
    def callback(reference):
        pause(c, name)
        notes.append("called " + name)
    reference = weakref.ref(target, callback)
    del target
    assert reference() is None
    return name

def do_collected(c, environ, name):
    # The collector itself calls the finalizer that suspends.
    finalized = Finalized(c, name)
    finalized.cycle = finalized
    del finalized
    gc.collect()
    return name


def do_hash(c, environ, name):
    class Key:
        def __hash__(self):
            pause(c, name)
            return 1
        def __eq__(self, other):
            pause(c, name)
            return self is other
    one, other = Key(), Key()
    table = {one: 1}
    table[other] = 2
    return json.dumps([table[one], len(table)])


def do_logging(c, environ, name):
    class Handler(logging.Handler):
        def emit(self, record):
            pause(c, name)
            notes.append(record.getMessage())
    # Its lock is the thread's: taken twice by two requests, and released twice.
    logger = logging.getLogger("chatty." + name)
    logger.propagate = False
    handler = Handler()
    logger.addHandler(handler)
    logger.error("by %s", name)
    logger.removeHandler(handler)
    return name


def do_pieces(c, environ, name):
    def pieces():
        for number in range(3):
            pause(c, name)
            yield f"{name}{number} ".encode()
    return pieces()


def do_thread_identity(c, environ, name):
    before = threading.get_ident(), threading.current_thread()
    pause(c, name)
    return str(before == (threading.get_ident(), threading.current_thread()))
"""
)

SUFFIX = {"import": "_module"}

# What each request has noted when it has ended, as often.
NOTED = {
    "async_generator": ["closed NAME"],
    "finalizer": ["finalized NAME"] * 2,
    "weakref": ["called NAME"],
    "logging": ["by NAME"],
}

# The name of each case, how often each request suspends, and what the requests "one" and "three" answer.
CASES = [
    ("contextvars", 3, '["unset", "NAME", "NAME inside"]'),
    ("thread_local", 3, "[true, true, true]"),
    (
        "exc_info",
        4,
        """[true, "'NAME'", "inner NAME", "'NAME'", "'NAME'", "'NAME'", ["do_exc_info"], true]""",
    ),
    ("generators", 4, '["NAME0", "NAME1", "NAME2", "NAME"]'),
    ("context_managers", 4, '["enter NAME1", "enter NAME2", "exit NAME2", "exit NAME1"]'),
    ("depth", 2, "[301, 1, 0]"),
    ("recursion", 2, '[true, "RecursionError"]'),
    ("frames", 1, '[true, true, "outer", "NAME"]'),
    ("traceback", 2, '["do_traceback", "raiser"]'),
    ("decimal", 2, "[true, 28]"),
    ("async_generator", 2, "0"),
    ("warnings", 1, "NAME"),
    ("import", 1, "NAME_module"),
    ("finalizer", 2, "NAME"),
    ("weakref", 1, "NAME"),
    ("hash", 4, "[1, 2]"),
    ("logging", 1, "NAME"),
    ("pieces", 3, "NAME0 NAME1 NAME2 "),
    ("thread_identity", 1, "True"),
]


@pytest.mark.parametrize(("case", "pauses", "answer"), CASES, ids=[case[0] for case in CASES])
def test_two_interleaved_requests_find_their_state(
    serve: Callable, case: str, pauses: int, answer: str
) -> None:
    server = serve(STATE)
    suffix = SUFFIX.get(case, "")
    names = ["one", "three"]
    with Client(server.port) as control:
        for order in (names, names[::-1]):
            clients = {name: Client(server.port).send(f"/{case}", name=name) for name in names}
            for _ in range(pauses):
                wait_for_parked(server.port, 2)
                for name in order:
                    assert control.get("/wake", name=name + suffix).text == "resumed"
            for name, client in clients.items():
                assert client.response().text == answer.replace("NAME", name)
                client.finish()
            noted = [note.replace("NAME", name) for note in NOTED.get(case, []) for name in names]
            assert sorted(control.get("/notes").json()) == sorted(noted)
            if case == "import":
                break


def test_two_event_loops_at_once(serve: Callable) -> None:
    server = serve(STATE)
    clients = {name: Client(server.port).send("/asyncio", name=name) for name in ("one", "two")}
    for number in range(2):
        wait_for_parked(server.port, 2)
        for name in ("two", "one"):
            get(server.port, "/wake", name=f"{name}{number}")
    for name, client in clients.items():
        assert client.response().json() == [[0, 1, 2], name]
        client.finish()


def test_a_module_that_waits_is_found_in_part_by_requests_and_waited_for_by_threads(serve: Callable) -> None:
    server = serve(
        STATE
        + """
def do_import_half(c, environ):
    try:
        from one_module import value
    except ImportError as error:
        import one_module
        return "in part " + str(hasattr(one_module, "value"))
    return value

in_thread = []

def do_import_in_thread(c, environ):
    def work():
        import one_module
        in_thread.append(one_module.value)
    in_thread.append(threading.Thread(target=work))
    in_thread[0].start()
    return str(len(in_thread))

def do_join(c, environ):
    in_thread[0].join(30)
    return in_thread[1]
"""
    )
    with Client(server.port) as client:
        client.send("/import", name="one")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/import_half").text == "in part False"
        assert get(server.port, "/import_in_thread").text == "1"
        get(server.port, "/wake", name="one_module")
        assert client.response().text == "one_module"
    assert get(server.port, "/join").text == "one_module"
    assert get(server.port, "/import_half").text == "one_module"


def test_a_finalizer_that_the_collector_calls(serve: Callable) -> None:
    server = serve(STATE)
    with Client(server.port) as client:
        client.send("/collected", name="it")
        wait_for_parked(server.port, 1)
        assert get(server.port, "/parked").text == "1"
        get(server.port, "/wake", name="it")
        assert client.response().text == "it"
    assert get(server.port, "/notes").json() == ["finalized it"]


def test_contexts_are_fresh_and_thread_locals_are_the_coroutine_s(serve: Callable) -> None:
    server = serve(
        STATE
        + """
def do_leave(c, environ):
    found = [variable.get(), getattr(local, "left", None)]
    variable.set("left")
    local.left = "left"
    return json.dumps(found)
"""
    )
    found = [get(server.port, "/leave").json() for _ in range(3)]
    assert [context for context, _ in found] == ["unset"] * 3
    assert found[0][1] is None
    assert found[1][1] == "left", "the coroutine is taken again, as a pool's thread would be"


# The process as a whole


def test_tracing_set_by_a_request_is_taken_off_by_it(serve: Callable) -> None:
    server = serve(
        STATE
        + """
def do_trace(c, environ, name, kind):
    seen = set()
    def trace(frame, event, arg):
        seen.add(frame.f_code.co_name)
        return trace
    setter = getattr(sys, "set" + kind)
    setter(trace)
    first()
    pause(c, name)
    second()
    setter(None)
    third()
    return json.dumps([name in seen for name in ("first", "second", "third")])

def do_suspend_in_trace(c, environ, name, kind):
    setter = getattr(sys, "set" + kind)
    def trace(frame, event, arg):
        if frame.f_code.co_name == "first" and event == "call":
            pause(c, name)
        return trace
    setter(trace)
    first()
    setter(None)
    return name

def first(): pass
def second(): pass
def third(): pass
"""
    )
    for kind in ("trace", "profile"):
        for path, answer in (("/trace", "[true, true, false]"), ("/suspend_in_trace", "one")):
            with Client(server.port) as client:
                client.send(path, name="one", kind=kind)
                wait_for_parked(server.port, 1)
                get(server.port, "/wake", name="one")
                assert client.response().text == answer, (kind, path)


def test_garbage_is_collected_while_hundreds_wait(serve: Callable) -> None:
    server = serve(
        STATE
        + """
def do_deep(c, environ, name):
    payload = {"own": [name] * 10}
    payload["cycle"] = payload
    def down(levels, held):
        return down(levels - 1, [held]) if levels else pause(c, name)
    try:
        raise KeyError(name)
    except KeyError as error:
        down(20, payload)
        assert error.args == (name,) and payload["own"] == [name] * 10 and payload["cycle"] is payload
    return name

def do_collect(c, environ):
    garbage = [[] for _ in range(1000)]
    for each in garbage:
        each.append(each)
    del garbage, each
    return str(gc.collect() >= 1000)
"""
    )
    clients = {
        name: Client(server.port).send("/deep", name=name) for name in map(str, range(500))
    }
    wait_for_parked(server.port, 500)
    for _ in range(3):
        assert get(server.port, "/collect").text == "True"
    with Client(server.port) as control:
        for name in reversed(clients):
            control.get("/wake", name=name)
    for name, client in clients.items():
        assert client.response().text == name
        client.finish()


def test_a_request_forks_and_runs_programs(serve: Callable) -> None:
    server = serve(
        STATE
        + """
import subprocess

def do_fork(c, environ, name):
    pause(c, name)
    child = os.fork()
    if child == 0:
        try:
            variable.set("child")
            gc.collect()
            os._exit(7)
        finally:
            os._exit(1)
    pause(c, name)
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def do_program(c, environ, name):
    pause(c, name)
    done = subprocess.run([sys.executable, "-c", "print('from a program')"], capture_output=True, timeout=30)
    return done.stdout.decode().strip()
"""
    )
    with Client(server.port, 30) as other, Client(server.port, 30) as client:
        other.send("/thread_local", name="other")
        client.send("/fork", name="one")
        for _ in range(2):
            wait_for_parked(server.port, 2)
            get(server.port, "/wake", name="one")
        assert client.response().text == "7"
        client.send("/program", name="one")
        wait_for_parked(server.port, 2)
        get(server.port, "/wake", name="one")
        assert client.response().text == "from a program"
        for _ in range(3):
            wait_for_parked(server.port, 1)
            get(server.port, "/wake", name="other")
        assert other.response().json() == [True, True, True]


def test_other_threads_run_python_meanwhile(serve: Callable) -> None:
    server = serve(
        STATE
        + """
stop = threading.Event()
counted = []

def count():
    own = threading.local()
    own.value = 0
    while not stop.is_set():
        variable.set(own.value)
        own.value += 1
        try:
            raise KeyError(own.value)
        except KeyError as error:
            assert error.args == (own.value,) and sys.exc_info()[1] is error
    counted.append(own.value)

threads = [threading.Thread(target=count) for _ in range(2)]

def do_start(c, environ):
    for thread in threads:
        thread.start()
    return "started"

def do_stop(c, environ):
    stop.set()
    for thread in threads:
        thread.join(10)
    return json.dumps([value > 0 for value in counted])
"""
    )
    get(server.port, "/start")
    with Client(server.port, 30) as one, Client(server.port, 30) as control:
        for _ in range(3):
            one.send("/exc_info", name="one")
            for _ in range(4):
                wait_until(lambda: control.get("/parked").text == "1", "it is suspended", 30)
                control.get("/wake", name="one")
            assert "do_exc_info" in one.response().text
        assert control.get("/stop").json() == [True, True]


# Objects that outlive their request, or leave it


OUTLIVING = (
    ROUTES
    + """
import threading

kept = {}

def told(call, *args):
    try:
        return f"no error: {call(*args)!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def in_thread(call, *args):
    texts = []
    thread = threading.Thread(target=lambda: texts.append(told(call, *args)))
    thread.start()
    thread.join(10)
    return texts[0]

def uses():
    body, write, start = kept["input"], kept["write"], kept["start"]
    return [
        (body.read,), (body.read, 1), (body.readline,), (body.readlines,), (body.__next__,),
        (body.readinto, bytearray(4)), (write, b"more"), (start, "200 OK", []),
        (start, "200 OK", [], (ValueError, ValueError("x"), None)), (kept["c"].suspend, 1), (kept["c"].resume,),
        (kept["client"].continuation,),
    ]

@ContinuationMiddleware
def app(environ, start_response):
    c = environ[CONTINUATION_KEY]
    def answer(text):
        start_response("200 OK", [])
        return [text.encode()]
    if environ["PATH_INFO"] == "/keep":
        write = start_response("200 OK", [])
        kept.update(input=environ["wsgi.input"], write=write, start=start_response, c=c, client=environ[CLIENT_KEY])
        write(b"kept ")
        if "park" in environ["QUERY_STRING"]:
            parked["it"] = c
            c.suspend(30)
        return [b"ended"]
    if environ["PATH_INFO"] == "/use":
        return answer(json.dumps([told(*use) for use in uses()]))
    if environ["PATH_INFO"] == "/use_in_thread":
        return answer(json.dumps([in_thread(*use) for use in uses()]))
    if environ["PATH_INFO"] == "/wake":
        kept["c"].resume()
        return answer("woken")
    if environ["PATH_INFO"] == "/drop":
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join(10)
    return answer("dropped")
"""
)


def test_what_a_request_was_given_is_useless_after_its_end(serve: Callable) -> None:
    # The objects are to be the server's own, not what the validator puts around them.
    server = serve(OUTLIVING, validate=False)
    with Client(server.port) as client:
        request = b"POST /keep HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
        assert client.send_bytes(request).response().text == "kept ended"
        texts = client.get("/use").json()
        # The client's own continuation is that of the request which asks for it.
        for text in texts[:-1]:
            assert "Error: " in text
            assert not text.startswith("no error"), texts
        assert all("has ended" in text for text in texts[:7]), texts
        texts = client.get("/use_in_thread").json()
        for text in texts:
            assert not text.startswith("no error"), texts
        assert client.get("/drop").text == "dropped"
    assert get(server.port, "/drop").text == "dropped"


def test_another_thread_cannot_read_or_write(serve: Callable) -> None:
    # The objects are to be the server's own, not what the validator puts around them.
    server = serve(OUTLIVING, validate=False)
    with Client(server.port) as client:
        request = b"POST /keep?park HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
        client.send_bytes(request).head()
        texts = get(server.port, "/use_in_thread").json()
        for text in texts[:-2]:
            assert "thread" in text, texts
        # The last two: resume, which any thread may call and which woke the request.
        assert texts[-2] == "no error: None"
        assert client.until(b"0\r\n\r\n")
