//! The error log, and what becomes of what goes wrong with the logs themselves.
//!
//! `meinheld.error` is told what goes wrong, through Python's `logging`; exceptions go to the logger
//! that the program has set, if it has (see hooks.rs). Not here: the access log, but that it is written
//! before an error is told, so that both are in their order where they go to one place.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use meinheld_core::ConnectionInfo;
use meinheld_core::http::Head;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::access_line::Refused;
use crate::access_log::{AccessLog, AccessRecord};
use crate::hooks;
use crate::names::name;
use crate::text;

/// How often it is told that the access log cannot be written, at the most.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Python's `logging.DEBUG`.
const LEVEL_DEBUG: u8 = 10;

/// The two logs.
pub(crate) struct Logs {
    error: Py<PyAny>,
    /// Empty: to be copied, which can fail where making one would panic.
    keywords: Py<PyDict>,
    access: AccessLog,
    /// When it was told that the access log cannot be written.
    fault_told: Cell<Option<Instant>>,
    /// What is to end the server, and was raised where nothing could be done about it.
    exit: Cell<Option<PyErr>>,
}

impl Logs {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Logs> {
        let logging = py.import("logging")?;
        let error = logging.call_method1("getLogger", ("meinheld.error",))?.unbind();
        let keywords = PyDict::new(py).unbind();
        let (fault_told, exit) = (Cell::default(), Cell::default());
        let access = AccessLog::new(py)?;
        Ok(Logs { error, keywords, access, fault_told, exit })
    }

    /// Logs one line.
    pub(crate) fn error(&self, py: Python<'_>, message: &str) {
        self.flush(py);
        self.say(py, name!(py, error), message);
    }

    /// Logs one line that is no error of anybody's.
    pub(crate) fn warning(&self, py: Python<'_>, message: &str) {
        self.flush(py);
        self.say(py, name!(py, warning), message);
    }

    /// Logs one line if it is asked for; it is not made otherwise.
    pub(crate) fn debug(&self, py: Python<'_>, message: &dyn fmt::Display) {
        let error = self.error.bind(py);
        self.attempt(py, || {
            if error.call_method1(name!(py, is_enabled_for), (LEVEL_DEBUG,))?.is_truthy()? {
                self.flush(py);
                self.say(py, name!(py, debug), &message.to_string());
            }
            Ok(())
        });
    }

    fn say(&self, py: Python<'_>, level: &Bound<'_, PyString>, message: &str) {
        let error = self.error.bind(py);
        self.attempt(py, || {
            let message = text::utf_8(py, message)?;
            error.call_method1(level, (name!(py, format), message))
        });
    }

    /// Logs one line and a traceback.
    pub(crate) fn exception(&self, py: Python<'_>, message: &str, raised: &PyErr) {
        self.flush(py);
        if let Some(own) = hooks::error_logger(py) {
            // It has its traceback as an attribute, too.
            let value = raised.clone_ref(py).into_value(py);
            let exc_info = (raised.get_type(py), value, raised.traceback(py));
            return self.attempt(py, || own.bind(py).call1(exc_info));
        }
        self.attempt(py, || self.exception_line(py, message, raised));
    }

    fn exception_line(&self, py: Python<'_>, message: &str, raised: &PyErr) -> PyResult<()> {
        let keywords = self.keywords.bind(py).copy()?;
        // It has its traceback as an attribute.
        keywords.set_item(name!(py, exc_info), raised.clone_ref(py).into_value(py))?;
        let arguments = (name!(py, format), text::utf_8(py, message)?);
        let error = self.error.bind(py);
        error.call_method(name!(py, error), arguments, Some(&keywords)).map(drop)
    }

    /// What the access log will need of a request, if there is one.
    pub(crate) fn access_record(
        &self,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> Option<AccessRecord> {
        self.access.record(head, connection)
    }

    /// Whether requests are logged without a call of Python code, so far as is known.
    pub(crate) fn writes_access_directly(&self) -> bool {
        self.access.is_direct()
    }

    /// Logs a request that has been answered. The exception is one that ends the server.
    pub(crate) fn access(
        &self,
        environ: &Bound<'_, PyDict>,
        record: &AccessRecord,
        status: u16,
        bytes: u64,
    ) -> Option<PyErr> {
        self.note(environ.py(), || self.access.log(environ, record, status, bytes));
        self.exit.take()
    }

    /// Logs a request that was refused before there was an environ. The exception ends the server.
    pub(crate) fn access_refused(&self, py: Python<'_>, refused: &Refused<'_>) -> Option<PyErr> {
        self.note(py, || self.access.log_refused(py, refused));
        self.exit.take()
    }

    /// When the access log is to be written at the latest.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.access.retry_at()
    }

    /// Writes the lines of the access log that have been gathered. The exception ends the server.
    pub(crate) fn end_turn(&self, py: Python<'_>) -> Option<PyErr> {
        self.flush(py);
        self.exit.take()
    }

    /// The same at the end of the server. What cannot be written then is lost.
    pub(crate) fn end(&self, py: Python<'_>) -> Option<PyErr> {
        self.access.flush_last(py);
        self.tell(py);
        self.exit.take()
    }

    fn flush(&self, py: Python<'_>) {
        if !self.access.is_quiet() {
            self.access.flush(py);
            self.tell(py);
        }
    }

    /// Tells what has gone wrong with the access log.
    fn tell(&self, py: Python<'_>) {
        let trouble = self.access.take_trouble();
        for raised in trouble.raised {
            self.note(py, || Err(raised));
        }
        if let Some(fault) = trouble.fault {
            let now = Instant::now();
            if self.fault_told.get().is_none_or(|told| now >= told + FAULT_INTERVAL) {
                self.fault_told.set(Some(now));
                let message = format!(
                    "the access log cannot be written: {fault}; a MiB of it is kept and tried again"
                );
                self.say(py, name!(py, error), &message);
            }
        }
        if trouble.lost > 0 {
            let message = format!(
                "lines of the access log that could not be written in time and are lost: {}",
                trouble.lost
            );
            self.say(py, name!(py, error), &message);
        }
    }

    /// Has the access log do something. What its logger raises must not fail the request, and a panic,
    /// for want of memory, neither the request nor the loop.
    fn note(&self, py: Python<'_>, log: impl FnOnce() -> PyResult<()>) {
        match catch_unwind(AssertUnwindSafe(log)) {
            Ok(Err(error)) if is_exit(py, &error) => self.exit.set(Some(error)),
            Ok(Err(error)) => {
                let access = self.access.logger(py);
                error.write_unraisable(py, access.as_ref().map(|access| access.bind(py)));
            }
            Ok(Ok(())) | Err(_) => {}
        }
    }

    /// Logs something. A panic, for want of memory, has been told to stderr, and is over.
    fn attempt<T>(&self, py: Python<'_>, log: impl FnOnce() -> PyResult<T>) {
        if let Ok(logged) = catch_unwind(AssertUnwindSafe(log)) {
            self.unraisable(py, logged);
        }
    }

    /// An error log that fails must not fail the request.
    fn unraisable<T>(&self, py: Python<'_>, logged: PyResult<T>) {
        if let Err(error) = logged {
            error.write_unraisable(py, Some(self.error.bind(py)));
        }
    }
}

/// Whether an exception is meant to end the process.
pub(crate) fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}
