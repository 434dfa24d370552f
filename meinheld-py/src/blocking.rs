//! Waiting that blocks the thread, for code that runs in no coroutine: as the standard library does
//! it, so that signals are handled meanwhile. And whether code runs in one.
//!
//! The functions are those that the standard library had when meinheld was imported; `meinheld.patch`
//! may put others in their places.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat};

use crate::fork::is_child;
use crate::names::name;
use crate::tstate::suspend_refusal;
use crate::unwinding;

/// What the standard library's calls take at the most: longer waits are made of several.
const SLEEP_SECONDS_MAX: f64 = 1e6;

/// The functions of the standard library.
struct Originals {
    sleep: Py<PyAny>,
    poll: Py<PyAny>,
    allocate_lock: Py<PyAny>,
    thread_ident: Py<PyAny>,
}

static ORIGINALS: PyOnceLock<Originals> = PyOnceLock::new();

/// Keeps the functions as they are now.
pub(crate) fn remember(py: Python<'_>) -> PyResult<()> {
    originals(py).map(drop)
}

fn originals(py: Python<'_>) -> PyResult<&Originals> {
    ORIGINALS.get_or_try_init(py, || {
        let thread = py.import("_thread")?;
        Ok(Originals {
            sleep: py.import("time")?.getattr("sleep")?.unbind(),
            poll: py.import("select")?.getattr("poll")?.unbind(),
            allocate_lock: thread.getattr("allocate_lock")?.unbind(),
            thread_ident: thread.getattr("get_ident")?.unbind(),
        })
    })
}

/// Whether the code that runs is in a coroutine, and the coroutine may be left.
pub(crate) fn may_park(py: Python<'_>) -> bool {
    meinheld_coro::current_task().is_some() && !is_child() && suspend_refusal(py).is_none()
}

/// Sleeps; `None` is without limit.
pub(crate) fn sleep(py: Python<'_>, duration: Option<Duration>) -> PyResult<()> {
    let sleep = originals(py)?.sleep.bind(py);
    let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
    loop {
        let left = seconds_until(deadline);
        let seconds = PyFloat::new(py, left.min(SLEEP_SECONDS_MAX));
        unwinding::call(sleep, [seconds.as_any()])?;
        if left <= SLEEP_SECONDS_MAX {
            return Ok(());
        }
    }
}

/// Waits until a descriptor is ready for any of `events`, bits of poll(2); tells what it is ready
/// for, or `None` at the deadline.
pub(crate) fn poll(
    py: Python<'_>,
    fd: RawFd,
    events: u16,
    deadline: Option<Instant>,
) -> PyResult<Option<u16>> {
    let poll = originals(py)?.poll.bind(py).call0()?;
    poll.call_method1(name!(py, register), (fd, events))?;
    loop {
        let left = seconds_until(deadline);
        let milliseconds = (left.min(SLEEP_SECONDS_MAX) * 1000.0).ceil();
        let wait = poll.getattr(name!(py, poll))?;
        let ready = unwinding::call(&wait, [PyFloat::new(py, milliseconds).as_any()])?;
        let ready: Vec<(RawFd, u16)> = ready.extract()?;
        if let Some((_, events)) = ready.first() {
            return Ok(Some(*events));
        }
        if left <= SLEEP_SECONDS_MAX {
            return Ok(None);
        }
    }
}

fn seconds_until(deadline: Option<Instant>) -> f64 {
    deadline.map_or(f64::INFINITY, |at| at.saturating_duration_since(Instant::now()).as_secs_f64())
}

/// The number of the thread, as `threading.get_ident` gives it.
pub(crate) fn thread_ident(py: Python<'_>) -> PyResult<u64> {
    originals(py)?.thread_ident.call0(py)?.extract(py)
}

/// A lock that one thread waits for until another one releases it, once.
pub(crate) struct Lock(Py<PyAny>);

impl Lock {
    pub(crate) fn locked(py: Python<'_>) -> PyResult<Lock> {
        let lock = originals(py)?.allocate_lock.call0(py)?;
        lock.call_method0(py, name!(py, acquire))?;
        Ok(Lock(lock))
    }

    /// Waits for the release; false at the deadline.
    pub(crate) fn acquire(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<bool> {
        loop {
            let left = seconds_until(deadline);
            let acquire = self.0.bind(py).getattr(name!(py, acquire))?;
            let seconds = PyFloat::new(py, left.min(SLEEP_SECONDS_MAX));
            let wait = [PyBool::new(py, true).to_owned().into_any(), seconds.into_any()];
            let acquired = unwinding::call(&acquire, [&wait[0], &wait[1]])?.is_truthy()?;
            if acquired || left <= SLEEP_SECONDS_MAX {
                return Ok(acquired);
            }
        }
    }

    pub(crate) fn release(&self, py: Python<'_>) {
        if let Err(error) = self.0.call_method0(py, name!(py, release)) {
            error.write_unraisable(py, None);
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Lock {
        Lock(self.0.clone_ref(py))
    }

    pub(crate) fn is(&self, other: &Lock) -> bool {
        self.0.is(&other.0)
    }
}
