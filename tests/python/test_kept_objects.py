"""What an application keeps of a request belongs to that request for ever, though the server reuses what nobody kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from program import run_program

#: Ways to keep a thing: each returns a function that gives it back, or None if it could not be kept.
KEEPERS = """
import contextvars, functools, gc, queue, weakref

gc.disable()
variable = contextvars.ContextVar("variable")

class Node:
    pass

def in_a_list(thing):
    kept = [thing]
    return kept.pop

def in_a_closure(thing):
    return lambda: thing

def in_a_partial_call(thing):
    return functools.partial(lambda kept: kept, thing)

def in_a_tuple_in_a_dict(thing):
    kept = {"a": (1, thing)}
    return lambda: kept["a"][1]

def in_a_traceback(thing):
    def fail(held):
        raise ValueError
    try:
        fail(thing)
    except ValueError as error:
        kept = error
    del thing
    return lambda: kept.__traceback__.tb_next.tb_frame.f_locals["held"]

def in_a_generator(thing):
    def generate(held):
        yield
        yield held
    generator = generate(thing)
    next(generator)
    return lambda: next(generator)

def in_a_thread(thing):
    asked, answers = queue.SimpleQueue(), queue.SimpleQueue()
    def hold(held):
        asked.get()
        answers.put(held)
    thread = threading.Thread(target=hold, args=(thing,))
    thread.start()
    def give():
        asked.put(None)
        thread.join()
        return answers.get()
    return give

def in_a_task(thing):
    answers = []
    def hold(held):
        while not answers:
            server.sleep(0.001)
        answers.append(held)
    task = server.spawn(hold, (thing,))
    def give():
        answers.append(None)
        task.join()
        return answers[1]
    return give

def in_a_cycle_that_is_garbage(thing):
    node = Node()
    node.itself, node.thing = node, thing
    reference = weakref.ref(node)
    return lambda: reference().thing

def in_a_context(thing):
    context = contextvars.Context()
    context.run(variable.set, thing)
    return lambda: context[variable]

def by_a_method_of_it(thing):
    for name in ("read", "continuation", "resume", "__call__", "update"):
        if hasattr(thing, name):
            method = getattr(thing, name)
            return lambda: method.__self__
    raise AssertionError(thing)

def by_a_weak_reference(thing):
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: None

def by_a_weak_reference_with_a_callback(thing):
    try:
        return weakref.ref(thing, lambda _: None)
    except TypeError:
        return lambda: None

def by_the_collector(thing):
    kept = [each for each in gc.get_objects() if each is thing]
    return kept.pop

def by_its_owner(thing):
    owner = getattr(thing, "__self__", None)
    return lambda: owner and owner.start_response

def not_at_all(thing):
    return lambda: None
"""

PROGRAM = """
def things_of(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    return {
        "environ": environ,
        "input": environ["wsgi.input"],
        "early_hints": environ["wsgi.early_hints"],
        "client": environ[CLIENT_KEY],
        "continuation": environ[CONTINUATION_KEY],
        "made": environ[CLIENT_KEY].continuation(),
        "start_response": start_response,
        "write": write,
    }

USES = {
    "environ": lambda kept: kept.update(STRAY="1"),
    "input": lambda kept: kind(kept.read),
    "early_hints": lambda kept: kind(kept, [("Link", "x")]),
    "client": lambda kept: [kept.connected, kept.get_fd(), kind(kept.set_closed, True)],
    "continuation": lambda kept: [
        kept.suspended, kept.connected, kind(kept.resume, 1), kind(kept.suspend, 0.001)
    ],
    "made": lambda kept: [
        kept.suspended, kept.connected, kind(kept.resume, 1), kind(kept.suspend, 0.001)
    ],
    "start_response": lambda kept: [
        kind(kept, "204 No Content", []),
        kind(kept, "204 No Content", [], (ValueError, ValueError("an earlier error"), None)),
    ],
    "write": lambda kept: kind(kept, b"stray"),
}

kept = {}
seen = {}

def app(environ, start_response):
    things = things_of(environ, start_response)
    if environ["PATH_INFO"] == "/keep":
        seen.clear()
        keeper, name = environ["QUERY_STRING"].split("-")
        kept["give"] = globals()[keeper](things[name])
        kept["name"] = name
    else:
        # Once to look, and once more when it was let go.
        thing, name = kept.pop("give", lambda: None)(), kept["name"]
        if thing is not None:
            seen["reappears"] = any(thing is each for each in things.values())
            seen["use"] = USES[name](thing)
        own = [things["client"].connected, things["input"].read().decode(), "STRAY" in environ]
        seen["own"] = own
    return [b"right"]

def exchange(connection, path, times=1):
    connection.sendall(b"GET %s HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" % path.encode() * times)
    received = b""
    while received.count(b"\\r\\n\\r\\nright") < times:
        data = connection.recv(65536)
        if not data:
            return "ended"
        received += data
    return "right"

def talk():
    keepers = [name for name in globals() if name.startswith(("in_a", "by_", "not_at_all"))]
    with socket.create_connection(server.addresses()[0], timeout=10) as connection:
        for keeper in keepers:
            for name in USES:
                # After one loss, so many requests pass before an environ is lent again; these leave
                # all of their objects for the one that keeps one.
                answers = [exchange(connection, f"/keep?not_at_all-{name}", 110)]
                answers += [exchange(connection, path) for path in (f"/keep?{keeper}-{name}", "/use", "/use")]
                notes.append([keeper, name, dict(seen), answers])

serve(lambda: on_a_thread(talk), app=app)
"""

ENDED = "RuntimeError: the request that this belongs to has ended"
#: What each thing says in another request than its own.
REFUSALS = {
    "environ": None,
    "input": ENDED,
    "early_hints": ENDED,
    "client": [False, -1, ENDED],
    "continuation": [
        False,
        False,
        "ContinuationError: its request has ended",
        "ContinuationError: cannot suspend here: this continuation belongs to another request",
    ],
    "made": [
        False,
        False,
        "ContinuationError: its request has ended",
        "ContinuationError: cannot suspend here: this continuation belongs to another request",
    ],
    "start_response": [
        "AssertionError: start_response was called a second time without exc_info (PEP 3333)",
        ENDED,
    ],
    "write": ENDED,
}

#: What cannot be kept so.
UNKEPT = {("by_its_owner", name) for name in REFUSALS if name != "start_response"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list]:
    """What became of each thing, kept in each way, at the next request."""
    notes = run_program(tmp_path_factory.mktemp("kept"), KEEPERS + PROGRAM).notes
    return {(keeper, name): rest for keeper, name, *rest in notes}


KEPT_BY = [line.split("(")[0][4:] for line in KEEPERS.splitlines() if line.startswith("def ")]


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("keeper", KEPT_BY)
def test_what_is_kept_never_serves_another_request(
    seen: dict[tuple[str, str], Any], keeper: str, name: str
) -> None:
    """It is none of the objects of the next request, and refuses there; that request has its own."""
    found, answers = seen[keeper, name]
    assert answers == ["right"] * 4
    assert found.pop("own") == [True, "", False]
    # A function that is weakly referenced dies with its request.
    weakly = "weak" in keeper or keeper == "not_at_all"
    if weakly or (keeper, name) in UNKEPT:
        assert found == {}
    else:
        assert found == {"reappears": False, "use": REFUSALS[name]}


def test_nothing_of_a_request_shows_in_the_next(tmp_path: Path) -> None:
    """Bytes read ahead, a message kept for a suspend, a begun response, a muted one: all are the request's own."""
    source = r"""
    def app(environ, start_response):
        path, body, c = environ["PATH_INFO"], environ["wsgi.input"], environ[CONTINUATION_KEY]
        if path == "/reads-ahead":
            notes.append(body.readline().decode())
        elif path == "/resumed-early":
            thread = threading.Thread(target=c.resume, args=("early",))
            thread.start()
            thread.join()
        elif path == "/made-another":
            notes.append(type(environ[CLIENT_KEY].continuation()).__name__)
        elif path == "/names-a-module":
            start_response.__module__ = "the first one's"
        elif path == "/raises":
            raise ValueError("meant to fail")
        elif path == "/times-out":
            c.suspend(0.001)
        elif path == "/unstarted":
            return [b"never sent"]
        elif path == "/muted":
            environ[CLIENT_KEY].set_closed(True)
        elif path == "/look":
            notes.append([body.read().decode(), kind(c.suspend, 0.001), environ[CLIENT_KEY].connected, repr(c)[-15:], start_response.__module__])
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    def talk():
        client = http.client.HTTPConnection("127.0.0.1", server.addresses()[0][1], timeout=10)
        for path in ("reads-ahead", "resumed-early", "made-another", "names-a-module", "raises", "times-out", "unstarted", "muted"):
            for each, content in ((path, b"one\ntwo\n"), ("look", b"")):
                client.request("POST", "/" + each, content)
                answer = kind(client.getresponse)
                notes.append([each, getattr(answer, "status", None)])
                if hasattr(answer, "read"):
                    answer.read()
                else:
                    client.close()

    serve(lambda: on_a_thread(talk), app=app)
    """
    notes = run_program(tmp_path, source).notes
    look = [["", "timeout: timed out: not resumed in time", True, " not suspended>", None], ["look", 200]]
    assert notes == [
        *("one\n", ["reads-ahead", 200], *look),
        *(["resumed-early", 200], *look),
        *("Continuation", ["made-another", 200], *look),
        *(["names-a-module", 200], *look),
        *(["raises", 500], *look),
        *(["times-out", 500], *look),
        *(["unstarted", 500], *look),
        *(["muted", None], *look),
    ]


def test_requests_at_the_same_time_have_objects_of_their_own(tmp_path: Path) -> None:
    """As many as there are, more than are kept for reuse; each resumes by its own continuation."""
    source = """
    waiting = {}
    different = []

    def app(environ, start_response):
        things = [environ["wsgi.input"], environ["wsgi.early_hints"], environ[CLIENT_KEY], environ[CONTINUATION_KEY], start_response]
        path = environ["PATH_INFO"]
        waiting[path] = things
        told = things[3].suspend()
        start_response("200 OK", [])
        return [f"{path} {told}".encode()]

    def main():
        for round in range(3):
            asked = [ask(f"/{round}/{number}") for number in range(100)]
            while len(waiting) < 100:
                server.sleep(0.001)
            different.append(len({id(thing) for things in waiting.values() for thing in things}))
            for path, things in list(waiting.items()):
                things[3].resume(path)
            waiting.clear()
            del path, things
            notes.append(all(task.join() == f"/{round}/{number} /{round}/{number}" for number, task in enumerate(asked)))
        notes.append(different)

    serve(main, app=app)
    """
    notes = run_program(tmp_path, source).notes
    assert notes == [True, True, True, [500, 500, 500]]


#: What an application may do to its environ; none of it is seen by another request.
CHANGES = [
    "environ['NEW'] = '1'",
    "environ['PATH_INFO'] = '/other'",
    "environ['PATH_INFO'] = ''.join(environ['PATH_INFO'])",
    "del environ['HTTP_HOST']",
    "environ.pop('HTTP_HOST')",
    "environ.popitem()",
    "environ.clear()",
    "environ.update(NEW='1')",
    "environ |= {'NEW': '1'}",
    "environ.setdefault('NEW', '1')",
    "environ.setdefault('HTTP_HOST', '1')",
    "environ['PATH_INFO'] = environ.pop('PATH_INFO')",
    "environ.__init__(NEW='1')",
    "kept.append(iter(environ))",
    "kept.append(environ.items())",
    "kept.append(environ.copy())",
    "kept.append(lambda: environ)",
    "environ['itself'] = environ",
    "kept.append([each for each in gc.get_objects() if type(each) is dict and 'wsgi.input' in each])",
    "environ['NEW'] = Noisy()",
]


def test_a_changed_environ_is_nobody_elses(tmp_path: Path) -> None:
    """However it is changed or kept; what it held is let go of when the request ends."""
    source = f"""
    import gc
    CHANGES = {CHANGES!r}
    kept, gone = [], []

    class Noisy:
        def __del__(self):
            gone.append(True)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/change"):
            exec(CHANGES[int(path[7:])], {{**globals(), "environ": environ}})
        shown = [[key, value if type(value) in (str, bool) else type(value).__name__] for key, value in environ.items()]
        body = json.dumps([shown, len(gone)]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def talk():
        def ask(path):
            client.request("GET", path)
            return json.loads(client.getresponse().read())
        client = http.client.HTTPConnection("127.0.0.1", server.addresses()[0][1], timeout=10)
        expected = ask("/same")
        for number in range(len(CHANGES)):
            for _ in range(110):
                if ask("/same") != expected:
                    notes.append("before " + CHANGES[number])
            ask(f"/change{{number}}")
            if CHANGES[number].endswith("Noisy()"):
                expected[1] += 1
            for _ in range(3):
                if (found := ask("/same")) != expected:
                    notes.append(["after " + CHANGES[number], found, expected])

    def main():
        on_a_thread(talk)
        notes.append(len(gone))

    serve(main, app=app)
    """
    assert run_program(tmp_path, source).notes == [1]


def test_more_connections_than_are_remembered_wait_at_once(tmp_path: Path) -> None:
    """Each request has its own environ while all of them wait, and after it; round by round."""
    source = r"""
    COUNT, ROUNDS = 600, 5
    waiting = []

    def app(environ, start_response):
        def shown():
            keys = ("REMOTE_PORT", "HTTP_X_PORT", "QUERY_STRING", "HTTP_X_ROUND", "HTTP_X_KEPT")
            return [environ.get(key) for key in keys]
        before = shown()
        waiting.append(environ[CONTINUATION_KEY])
        told = environ[CONTINUATION_KEY].suspend()
        after = shown()
        right = before == after == [before[0], before[0], before[3] + told, before[3], None]
        if before[3] == "2" and int(before[0]) % 3 == 0:
            # Some change theirs, so that the others get copies.
            environ["HTTP_X_KEPT"] = "1"
        start_response("200 OK", [("Content-Length", "1")])
        return [b"r" if right else b"w"]

    def talk():
        connections = [socket.create_connection(server.addresses()[0], timeout=20) for _ in range(COUNT)]
        for round in range(ROUNDS):
            for connection in connections:
                port = connection.getsockname()[1]
                head = f"GET /?{round}told HTTP/1.1\r\nHost: a\r\nX-Port: {port}\r\nX-Round: {round}\r\n\r\n"
                connection.sendall(head.encode())
            answers = b""
            for connection in connections:
                received = b""
                while b"\r\n\r\n" not in received or not received.endswith((b"r", b"w")):
                    received += connection.recv(4096)
                answers += received[-1:]
            notes.append(answers == b"r" * COUNT)

    def main():
        thread = threading.Thread(target=talk)
        thread.start()
        while thread.is_alive():
            server.sleep(0.002)
            if len(waiting) == COUNT:
                for continuation in waiting:
                    continuation.resume("told")
                waiting.clear()
                del continuation

    serve(main, app=app)
    """
    assert run_program(tmp_path, source).notes == [True] * 5
