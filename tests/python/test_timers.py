"""`server.schedule_call` and `server.sleep`."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import run_program


def test_calls_are_made_in_order_of_their_times_and_then_of_scheduling(tmp_path: Path) -> None:
    """From before `run`, from tasks, requests and other threads."""
    ended = run_program(
        tmp_path,
        """
        server.schedule_call(0.06, notes.append, "third")
        server.schedule_call(0.02, notes.append, "second")
        server.schedule_call(0, notes.append, "first")

        def handle(environ):
            server.schedule_call(0.04, notes.append, "from a request")
            return "ok"

        def main():
            notes.append("main")
            thread = threading.Thread(target=server.schedule_call, args=(0.03, notes.append, "from a thread"))
            thread.start()
            ask().join()
            while len(notes) < 6:
                server.sleep(0.002)
            for n in range(100):
                server.schedule_call(0, notes.append, n)
            server.sleep(0)

        serve(main)
        """,
    )
    names = [note for note in ended.notes if isinstance(note, str)]
    assert names[:3] == ["first", "main", "second"]
    assert sorted(names[3:]) == ["from a request", "from a thread", "third"]
    assert [note for note in ended.notes if isinstance(note, int)] == list(range(100))
    assert ended.log == ""


def test_a_call_gets_its_arguments_and_may_wait(tmp_path: Path) -> None:
    """Keywords of any name, too."""
    ended = run_program(
        tmp_path,
        """
        def call(*args, **kwargs):
            server.sleep(0.01)
            notes.append([args, kwargs, timer.called])

        def main():
            global timer
            timer = server.schedule_call(0.01, call, 1, "two", seconds=3, cb=4)
            notes.append([timer.called, repr(timer)])
            while len(notes) < 2:
                server.sleep(0.002)
            notes.append([timer.called, repr(timer)])

        serve(main)
        """,
    )
    assert ended.notes == [
        [False, "<meinheld.Timer, pending>"],
        [[1, "two"], {"seconds": 3, "cb": 4}, True],
        [True, "<meinheld.Timer, called>"],
    ]


def test_a_cancelled_call_is_not_made(tmp_path: Path) -> None:
    """Cancelled in time, at any time before, from anywhere; later it does nothing."""
    ended = run_program(
        tmp_path,
        """
        early = server.schedule_call(0, notes.append, "early")
        early.cancel()

        def main():
            timers = [server.schedule_call(seconds, notes.append, seconds) for seconds in (0, 0.01, 5, 10**400)]
            for timer in timers[:2]:
                timer.cancel()
            thread = threading.Thread(target=timers[2].cancel)
            thread.start()
            thread.join()
            timers[3].cancel()
            timers[3].cancel()
            done = server.schedule_call(0, notes.append, "done")
            server.sleep(0.03)
            done.cancel()
            notes.append([timer.called for timer in [early, *timers, done]])
            notes.append(repr(early))

        serve(main)
        """,
    )
    assert ended.notes == ["done", [False] * 5 + [True], "<meinheld.Timer, cancelled>"]


def test_an_uncaught_exception_is_logged(tmp_path: Path) -> None:
    """Once, with the name of the function."""
    ended = run_program(
        tmp_path,
        """
        def fail():
            raise KeyError("spam")

        def main():
            server.schedule_call(0, fail)
            server.sleep(0.01)

        serve(main)
        """,
    )
    assert ended.log.count("scheduled fail() raised an exception") == 1
    assert ended.log.count("KeyError: 'spam'") == 1


def test_a_pending_call_holds_no_coroutine(tmp_path: Path) -> None:
    """Ten thousand of them cost little, and are cancelled as fast."""
    ended = run_program(
        tmp_path,
        """
        def rss():
            return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])

        def main():
            before = rss()
            timers = [server.schedule_call(100 + n % 7, notes.append, n) for n in range(10000)]
            server.sleep(0)
            notes.append((rss() - before) / len(timers))
            for timer in timers:
                timer.cancel()

        serve(main)
        """,
    )
    assert ended.notes[0] < 3


NONSENSE = [
    ("-1", "ValueError: seconds is -1 and must be zero or more seconds"),
    ("-10**400", "ValueError: seconds is -inf and must be zero or more seconds"),
    ("float('nan')", "ValueError: seconds is NaN and must be zero or more seconds"),
    ("True", "TypeError: seconds must be a number of seconds, not bool"),
    ("'1'", "TypeError: seconds must be a number of seconds, not str"),
    ("None", "TypeError: seconds must be a number of seconds, not NoneType"),
]


@pytest.mark.parametrize(("seconds", "error"), NONSENSE)
def test_nonsense_is_refused(tmp_path: Path, seconds: str, error: str) -> None:
    """By both, in a coroutine and outside of one."""
    ended = run_program(
        tmp_path,
        f"""
        def both():
            notes.append(kind(server.sleep, {seconds}))
            notes.append(kind(server.schedule_call, {seconds}, print))

        both()
        serve(both)
        notes.append(kind(server.schedule_call, 1, 5))
        """,
    )
    assert ended.notes == [error] * 4 + ["TypeError: int is not callable"]


def test_sleep_lets_others_run(tmp_path: Path) -> None:
    """For as long as asked; a sleep of no time lets each run once."""
    ended = run_program(
        tmp_path,
        """
        from decimal import Decimal

        def count(name):
            for n in range(3):
                notes.append(f"{name}{n}")
                server.sleep(0)

        def main():
            tasks = [server.spawn(count, (name,)) for name in "ab"]
            for task in tasks:
                task.join()
            for seconds in (0.02, Decimal("0.02")):
                before = time.monotonic()
                server.sleep(seconds)
                notes.append(time.monotonic() - before >= 0.02)
            endless = [server.spawn(server.sleep, (seconds,)) for seconds in (10**400, float("inf"), 1e300, 2**63)]
            server.sleep(0.01)
            notes.append([task.done for task in endless])

        serve(main)
        """,
    )
    assert ended.notes == ["a0", "b0", "a1", "b1", "a2", "b2", True, True, [False] * 4]


def test_sleep_outside_of_a_coroutine_blocks(tmp_path: Path) -> None:
    """On the main thread, where signals interrupt it, on others, and where a coroutine cannot be left."""
    ended = run_program(
        tmp_path,
        """
        import ctypes, signal

        def timed(seconds):
            before = time.monotonic()
            server.sleep(seconds)
            notes.append(time.monotonic() - before >= seconds)

        timed(0.01)
        thread = threading.Thread(target=timed, args=(0.01,))
        thread.start()
        thread.join()

        def interrupt(*_):
            raise KeyError("a signal")

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        notes.append(kind(server.sleep, 10**400))

        def main():
            compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
            def called_back(a, b):
                timed(0.01)
                return 0
            numbers = (ctypes.c_int * 2)(2, 1)
            ctypes.CDLL(None).qsort(numbers, 2, ctypes.sizeof(ctypes.c_int), compare(called_back))

        serve(main)
        """,
    )
    assert ended.notes == [True, True, "KeyError: 'a signal'", True]
