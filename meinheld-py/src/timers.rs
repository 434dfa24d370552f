//! `server.schedule_call` and `server.sleep`.
//!
//! A call that is due later is a timer of the scheduler's until then, without a coroutine. Not here:
//! the order of timers (see `meinheld_coro`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use meinheld_coro::{Interrupt, TaskId, park, yield_now};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::blocking::{self, may_park};
use crate::call::{Call, described};
use crate::errors::from_interrupt;
use crate::failures::note_uncaught;
use crate::fork::leave_if_child;
use crate::gil::attached;
use crate::inbox::on_loop;
use crate::seconds::seconds_of;
use crate::text::Text;

/// A call that `schedule_call` has put off.
#[pyclass(frozen, module = "meinheld.server", name = "Timer")]
pub(crate) struct PyTimer {
    /// Its name among the coroutines, once the loop has it.
    id: OnceLock<TaskId>,
    called: AtomicBool,
    /// `None` once it has been called or cancelled. No code of Python's runs under the lock.
    call: Mutex<Option<Call>>,
}

/// Calls `cb(*args, **kwargs)` in a coroutine of its own, after `seconds`. Calls that are due at one
/// time are made in the order in which they were scheduled.
///
/// It may be called anywhere, as `spawn`. What the call raises is logged.
#[pyfunction]
#[pyo3(signature = (seconds, cb, /, *args, **kwargs))]
pub(crate) fn schedule_call(
    py: Python<'_>,
    seconds: &Bound<'_, PyAny>,
    cb: &Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyTimer>> {
    let delay = seconds_of(seconds, "seconds")?;
    let call = Mutex::new(Some(Call::new(cb, args, kwargs)?));
    let timer = PyTimer { id: OnceLock::new(), called: AtomicBool::new(false), call };
    let timer = Py::new(py, timer)?;
    // More than the clock can tell is never.
    let Some(at) = delay.and_then(|delay| Instant::now().checked_add(delay)) else {
        return Ok(timer);
    };
    let (armed, job) = (timer.clone_ref(py), timer.clone_ref(py));
    on_loop(py, move |_| {
        let call = move || job.get().run();
        let task = match delay {
            Some(Duration::ZERO) => meinheld_coro::spawn(call),
            _ => meinheld_coro::spawn_at(at, call),
        };
        armed.get().id.get_or_init(|| task.id());
    });
    Ok(timer)
}

#[pymethods]
impl PyTimer {
    /// Takes the call back; does nothing if it has been made.
    fn cancel(slf: &Bound<'_, Self>) {
        let call = slf.get().take();
        if call.is_some() {
            let timer = slf.clone().unbind();
            on_loop(slf.py(), move |_| _ = timer.get().id.get().map(|id| id.cancel()));
        }
    }

    /// Whether the call has been made, or is being made.
    #[getter]
    fn called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    fn __repr__(&self) -> Text<'_> {
        let text = match (self.called(), self.lock().is_some()) {
            (true, _) => "<meinheld.Timer, called>",
            (false, true) => "<meinheld.Timer, pending>",
            (false, false) => "<meinheld.Timer, cancelled>",
        };
        Text(text.into())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(call) = self.call.try_lock() else { return Ok(()) };
        call.as_ref().map_or(Ok(()), |call| call.traverse(&visit))
    }

    fn __clear__(&self) {
        drop(self.take());
    }
}

impl PyTimer {
    /// Makes the call, in its coroutine.
    fn run(&self) {
        let py = attached();
        let Some(call) = self.take() else { return };
        self.called.store(true, Ordering::Relaxed);
        let outcome = call.make(py);
        leave_if_child(py, outcome.as_ref().err());
        if let Err(error) = outcome {
            let name = described(call.name(py).as_ref());
            note_uncaught(py, &format!("scheduled {name} raised an exception"), &error);
        }
    }

    fn take(&self) -> Option<Call> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for `seconds`, an int or a float; 0 lets every other coroutine that is ready run first.
///
/// In a coroutine that one alone waits; elsewhere, and where a coroutine cannot be left, the thread
/// sleeps.
#[pyfunction]
pub(crate) fn sleep(py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let duration = seconds_of(seconds, "seconds")?;
    if !may_park(py) {
        return blocking::sleep(py, duration);
    }
    let slept = match duration {
        Some(Duration::ZERO) => yield_now(),
        Some(duration) => park(Instant::now().checked_add(duration)),
        None => park(None),
    };
    match slept {
        Ok(()) | Err(Interrupt::TimedOut) => Ok(()),
        Err(Interrupt::Refused(_)) => blocking::sleep(py, duration),
        Err(other) => Err(from_interrupt(other)),
    }
}
