"""The server: listen on an address, run an application, stop.

>>> from meinheld import server
>>> def app(environ, start_response):
...     start_response("200 OK", [("Content-Type", "text/plain")])
...     return [b"Hello\\n"]
>>> server.listen(("127.0.0.1", 8000))  # doctest: +SKIP
>>> server.run(app)  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from meinheld import _meinheld
from meinheld._meinheld import (
    ClientDisconnected,
    ContinuationError,
    Stopped,
    Task,
    TaskKilled,
    Timer,
    _resume_client,
    _suspend_client,
    addresses,
    cancel_wait,
    get_accepts_max,
    get_backlog,
    get_body_timeout,
    get_client_body_buffer_size,
    get_head_timeout,
    get_ident,
    get_keepalive,
    get_max_content_length,
    get_max_head_bytes,
    get_max_header_bytes,
    get_max_header_count,
    get_max_target_bytes,
    get_picoev_max_fd,
    get_send_timeout,
    get_stack_size,
    get_stop_idle_timeout,
    get_underscore_headers,
    listen,
    schedule_call,
    set_accepts_max,
    set_access_logger,
    set_backlog,
    set_body_timeout,
    set_client_body_buffer_size,
    set_error_logger,
    set_fastwatchdog,
    set_head_timeout,
    set_keepalive,
    set_max_content_length,
    set_max_head_bytes,
    set_max_header_bytes,
    set_max_header_count,
    set_max_target_bytes,
    set_picoev_max_fd,
    set_send_timeout,
    set_stack_size,
    set_stop_idle_timeout,
    set_underscore_headers,
    set_watchdog,
    sleep,
    spawn,
    stop,
    timeout,
    trampoline,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = [
    "ClientDisconnected",
    "ContinuationError",
    "Stopped",
    "Task",
    "TaskKilled",
    "Timer",
    "_resume_client",
    "_suspend_client",
    "addresses",
    "cancel_wait",
    "get_accepts_max",
    "get_backlog",
    "get_body_timeout",
    "get_client_body_buffer_size",
    "get_graceful_timeout",
    "get_head_timeout",
    "get_ident",
    "get_keepalive",
    "get_max_content_length",
    "get_max_head_bytes",
    "get_max_header_bytes",
    "get_max_header_count",
    "get_max_target_bytes",
    "get_picoev_max_fd",
    "get_send_timeout",
    "get_stack_size",
    "get_stop_idle_timeout",
    "get_underscore_headers",
    "listen",
    "run",
    "schedule_call",
    "set_accepts_max",
    "set_access_logger",
    "set_backlog",
    "set_body_timeout",
    "set_client_body_buffer_size",
    "set_error_logger",
    "set_fastwatchdog",
    "set_graceful_timeout",
    "set_head_timeout",
    "set_keepalive",
    "set_listen_socket",
    "set_max_content_length",
    "set_max_head_bytes",
    "set_max_header_bytes",
    "set_max_header_count",
    "set_max_target_bytes",
    "set_picoev_max_fd",
    "set_send_timeout",
    "set_stack_size",
    "set_stop_idle_timeout",
    "set_underscore_headers",
    "set_watchdog",
    "shutdown",
    "sleep",
    "spawn",
    "stop",
    "stopping_signals",
    "timeout",
    "trampoline",
]

_graceful_timeout = 30.0

# The handlers of signals in whose places ours are.
_replaced: dict[int, Any] = {}

# The signal masks of threads that are forking.
_masks: dict[int, set[int]] = {}

# How long a server on another thread has to end when the program does.
_EXIT_SECONDS = 5.0

# How often, and for how long each time, it is tried afterwards to break off what goes on computing.
_BREAKS = 5
_BREAK_SECONDS = 0.5


def set_graceful_timeout(seconds: float) -> None:
    """Set how many seconds requests in flight have to end after SIGTERM or SIGINT."""
    if not isinstance(seconds, int | float):
        raise TypeError(f"graceful_timeout is {seconds!r} and must be a number of seconds")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"graceful_timeout is {seconds} and must be zero or more seconds")
    global _graceful_timeout
    _graceful_timeout = float(seconds)


def get_graceful_timeout() -> float:
    """How many seconds requests in flight have to end after SIGTERM or SIGINT."""
    return _graceful_timeout


def set_listen_socket(socket_fd: int | Sequence[int]) -> None:
    """Listen on inherited sockets, as `listen(socket_fd=...)` does."""
    listen(socket_fd=socket_fd)


def shutdown(timeout: float | None = None) -> None:
    """Stop the server, as `stop` does."""
    stop(timeout)


def run(app: WSGIApplication, silent: Any = 0) -> None:
    """Serve `app` until the server is stopped.

    On the main thread SIGTERM stops it gracefully; so does SIGINT, which ends suspended requests
    at once and raises KeyboardInterrupt afterwards unless `silent`. The second signal ends what is
    left. Handlers of the program's own are left alone. On another thread the server stops when the
    program ends.
    """
    with stopping_signals() as interrupted, _stopping_at_exit():
        _meinheld.run(app)
    if interrupted and not silent:
        raise KeyboardInterrupt


@contextmanager
def stopping_signals() -> Iterator[list[int]]:
    """Have signals that would end the process stop the server; yield the SIGINTs that came.

    SIGPIPE is ignored, as Python has it: sendfile(2) raises it when a client goes.

    `run` does this itself. A program that must not be killed between its last word before `run` and
    `run` does it around both.
    """
    interrupted: list[int] = []
    seen: list[int] = []

    def terminate(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        seen.append(number)
        if len(seen) > 1:
            _meinheld.interrupt(0.0)
        elif number == signal.SIGINT:
            _meinheld.interrupt(_graceful_timeout)
        else:
            _meinheld.terminate(_graceful_timeout)

    replaced: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours: dict[int, tuple[Any, Any]] = {
            signal.SIGINT: (signal.default_int_handler, terminate),
            signal.SIGTERM: (signal.SIG_DFL, terminate),
            signal.SIGPIPE: (signal.SIG_DFL, signal.SIG_IGN),
        }
        for number, (default, handler) in ours.items():
            if signal.getsignal(number) == default:
                replaced[number] = signal.signal(number, handler)
    _replaced.update(replaced)
    try:
        yield interrupted
    finally:
        for number, handler in replaced.items():
            del _replaced[number]
            signal.signal(number, handler)


@contextmanager
def _stopping_at_exit() -> Iterator[None]:
    """Stop a server on a daemon thread when the program ends, so that `finally` blocks run."""
    if threading.current_thread() is threading.main_thread():
        yield
        return
    ended = threading.Event()
    serving = threading.get_ident()

    def stop_and_wait() -> None:
        _meinheld.interrupt(0.0)
        # What computes does not hear of that. A thread that still runs Python when the interpreter is
        # gone would end the process by a signal.
        for seconds in (_EXIT_SECONDS, *[_BREAK_SECONDS] * _BREAKS):
            if ended.wait(seconds):
                return
            _meinheld.break_off(serving)

    atexit.register(stop_and_wait)
    try:
        yield
    finally:
        ended.set()
        atexit.unregister(stop_and_wait)


def _leave_forked_child(raised: BaseException | None) -> None:
    """End a process that a request has forked and that came back out of the application.

    The connections and the loop are the parent's: nothing may be sent, closed or waited for.
    """
    code = 0
    if isinstance(raised, SystemExit):
        code = raised.code if isinstance(raised.code, int) else int(raised.code is not None)
    elif raised is not None:
        import traceback

        traceback.print_exception(raised)
        code = 1
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _hold_signals() -> None:
    """Keep signals from a process that is being forked until they end it.

    One that came to the child before would run the parent's handler there, and be lost.
    """
    if _replaced:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _replaced)


def _release_signals() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _go_on_as_parent() -> None:
    _meinheld.note_child()
    _release_signals()


def _leave_server_to_parent() -> None:
    """Undo, in a process that was forked, what is the parent's: a signal ends it, as it would any."""
    _meinheld.note_fork()
    for number, handler in _replaced.items():
        signal.signal(number, handler)
    if _replaced:
        signal.set_wakeup_fd(-1)
        _replaced.clear()
    _release_signals()


os.register_at_fork(
    before=_hold_signals, after_in_parent=_go_on_as_parent, after_in_child=_leave_server_to_parent
)
