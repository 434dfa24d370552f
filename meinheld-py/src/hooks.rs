//! What a program has the server call: its loggers of requests and of exceptions, and its watchdog.
//!
//! They may be set at any time, and hold from then on. While none is set, a request pays for one
//! look at a flag. Not here: what is logged (see log.rs), and the loop that calls a watchdog.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meinheld_core::Heartbeat;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::continuation::duration_of;
use crate::errors::from_system;
use crate::raising::Saying;

/// How often a watchdog is called if nothing else is said.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// What is called.
struct Hooks {
    access: Option<Py<PyAny>>,
    error: Option<Py<PyAny>>,
    watchdog: Option<Watchdog>,
}

struct Watchdog {
    beat: Beat,
    interval: Duration,
    due: Instant,
}

/// What a watchdog does in a turn of the loop.
#[derive(Clone)]
pub(crate) enum Beat {
    /// Calls the program's own.
    Call(Arc<Py<PyAny>>),
    /// Gives a process manager its sign; requests have this time to end when that is gone.
    Sign(Arc<Heartbeat>, Option<Duration>),
}

static HOOKS: Mutex<Hooks> = Mutex::new(Hooks { access: None, error: None, watchdog: None });
static HAS_ACCESS: AtomicBool = AtomicBool::new(false);
/// How often a logger was set.
static ACCESS_GENERATION: AtomicU64 = AtomicU64::new(0);
static HAS_WATCHDOG: AtomicBool = AtomicBool::new(false);

/// No Python code runs under the lock: what is replaced is dropped by the caller.
fn hooks() -> MutexGuard<'static, Hooks> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `logger.access(environ)` called after each response, its environ holding `STATUS_CODE`,
/// `SEND_BYTES`, `REQUEST_TIME` in milliseconds and `LOCAL_TIME` beside the request's own items; None
/// ends that. It takes the place of the logger `meinheld.access`.
#[pyfunction]
pub(crate) fn set_access_logger(logger: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let access = logger.map(|logger| method_of(logger, "access")).transpose()?;
    HAS_ACCESS.store(access.is_some(), Ordering::Relaxed);
    ACCESS_GENERATION.fetch_add(1, Ordering::Relaxed);
    let replaced = mem::replace(&mut hooks().access, access);
    drop(replaced);
    Ok(())
}

/// Has `logger.error(type, value, traceback)` called for each exception that leaves an application;
/// None ends that. It takes the place of the logger `meinheld.error` for those.
#[pyfunction]
pub(crate) fn set_error_logger(logger: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let error = logger.map(|logger| method_of(logger, "error")).transpose()?;
    let replaced = mem::replace(&mut hooks().error, error);
    drop(replaced);
    Ok(())
}

/// Has the loop call `watchdog()` every `interval` seconds, until the server ends; None ends that. It
/// takes the place of one that was set before.
#[pyfunction]
#[pyo3(signature = (watchdog, interval=None))]
pub(crate) fn set_watchdog(
    watchdog: Option<&Bound<'_, PyAny>>,
    interval: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let interval = interval.map(duration_of).transpose()?.flatten().unwrap_or(BEAT_INTERVAL);
    if watchdog.is_some_and(|watchdog| !watchdog.is_callable()) {
        return Err(PyTypeError::saying("watchdog must be callable, or None"));
    }
    let beat = watchdog.map(|watchdog| Beat::Call(Arc::new(watchdog.clone().unbind())));
    watch(beat, interval);
    Ok(())
}

/// Has the loop touch the open file `fd` every second, by which the process `ppid`, its parent, sees
/// that it is alive, as gunicorn does. When it has another parent, the server stops, and requests have
/// `timeout` seconds to end (0: without limit).
#[pyfunction]
pub(crate) fn set_fastwatchdog(fd: i32, ppid: i64, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
    let grace = duration_of(timeout)?;
    let parent = u32::try_from(ppid)
        .map_err(|_| PyValueError::saying(format!("ppid is {ppid} and must be a process id")))?;
    let heart = Heartbeat::new(fd, parent).map_err(from_system)?;
    watch(Some(Beat::Sign(Arc::new(heart), grace)), BEAT_INTERVAL);
    Ok(())
}

fn watch(beat: Option<Beat>, interval: Duration) {
    HAS_WATCHDOG.store(beat.is_some(), Ordering::Relaxed);
    let watchdog = beat.map(|beat| Watchdog { beat, interval, due: Instant::now() });
    let replaced = mem::replace(&mut hooks().watchdog, watchdog);
    drop(replaced);
}

fn method_of(logger: &Bound<'_, PyAny>, name: &str) -> PyResult<Py<PyAny>> {
    let Some(method) = logger.getattr_opt(name)? else {
        let kind = logger.get_type().name()?;
        let message = format!("a logger must have a method {name}, or be None; {kind} has none");
        return Err(PyTypeError::saying(message));
    };
    if method.is_callable() {
        return Ok(method.unbind());
    }
    Err(PyTypeError::saying(format!("the logger's {name} must be callable")))
}

/// Whether a program logs its requests itself.
pub(crate) fn has_access_logger() -> bool {
    HAS_ACCESS.load(Ordering::Relaxed)
}

/// A number that the logger has alone.
pub(crate) fn access_generation() -> u64 {
    ACCESS_GENERATION.load(Ordering::Relaxed)
}

/// What logs a request.
pub(crate) fn access_logger(py: Python<'_>) -> Option<Py<PyAny>> {
    hooks().access.as_ref().map(|access| access.clone_ref(py))
}

/// What logs an exception.
pub(crate) fn error_logger(py: Python<'_>) -> Option<Py<PyAny>> {
    hooks().error.as_ref().map(|error| error.clone_ref(py))
}

/// When the watchdog is to be called.
pub(crate) fn next_beat() -> Option<Instant> {
    if !HAS_WATCHDOG.load(Ordering::Relaxed) {
        return None;
    }
    hooks().watchdog.as_ref().map(|watchdog| watchdog.due)
}

/// What the watchdog is to do now. It is due in the first turn that sees it.
pub(crate) fn due_beat() -> Option<Beat> {
    if !HAS_WATCHDOG.load(Ordering::Relaxed) {
        return None;
    }
    let mut hooks = hooks();
    let watchdog = hooks.watchdog.as_mut()?;
    let now = Instant::now();
    if now < watchdog.due {
        return None;
    }
    let beat = watchdog.beat.clone();
    match now.checked_add(watchdog.interval) {
        Some(due) => watchdog.due = due,
        // The clock does not reach that far.
        None => HAS_WATCHDOG.store(false, Ordering::Relaxed),
    }
    Some(beat)
}

/// Ends the watchdog: a server that runs next has its own.
pub(crate) fn forget_watchdog() {
    watch(None, BEAT_INTERVAL);
}

impl Beat {
    /// Does it.
    ///
    /// # Errors
    /// What the program's watchdog raised; why the sign could not be given.
    pub(crate) fn perform(&self, py: Python<'_>) -> PyResult<Sign> {
        match self {
            Beat::Call(watchdog) => watchdog.bind(py).call0().map(|_| Sign::Given),
            Beat::Sign(heart, grace) if heart.is_orphaned() => Ok(Sign::Orphaned(*grace)),
            Beat::Sign(heart, _) => heart.beat().map(|()| Sign::Given).map_err(from_system),
        }
    }
}

/// What came of a beat.
pub(crate) enum Sign {
    Given,
    /// The process that waited for it is gone: stop, with this much grace.
    Orphaned(Option<Duration>),
}
