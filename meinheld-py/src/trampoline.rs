//! `server.trampoline`, `server.cancel_wait` and `server.get_ident`: waiting for any descriptor.

use std::os::fd::RawFd;
use std::time::Instant;

use meinheld_core::{Readiness, WaitError, cancel_waits, wait_ready};
use meinheld_coro::{Interrupt, current_task};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::blocking::{self, may_park};
use crate::errors::{ContinuationError, EBADF, ECANCELED, from_interrupt, from_system, timeout};
use crate::inbox::on_loop;
use crate::names::name;
use crate::raising::{Saying, os_error};
use crate::seconds::seconds_of;
use crate::text::Number;

/// The bits of poll(2) on Linux.
const POLLIN: u16 = 1;
const POLLOUT: u16 = 4;
const POLLNVAL: u16 = 32;

/// Numbers of threads are addresses, and so below this.
const COROUTINE_IDENT: u64 = 1 << 62;

/// Waits until the descriptor can be read (`read=True`), or written (`write=True`), or either, for
/// `timeout` seconds at the most; 0 or None waits without limit. With neither it waits for the time
/// to pass. Raises `timeout` when it has.
///
/// In a coroutine that one alone waits; elsewhere the thread does. Only one coroutine may wait to
/// read from a descriptor at a time, and one to write to it. The descriptor should not block: another
/// reader may be quicker.
#[pyfunction]
#[pyo3(signature = (fileno, read=None, write=None, timeout=None))]
pub(crate) fn trampoline(
    py: Python<'_>,
    fileno: &Bound<'_, PyAny>,
    read: Option<&Bound<'_, PyAny>>,
    write: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let fd = descriptor_of(fileno)?;
    let seconds = timeout.filter(|timeout| !timeout.is_none());
    let limit = seconds.map(|seconds| seconds_of(seconds, "timeout")).transpose()?.flatten();
    let limit = limit.filter(|limit| !limit.is_zero());
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let asked = |what: Option<&Bound<'_, PyAny>>| what.map_or(Ok(false), PyAnyMethods::is_truthy);
    match (asked(read)?, asked(write)?) {
        (true, true) => wait(py, fd, Readiness::Either, deadline),
        (true, false) => wait(py, fd, Readiness::Readable, deadline),
        (false, true) => wait(py, fd, Readiness::Writable, deadline),
        (false, false) => wait_for_nothing(py, deadline, limit.is_some()),
    }
}

/// Waits for a descriptor, or until the deadline.
fn wait(
    py: Python<'_>,
    fd: RawFd,
    readiness: Readiness,
    deadline: Option<Instant>,
) -> PyResult<()> {
    if !may_park(py) {
        return block(py, fd, readiness, deadline);
    }
    wait_ready(&fd, readiness, deadline).or_else(|error| match error {
        WaitError::Interrupted(Interrupt::TimedOut) => Err(timed_out(fd)),
        WaitError::Interrupted(Interrupt::Refused(_)) => block(py, fd, readiness, deadline),
        WaitError::Interrupted(interrupt) => Err(from_interrupt(interrupt)),
        WaitError::Cancelled => {
            let message = format!("the wait for descriptor {fd} was cancelled");
            Err(os_error(ECANCELED, message))
        }
        WaitError::System(error) => Err(from_system(error)),
        other => Err(ContinuationError::saying(other.to_string())),
    })
}

fn block(
    py: Python<'_>,
    fd: RawFd,
    readiness: Readiness,
    deadline: Option<Instant>,
) -> PyResult<()> {
    let events = match readiness {
        Readiness::Readable => POLLIN,
        Readiness::Writable => POLLOUT,
        Readiness::Either => POLLIN | POLLOUT,
    };
    match blocking::poll(py, fd, events, deadline)? {
        None => Err(timed_out(fd)),
        Some(POLLNVAL) => Err(os_error(EBADF, "Bad file descriptor")),
        Some(_) => Ok(()),
    }
}

fn wait_for_nothing(py: Python<'_>, deadline: Option<Instant>, limited: bool) -> PyResult<()> {
    if !limited {
        let message = "trampoline waits for nothing: give it read, write or a timeout";
        return Err(PyValueError::saying(message));
    }
    let ended = if may_park(py) {
        match meinheld_coro::park(deadline) {
            Ok(()) | Err(Interrupt::TimedOut) => Ok(()),
            Err(other) => Err(from_interrupt(other)),
        }
    } else {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        blocking::sleep(py, left)
    };
    ended.and_then(|()| Err(timeout::saying("timed out: the time has passed")))
}

fn timed_out(fd: RawFd) -> PyErr {
    timeout::saying(format!("timed out: descriptor {fd} was not ready in time"))
}

/// Wakes those who wait in `trampoline` for this descriptor with an `OSError`. To be called before a
/// descriptor is closed, which nobody who waits for it would be told.
#[pyfunction]
pub(crate) fn cancel_wait(fileno: &Bound<'_, PyAny>) -> PyResult<()> {
    let fd = descriptor_of(fileno)?;
    on_loop(fileno.py(), move |_| _ = cancel_waits(&fd));
    Ok(())
}

/// A number that the running coroutine has alone, or outside of one the thread.
#[pyfunction]
pub(crate) fn get_ident(py: Python<'_>) -> PyResult<Number> {
    match current_task() {
        Some(task) => Ok(Number(COROUTINE_IDENT | task.number())),
        None => blocking::thread_ident(py).map(Number),
    }
}

/// Whether the code that runs is in a coroutine that may be left: a wait parks it, and blocks nothing.
#[pyfunction]
pub(crate) fn in_coroutine(py: Python<'_>) -> bool {
    may_park(py)
}

/// A descriptor, or what has one by `fileno()`.
fn descriptor_of(fileno: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let method = fileno.getattr_opt(name!(fileno.py(), fileno))?;
    let number = method.map_or_else(|| Ok(fileno.clone()), |method| method.call0())?;
    let fd: i64 = number.extract()?;
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(|| {
        PyValueError::saying(format!("fileno is {fd} and must be an open descriptor's number"))
    })
}
