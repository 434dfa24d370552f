"""`server.spawn`: calls in coroutines of their own, and the handles to them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from program import PANIC, run_program


def test_spawned_calls_run_in_order_and_give_their_values(tmp_path: Path) -> None:
    """From before `run`, from a task, and with all kinds of arguments."""
    ended = run_program(
        tmp_path,
        """
        def add(a, b=0):
            notes.append(a + b)
            return a + b

        early = [server.spawn(add, (n,), {"b": 10}) for n in range(3)]
        notes.append([handle.done for handle in early])

        def main():
            late = server.spawn(add, [1, 2])
            bare = server.spawn(lambda: None)
            notes.append("main goes on")
            notes.append([late.done, late.value, late.exception, repr(late)])
            notes.append([late.join(), late.value, late.done, bare.join(), bare.join(0)])
            notes.append([handle.value for handle in early])

        serve(main)
        """,
    )
    assert ended.notes == [
        [False, False, False],
        *[10, 11, 12],
        "main goes on",
        [False, None, None, "<meinheld.Task add(), queued>"],
        3,
        [3, 3, True, None, None],
        [10, 11, 12],
    ]
    assert ended.log == ""


def test_a_task_can_be_spawned_and_joined_in_a_request(tmp_path: Path) -> None:
    """And runs on when the request has ended."""
    ended = run_program(
        tmp_path,
        """
        left = []

        def work(n):
            server.sleep(0.01)
            return n

        def handle(environ):
            left.append(server.spawn(work, ("later",)))
            return [task.join() for task in [server.spawn(work, (n,)) for n in range(3)]]

        def main():
            notes.append(ask().join())
            notes.append(left[0].join())

        serve(main)
        """,
    )
    assert ended.notes == ["[0, 1, 2]", "later"]


def test_other_threads_spawn_and_join(tmp_path: Path) -> None:
    """The spawn wakes a loop that has nothing to do; the join blocks the thread alone."""
    ended = run_program(
        tmp_path,
        """
        def work(n):
            server.sleep(0.01)
            return n, threading.current_thread() is threading.main_thread()

        def thread():
            for n in range(20):
                notes.append(server.spawn(work, (n,)).join(10))
            slow = server.spawn(server.sleep, (1000,))
            notes.append(kind(slow.join, 0.05))
            notes.append([slow.kill(), slow.join(10), str(slow.exception), slow.kill()])
            server.stop()

        threading.Thread(target=thread).start()
        server.listen(("127.0.0.1", 0))
        server.run(app)
        """,
    )
    assert ended.notes == [
        *[[n, True] for n in range(20)],
        "timeout: timed out: the task has not ended in time",
        [True, None, "the task was killed", False],
    ]
    assert ended.log == ""


def test_an_uncaught_exception_is_kept_and_logged_once(tmp_path: Path) -> None:
    """Whether somebody joins the task or not, and whatever it is."""
    ended = run_program(
        tmp_path,
        """
        def fail(error):
            raise error

        def main():
            failed = server.spawn(fail, (KeyError("spam"),))
            notes.append([failed.join(), repr(failed.exception), failed.value, failed.done, repr(failed)])
            notes.append(failed.join())
            server.spawn(fail, (server.timeout("too slow"),))
            server.sleep(0)

        serve(main)
        """,
    )
    shown = "<meinheld.Task fail(), ended with an exception>"
    assert ended.notes == [[None, "KeyError('spam')", None, True, shown], None]
    assert ended.log.count("spawned fail() raised an exception") == 2
    assert ended.log.count("KeyError: 'spam'") == ended.log.count("too slow") == 1


def test_a_panic_in_a_call_is_its_exception(tmp_path: Path) -> None:
    ended = run_program(
        tmp_path,
        PANIC
        + textwrap.dedent("""
        def panics():
            raise Panic("by hand")

        def main():
            task = server.spawn(panics)
            notes.append([task.join(5), task.done, type(task.exception).__name__, str(task.exception)])
            server.schedule_call(0, panics)
            server.sleep(0.01)
            notes.append("on")

        serve(main)
        """),
    )
    assert ended.notes == [[None, True, "PanicException", "by hand"], "on"]
    assert ended.log.count("panics() raised an exception") == 2


def test_a_joined_task_can_be_waited_for_by_many_and_in_vain(tmp_path: Path) -> None:
    """A time-out of the join leaves the task alone."""
    ended = run_program(
        tmp_path,
        """
        def main():
            slow = server.spawn(lambda: server.sleep(0.05) or "slow")
            joining = [server.spawn(slow.join) for _ in range(5)]
            for timeout in (0, 0.01):
                notes.append(kind(slow.join, timeout))
            notes.append([task.join() for task in joining])
            me = server.spawn(lambda: kind(me.join))
            notes.append(me.join())
            for timeout, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)):
                try:
                    slow.join(timeout)
                except error:
                    notes.append("refused")
            notes.append(slow.join(10**400))

        serve(main)
        """,
    )
    timed_out = "timeout: timed out: the task has not ended in time"
    assert ended.notes == [
        timed_out,
        timed_out,
        ["slow"] * 5,
        "ContinuationError: a task cannot join itself",
        *["refused"] * 4,
        "slow",
    ]


def test_kill_raises_where_the_task_waits(tmp_path: Path) -> None:
    """By default TaskKilled, which no `except Exception` catches; it is no failure to be logged."""
    ended = run_program(
        tmp_path,
        """
        def wait(way):
            try:
                try:
                    way()
                except Exception as error:
                    notes.append(f"caught {error!r}")
                    raise
            finally:
                notes.append("cleaned up")

        def main():
            here, there = socket.socketpair()
            forever = server.spawn(server.sleep, (1e9,))
            ways = [
                lambda: server.sleep(1e9),
                lambda: server.trampoline(here, read=True),
                lambda: forever.join(),
            ]
            for way in ways:
                task = server.spawn(wait, (way,))
                server.sleep(0)
                notes.append([task.kill(), task.done, task.join(), repr(task.exception), task.kill()])
            for exc in (OSError, OSError("mine")):
                task = server.spawn(wait, (ways[0],))
                server.sleep(0)
                task.kill(exc)
                task.join()
                notes.append([repr(task.exception), task.exception is exc])
            for exc in (5, int):
                notes.append(kind(forever.kill, exc))
            forever.kill()

        serve(main)
        """,
    )
    killed = ["cleaned up", [True, False, None, "TaskKilled('the task was killed')", False]]
    assert ended.notes == [
        *killed * 3,
        *["caught OSError()", "cleaned up", ["OSError()", False]],
        *["caught OSError('mine')", "cleaned up", ["OSError('mine')", True]],
        *["TypeError: kill needs an exception, an instance or a class"] * 2,
    ]
    assert ended.log == ""


def test_kill_before_the_begin_at_the_next_wait_and_of_oneself(tmp_path: Path) -> None:
    """A task that has not begun never does; one that catches the exception goes on."""
    ended = run_program(
        tmp_path,
        """
        never = server.spawn(notes.append, ("never",))
        notes.append([never.kill(KeyError("early")), never.done, repr(never.exception), never.join()])

        def stubborn():
            try:
                server.sleep(1e9)
            except server.TaskKilled:
                server.sleep(0.01)
                return "stayed"

        def main():
            unborn = server.spawn(notes.append, ("unborn",))
            unborn.kill()
            task = server.spawn(stubborn)
            server.sleep(0)
            notes.append([task.kill(), task.join(), task.exception])
            woken = server.spawn(lambda: [server.sleep(0), server.sleep(0)])
            server.sleep(0)
            woken.kill()
            notes.append([woken.join(), repr(woken.exception)])
            suicide = server.spawn(lambda: [suicide.kill(KeyError("me")), notes.append("not reached")])
            notes.append([suicide.join(), repr(suicide.exception)])
            notes.append([unborn.done, repr(unborn.exception)])

        serve(main)
        """,
    )
    assert ended.notes == [
        [True, True, "KeyError('early')", None],
        [True, "stayed", None],
        [None, "TaskKilled('the task was killed')"],
        [None, "KeyError('me')"],
        [True, "TaskKilled('the task was killed')"],
    ]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("5", "TypeError: int is not callable"),
        ("print, 'text'", "TypeError: args must be a tuple or a list, not str"),
        ("print, 5", "TypeError: args must be a tuple or a list, not int"),
        ("print, (), 5", "TypeError: kwargs must be a dict, not int"),
    ],
)
def test_nonsense_is_refused_where_it_is_passed(tmp_path: Path, args: str, error: str) -> None:
    """And not in the task, where nobody would see it."""
    ended = run_program(tmp_path, f"notes.append(kind(server.spawn, {args}))")
    assert ended.notes == [error]


def test_arguments_are_those_of_the_time_of_the_call(tmp_path: Path) -> None:
    """Whatever becomes of the list and the dict meanwhile."""
    ended = run_program(
        tmp_path,
        """
        args, kwargs = [1], {"b": 2}
        task = server.spawn(lambda a, b: (a, b), args, kwargs)
        args.append(3)
        kwargs["c"] = 4
        serve(lambda: notes.append(task.join()))
        """,
    )
    assert ended.notes == [[1, 2]]


def test_a_stop_does_not_wait_for_tasks_but_lets_them_clean_up(tmp_path: Path) -> None:
    """Timers are never called, and what is spawned afterwards waits for the next run."""
    ended = run_program(
        tmp_path,
        """
        def wait():
            try:
                server.sleep(1e9)
            finally:
                notes.append("cleaned up")

        def main():
            waiting.append(server.spawn(wait))
            server.schedule_call(1000, notes.append, "never")
            server.sleep(0)

        waiting = []
        serve(main)
        notes.append([repr(task.exception) for task in waiting])
        late = server.spawn(notes.append, ("next run",))
        notes.append(late.done)
        serve(late.join)
        """,
    )
    assert ended.notes == ["cleaned up", ["Stopped('the server is stopping')"], False, "next run"]
    assert ended.log == ""


def test_a_server_without_requests_keeps_running_for_its_tasks(tmp_path: Path) -> None:
    """And for nothing at all."""
    ended = run_program(
        tmp_path,
        """
        def count():
            for n in range(5):
                server.sleep(0.01)
                notes.append(n)

        serve(lambda: server.spawn(count).join())
        """,
    )
    assert ended.notes == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()"])
@pytest.mark.parametrize("way", ["server.spawn(leave)", "server.schedule_call(0.001, leave)"])
def test_what_ends_a_program_ends_the_server(tmp_path: Path, raised: str, way: str) -> None:
    """As it does from a request: raised by `run`, after the others have cleaned up."""
    ended = run_program(
        tmp_path,
        f"""
        def wait():
            try:
                server.sleep(1e9)
            finally:
                notes.append("cleaned up")

        def leave():
            raise {raised}

        def main():
            server.spawn(wait)
            {way}
            server.sleep(1e9)

        try:
            serve(main)
        except BaseException as error:
            notes.append(repr(error))
        """,
    )
    assert ended.notes == ["cleaned up", raised]


def test_each_task_has_its_own_context_and_identity(tmp_path: Path) -> None:
    """Context variables and thread-locals do not leak from one to another that waits."""
    ended = run_program(
        tmp_path,
        """
        import contextvars
        variable = contextvars.ContextVar("variable", default="unset")

        def one(name):
            before = variable.get()
            variable.set(name)
            mine = server.get_ident()
            server.sleep(0.01)
            idents.append(mine)
            return [before, variable.get(), mine == server.get_ident()]

        def main():
            tasks = [server.spawn(one, (n,)) for n in range(3)]
            notes.extend(task.join() for task in tasks)
            idents.append(server.get_ident())

        idents = [server.get_ident()]
        serve(main)
        notes.append([len(set(idents)), idents[0] == threading.get_ident()])
        """,
    )
    assert ended.notes == [*[["unset", n, True] for n in range(3)], [5, True]]


def test_handles_that_stand_in_cycles_are_collected(tmp_path: Path) -> None:
    """A handle that its own call, value or exception refers to."""
    ended = run_program(
        tmp_path,
        """
        import gc, weakref

        class Held:
            pass

        def cycle(fail):
            held = Held()
            alive.append(weakref.ref(held))
            def work():
                if fail:
                    raise KeyError(task, held)
                return task, held
            task = server.spawn(work)
            task.join()

        def main():
            cycle(False)
            cycle(True)
            held = Held()
            alive.append(weakref.ref(held))
            held.timer = server.schedule_call(1000, held.__init__, held)
            held.timer.cancel()
            held.again = server.schedule_call(10**400, held.__init__, held)
            del held
            gc.collect()
            notes.append([one() for one in alive])

        alive = []
        serve(main)
        """,
    )
    assert ended.notes == [[None, None, None]]


def test_a_process_forked_by_a_task_ends_with_it(tmp_path: Path) -> None:
    """It waits by blocking, since the loop is its parent's."""
    ended = run_program(
        tmp_path,
        """
        def fork():
            pid = os.fork()
            if pid == 0:
                server.sleep(0.01)
                notes.append(kind(server.spawn(print).join, 0.01))
                return notes
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        serve(lambda: notes.append(server.spawn(fork).join()))
        """,
    )
    assert ended.notes == [0]


@pytest.mark.timeout(120)
def test_thousands_wait_at_once(tmp_path: Path) -> None:
    """Each parked coroutine costs few KiB and no memory mapping of its own."""
    ended = run_program(
        tmp_path,
        """
        COUNT = 5000

        def held():
            with open("/proc/self/status") as file:
                status = file.read()
            return int(status.split("VmRSS:")[1].split()[0]), len(open("/proc/self/maps").readlines())

        def main():
            gate = server.spawn(server.sleep, (1e9,))
            rss, mappings = held()
            tasks = [server.spawn(gate.join) for _ in range(COUNT)]
            server.sleep(0)
            server.sleep(0)
            more_rss, more_mappings = held()
            notes.append([(more_rss - rss) / COUNT, more_mappings - mappings])
            gate.kill()
            for task in tasks:
                task.join()
            notes.append(sum(task.done for task in tasks))

        serve(main)
        """,
        seconds=100,
    )
    (kib, mappings), done = ended.notes
    assert done == 5000
    assert kib < 32
    assert mappings < 100 or not has_lightweight_guards()


def has_lightweight_guards() -> bool:
    """Whether Linux can guard a stack without a mapping (6.13)."""
    major, minor = Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
    return (int(major), int(minor)) >= (6, 13)
