"""Requests walk random trees of calls that suspend, while all that an interpreter can be told is told to it.

Each pause hands out a token of its own and must be woken with it; each walk then finds its context variable, its
thread-local and its handled exception as it left them. Some are killed, some lose their client, and the server stops
while they walk: each comes to its end. STRESS_SECONDS makes the run longer, and STRESS_SEED
repeats one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from collections.abc import Callable

import pytest
from routes import ROUTES
from wire import Client, get

SECONDS = float(os.environ.get("STRESS_SECONDS", "2"))
SEED = int(os.environ.get("STRESS_SEED", random.randrange(1 << 30)))
CLIENTS = 40
HAS_GREENLETS = all(map(importlib.util.find_spec, ("greenlet", "sqlalchemy")))

WALKS = (
    ROUTES
    + r'''
import asyncio, atexit, cProfile, contextlib, contextvars, ctypes, faulthandler, functools, gc, importlib.abc
import importlib.util, itertools, os, random, signal, sqlite3, subprocess, threading, time, tracemalloc, weakref

variable = contextvars.ContextVar("variable")
local = threading.local()
waiting, errors = [], []
signals = 0
# The control connection waits for the end of the walks.
server.set_keepalive(3600)

class Thrown(Exception):
    pass

class Cut(Exception):
    """Ends a walk wherever it is."""

class CutOff(BaseException):
    """The same, where only what is asked for is caught."""

# What may end a walk before its time.
ENDS = Cut, CutOff, server.TaskKilled, server.ClientDisconnected, server.Stopped
# How long a pause may take, which is long for a machine that is busy.
WAIT_SECONDS = 30
walks = {"begun": 0, "ended": 0, "cut": 0}
killable = []

class Walk:
    """One request's way through the tree."""

    def __init__(self, environ, seed):
        self.client, self.random = environ[CLIENT_KEY], random.Random(seed)
        self.pauses = 0
        self.stopping = False

    def all(self, depth):
        walks["begun"] += 1
        try:
            return self.down(depth)
        except ENDS:
            walks["cut"] += 1
            raise
        finally:
            walks["ended"] += 1

    def pause(self):
        """Wait for the token that is handed out here, and nothing else."""
        if self.stopping:
            return 1
        token, name = object(), object()
        context = variable.set(name)
        before, exception = getattr(local, "value", None), sys.exc_info()[1]
        local.value = name
        c = self.client.continuation()
        waiting.append((c, token))
        if self.random.random() < 0.05:
            # So does a finalizer that the collector calls here; one of the woken may be this very walk, too early.
            wake_some(self.random)
        begun = time.monotonic()
        try:
            got = c.suspend(WAIT_SECONDS)
        except Thrown as error:
            got = error.args[0]
        except server.ContinuationError:
            # Refused to suspend, inside a callback from C: nobody is to wake it.
            if (c, token) in waiting:
                waiting.remove((c, token))
            self.restore(context, before)
            raise
        except ENDS as error:
            self.stopping = isinstance(error, server.Stopped)
            if local.value is not name or variable.get() is not name:
                errors.append(f"a pause that was cut found {local.value!r} {variable.get()!r}")
            self.restore(context, before)
            raise
        if time.monotonic() - begun >= WAIT_SECONDS:
            # What was delivered counts also where the time-out ends the wait.
            errors.append("a pause was resumed, but woken by its time-out only")
        if got is not token or local.value is not name or variable.get() is not name:
            errors.append(f"a pause found {got!r} {local.value!r} {variable.get()!r}")
        if sys.exc_info()[1] is not exception:
            errors.append(f"a pause handles {sys.exc_info()[1]!r} instead of {exception!r}")
        self.restore(context, before)
        self.pauses += 1
        return 1

    def restore(self, context, before):
        variable.reset(context)
        local.value = before

    def down(self, depth):
        if depth == 0 or self.random.random() < 0.1:
            return self.pause()
        return sum(self.shape()(self, depth - 1) for _ in range(self.random.choice((1, 1, 2))))

    def shape(self):
        return self.random.choice(SHAPES)

def plain(walk, depth):
    return walk.down(depth)

def generator(walk, depth):
    def pieces():
        yield walk.down(depth)
        yield walk.pause()
    def outer():
        yield from pieces()
    return sum(outer())

def context_manager(walk, depth):
    count = 0
    @contextlib.contextmanager
    def manager():
        nonlocal count
        count += walk.pause()
        try:
            yield
        finally:
            count += walk.pause()
    with manager():
        count += walk.down(depth)
    return count

def try_finally(walk, depth):
    count = 0
    try:
        try:
            count += walk.down(depth)
            raise KeyError(walk)
        finally:
            count += walk.pause()
    except KeyError as error:
        count += walk.pause()
        assert error.args == (walk,)
    return count

def asynchronous(walk, depth):
    async def inner():
        await asyncio.sleep(0)
        return walk.pause() + walk.pause()
    async def outer():
        return sum(await asyncio.gather(inner(), inner()))
    try:
        return asyncio.run(outer())
    except RuntimeError as error:  # inside another shape's event loop
        if "running event loop" not in str(error):
            raise
        return 0

def sorted_key(walk, depth):
    return len(sorted([0, 1], key=lambda _: walk.pause()))

def reduced(walk, depth):
    return functools.reduce(lambda total, _: total + walk.down(depth), range(2), 0)

def ctypes_callback(walk, depth):
    c = walk.client.continuation()
    def call():
        try:
            c.suspend(1)
        except server.ContinuationError:
            return 7
        return 0
    if ctypes.CFUNCTYPE(ctypes.c_int)(call)() != 7:
        errors.append("a C callback suspended")
    return walk.down(depth)

def sqlite_callback(walk, depth):
    database = sqlite3.connect(":memory:")
    count = []
    database.create_function("f", 0, lambda: count.append(walk.pause()) or 1)
    try:
        database.execute("select f()").fetchone()
    except sqlite3.OperationalError:
        pass
    finally:
        database.close()
    return sum(count)

# What the modules hold that are being imported, by their names.
importing = {}
numbers = itertools.count()

class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name in importing else None
    def exec_module(self, module):
        vars(module).update(importing[module.__name__])
        exec("before = walk.pause()\ncount = before + walk.down(depth)\ndone = True", vars(module))

sys.meta_path.insert(0, Importer())

def imported(walk, depth):
    # The import statement holds the module's lock while its body waits.
    names, name = {}, f"stress_module_{next(numbers)}"
    importing[name] = {"walk": walk, "depth": depth}
    try:
        exec(f"import {name} as module", names)
        if not names["module"].done or sys.modules[name] is not names["module"]:
            errors.append(f"{name} was imported in part")
        return names["module"].count
    finally:
        del importing[name]
        sys.modules.pop(name, None)

def finalizer(walk, depth):
    count = []
    class Finalized:
        def __del__(self):
            count.append(walk.pause())
    Finalized()
    return sum(count)

def weakref_callback(walk, depth):
    count = []
    class Referenced: pass
    target = Referenced()
    reference = weakref.ref(target, lambda _: count.append(walk.pause()))
    del target
    return sum(count)

def resuming_finalizer(walk, depth):
    class Finalized:
        def __del__(self):
            wake_some(walk.random)
    kept = Finalized()
    kept.cycle = kept
    del kept
    count = walk.down(depth)
    Finalized()
    return count

def resuming_weakref_callback(walk, depth):
    class Referenced: pass
    target = Referenced()
    reference = weakref.ref(target, lambda _: wake_some(walk.random))
    count = walk.down(depth)
    del target
    return count

def closed_generator(walk, depth):
    count = []
    def pieces():
        try:
            yield 1
        finally:
            count.append(walk.down(depth))
    for close in (lambda each: each.close(), lambda each: each.throw(KeyError(walk)), lambda each: None):
        each = pieces()
        next(each)
        try:
            close(each)
        except KeyError:
            pass
        del each
    return sum(count)

def executed(walk, depth):
    names = {"walk": walk, "depth": depth}
    exec("class Body:\n    count = walk.down(depth)\ncount = Body.count", names)
    return names["count"]

def deep(walk, depth):
    def down(levels):
        return down(levels - 1) if levels else walk.down(depth)
    return down(100)

def profiled(walk, depth):
    profiler = cProfile.Profile()
    try:
        profiler.enable()
    except ValueError:
        return walk.down(depth)  # another one is active, of a walk that is parked
    try:
        return walk.down(depth)
    finally:
        profiler.disable()
        profiler.create_stats()

def in_greenlet(walk, depth):
    # Inside a child greenlet a request cannot suspend; its code runs all the same.
    if greenlet_spawn is None:
        return walk.down(depth)
    async def work():
        return await greenlet_spawn(lambda: await_only(asyncio.sleep(0, 5)))
    coroutine = work()
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        if stop.value != 5:
            errors.append("a greenlet lost its value")
    return walk.down(depth)

try:
    import greenlet
    from sqlalchemy.util import await_only, greenlet_spawn
except ImportError:
    greenlet_spawn = None

SHAPES = [plain, generator, context_manager, try_finally, asynchronous, sorted_key, reduced, ctypes_callback,
    sqlite_callback, imported, finalizer, weakref_callback, resuming_finalizer, resuming_weakref_callback,
    closed_generator, executed, deep, profiled, in_greenlet]

# What is told to the interpreter meanwhile.

def ignore(*_):
    return None

def traces(*_):
    return traces

def toggle_monitoring():
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return
    if monitoring.get_tool(3) is None:
        monitoring.use_tool_id(3, "stress")
        monitoring.register_callback(3, monitoring.events.PY_START, ignore)
        monitoring.set_events(3, monitoring.events.PY_START)
    else:
        monitoring.set_events(3, 0)
        monitoring.free_tool_id(3)

def toggle_tracemalloc():
    tracemalloc.stop() if tracemalloc.is_tracing() else tracemalloc.start(3)

def profile():
    profiler = cProfile.Profile()
    try:
        profiler.runcall(sum, [1, 2])
    except ValueError:
        pass  # another one is active

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def program():
    subprocess.run(["true"], preexec_fn=ignore)

def dump():
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback(nowhere, all_threads=True)

def count_signal(*_):
    global signals
    signals += 1

signal.signal(signal.SIGUSR1, count_signal)
# One that comes wherever the code happens to be, in the loop's wait, too.
signal.signal(signal.SIGALRM, count_signal)

DISTURBANCES = [lambda: gc.set_threshold(random.choice((*range(1, 50), 700))), lambda: sys.settrace(traces),
    lambda: sys.settrace(None), lambda: sys.setprofile(ignore), lambda: sys.setprofile(None), toggle_monitoring,
    toggle_tracemalloc, profile, dump, gc.collect, lambda: os.kill(os.getpid(), signal.SIGUSR1),
    lambda: sys.setrecursionlimit(random.choice((900, 1000, 3000)))]
if hasattr(sys, "gettotalrefcount") and (3, 12) <= sys.version_info < (3, 15):
    # A change of what is traced does not reach the code of frames that are parked, which goes on with what
    # it was told before; a debug build asserts that there is no such code.
    DISTURBANCES = [gc.collect, toggle_tracemalloc, dump, *DISTURBANCES[:1], *DISTURBANCES[-2:]]
    SHAPES.remove(profiled)
SELDOM = [fork, program]

def disturb(randomness):
    randomness.choice(SELDOM if randomness.random() < 0.01 else DISTURBANCES)()

def wake_some(randomness):
    """Resume, or throw into, some that wait, in any order."""
    for _ in range(min(len(waiting), 20)):
        try:
            c, token = waiting.pop(randomness.randrange(len(waiting)))
        except (IndexError, ValueError):
            return
        try:
            c.throw(Thrown(token)) if randomness.random() < 0.3 else c.resume(token)
        except server.ContinuationError as error:
            # Between its entry in the list and its suspend it is "not suspended", a word that ends in "ended": it
            # is still to be woken.
            if "has ended" not in str(error):
                waiting.append((c, token))

def kill_some(randomness):
    """End a walk that runs in a coroutine of its own, parked or about to be."""
    if killable and randomness.random() < 0.2:
        task = killable.pop(randomness.randrange(len(killable)))
        task.kill(randomness.choice((None, Cut, Cut(task), CutOff, CutOff(task))))

def wake_from_here():
    randomness = random.Random(1)
    while True:
        wake_some(randomness)
        kill_some(randomness)
        disturb(randomness)
        server.sleep(0.0005)

def spin():
    # A thread that is always busy, and one reason for the GIL to change hands; it wakes some itself.
    randomness = random.Random(2)
    while True:
        sum(range(1000))
        wake_some(randomness)
        threading.Event().wait(0.0002)

def do_begin(c, environ):
    if not begun:
        begun.append(server.spawn(wake_from_here))
        threading.Thread(target=spin, daemon=True).start()
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    return "begun" if greenlet_spawn else "begun without greenlets"

begun = []

def do_walk(c, environ, seed):
    walk = Walk(environ, int(seed))
    walk.all(4)
    return f"{walk.pauses}"

def do_walk_apart(c, environ, seed):
    # In a coroutine of its own, which may be killed.
    walk = Walk(environ, int(seed))
    task = server.spawn(walk.all, (4,))
    killable.append(task)
    task.join(35)
    if not task.done:
        errors.append(f"{task} does not end")
    if task.exception is not None and not isinstance(task.exception, ENDS):
        errors.append(f"a walk ended with {task.exception!r}")
    return f"{walk.pauses}"

def do_cut(c, environ):
    return f"{walks['cut']}"

def do_errors(c, environ):
    sys.settrace(None)
    sys.setprofile(None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return json.dumps([errors, walks])

atexit.register(lambda: print("walks", json.dumps([errors, walks]), flush=True))
'''
)


@pytest.mark.skipif(not HAS_GREENLETS, reason="the walks below have no greenlets: greenlet or sqlalchemy is missing")
def test_walks_have_greenlets(serve: Callable) -> None:
    """A run without them says so; one that has them finds them in the server, too."""
    server = serve(WALKS, graceful_timeout=0)
    assert get(server.port, "/begin").text == "begun"
    errors, _ = get(server.port, "/errors").json()
    assert errors == []


@pytest.mark.timeout(60 + 3 * SECONDS)
def test_random_walks_while_everything_changes(serve: Callable) -> None:
    print(f"STRESS_SEED={SEED}")
    server = serve(WALKS, graceful_timeout=0)
    server.expects_traceback = True
    seeds = random.Random(SEED)
    clients = [Client(server.port, seconds=40) for _ in range(CLIENTS)]
    apart = clients[:10]
    control = Client(server.port, seconds=40)
    control.get("/begin")
    pauses = 0
    end = time.monotonic() + SECONDS
    # On a busy machine the first walks may all have gone before one of them was to be cut.
    while time.monotonic() < end or pauses == 0 or control.get("/cut").text == "0":
        for client in clients:
            path = "/walk_apart" if client in apart else "/walk"
            client.send(path, seed=seeds.randrange(1 << 30))
        # Some clients do not wait for the end of the walk.
        for _ in range(3):
            leaving = Client(server.port).send("/walk", seed=seeds.randrange(1 << 30))
            seeds.choice((leaving.finish, leaving.reset))()
        for client in clients:
            response = client.response()
            assert response.status == 200, server.output()[-5000:]
            pauses += int(response.text)
    print(f"{pauses} pauses")
    errors, _ = control.get("/errors").json()
    assert errors == []
    # The server stops while they walk.
    for client in clients:
        client.send("/walk", seed=seeds.randrange(1 << 30))
    control.get("/parked")
    assert server.stop() == 0
    for client in [*clients, control]:
        client.finish()
    errors, walks = json.loads(server.output().rpartition("walks ")[2])
    print(walks)
    assert errors == []
    assert walks["begun"] == walks["ended"]
    for word in ("Fatal", "SystemError", "abandoned"):
        assert word not in server.output(), server.output()[-5000:]
