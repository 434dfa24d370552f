//! The error log and the access log, through Python's `logging`, or by a program's own loggers.
//!
//! `meinheld.error` is told what goes wrong; `meinheld.access` gets one line a request, in the
//! combined format, if it is enabled for INFO when the server begins to run. Where the program has set
//! loggers of its own (see hooks.rs), exceptions and requests go to those instead.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::hooks;
use crate::text;

/// The two loggers.
pub(crate) struct Logs {
    error: Py<PyAny>,
    /// Empty: to be copied, which can fail where making one would panic.
    keywords: Py<PyDict>,
    access: Option<AccessLog>,
    time: LocalTime,
}

struct AccessLog {
    info: Py<PyAny>,
}

/// The local time as the combined format has it, made once a second.
struct LocalTime {
    strftime: Py<PyAny>,
    /// The Unix second, and how it is shown.
    shown: RefCell<(u64, String)>,
}

/// What is kept of a request to log it when it has been answered.
pub(crate) enum AccessRecord {
    Line(AccessLine),
    /// It goes to the program's own logger; when it began.
    Own(Instant),
}

/// What a line of the access log takes from the environ, kept since an application may change that.
pub(crate) struct AccessLine {
    peer: Py<PyAny>,
    method: Py<PyAny>,
    target: Py<PyAny>,
    protocol: Py<PyAny>,
    referer: Option<Py<PyAny>>,
    agent: Option<Py<PyAny>>,
}

impl Logs {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Logs> {
        let logging = py.import("logging")?;
        let error = logging.call_method1("getLogger", ("meinheld.error",))?.unbind();
        let access = logging.call_method1("getLogger", ("meinheld.access",))?;
        let info = logging.getattr("INFO")?;
        let enabled = access.call_method1("isEnabledFor", (info,))?.is_truthy()?
            && access.call_method0("hasHandlers")?.is_truthy()?;
        let access = enabled.then(|| AccessLog::new(&access)).transpose()?;
        let keywords = PyDict::new(py).unbind();
        Ok(Logs { error, keywords, access, time: LocalTime::new(py)? })
    }

    /// Logs one line.
    pub(crate) fn error(&self, py: Python<'_>, message: &str) {
        let error = self.error.bind(py);
        self.attempt(py, || {
            let message = text::utf_8(py, message)?;
            error.call_method1(intern!(py, "error"), (intern!(py, "%s"), message))
        });
    }

    /// Logs one line and a traceback.
    pub(crate) fn exception(&self, py: Python<'_>, message: &str, raised: &PyErr) {
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
        keywords.set_item(intern!(py, "exc_info"), raised.clone_ref(py).into_value(py))?;
        let arguments = (intern!(py, "%s"), text::utf_8(py, message)?);
        let error = self.error.bind(py);
        error.call_method(intern!(py, "error"), arguments, Some(&keywords)).map(drop)
    }

    /// What the access log will need of a request, if there is one.
    pub(crate) fn access_record(&self, environ: &Bound<'_, PyDict>) -> Option<AccessRecord> {
        if hooks::has_access_logger() {
            return Some(AccessRecord::Own(Instant::now()));
        }
        self.access.as_ref()?;
        AccessLine::of(environ).ok().flatten().map(AccessRecord::Line)
    }

    /// Logs a request that has been answered. The exception is one that ends the server.
    pub(crate) fn access(
        &self,
        environ: &Bound<'_, PyDict>,
        record: &AccessRecord,
        status: u16,
        bytes: u64,
    ) -> Option<PyErr> {
        let py = environ.py();
        let logged = match (record, &self.access) {
            (AccessRecord::Own(began), _) => self.access_own(environ, *began, status, bytes),
            (AccessRecord::Line(line), Some(access)) => {
                access.log(py, line, &self.time, status, bytes)
            }
            (AccessRecord::Line(_), None) => Ok(()),
        };
        match logged {
            Err(error) if is_exit(py, &error) => Some(error),
            logged => {
                self.unraisable(py, logged);
                None
            }
        }
    }

    fn access_own(
        &self,
        environ: &Bound<'_, PyDict>,
        began: Instant,
        status: u16,
        bytes: u64,
    ) -> PyResult<()> {
        let py = environ.py();
        let Some(access) = hooks::access_logger(py) else { return Ok(()) };
        let mut time = String::with_capacity(32);
        self.time.push(py, &mut time)?;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        environ.set_item(intern!(py, "STATUS_CODE"), status)?;
        environ.set_item(intern!(py, "SEND_BYTES"), bytes)?;
        environ.set_item(intern!(py, "REQUEST_TIME"), milliseconds)?;
        environ.set_item(intern!(py, "LOCAL_TIME"), time)?;
        access.bind(py).call1((environ,)).map(drop)
    }

    /// Logs something. A panic, for want of memory, has been told to stderr, and is over.
    fn attempt<T>(&self, py: Python<'_>, log: impl FnOnce() -> PyResult<T>) {
        if let Ok(logged) = catch_unwind(AssertUnwindSafe(log)) {
            self.unraisable(py, logged);
        }
    }

    /// A log that fails must not fail the request.
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

impl AccessLine {
    fn of(environ: &Bound<'_, PyDict>) -> PyResult<Option<AccessLine>> {
        let item = |name| Ok::<_, PyErr>(environ.get_item(name)?.map(Bound::unbind));
        let line = (
            item("REMOTE_ADDR")?,
            item("REQUEST_METHOD")?,
            item("RAW_URI")?,
            item("SERVER_PROTOCOL")?,
        );
        let (Some(peer), Some(method), Some(target), Some(protocol)) = line else {
            return Ok(None);
        };
        let (referer, agent) = (item("HTTP_REFERER")?, item("HTTP_USER_AGENT")?);
        Ok(Some(AccessLine { peer, method, target, protocol, referer, agent }))
    }
}

impl AccessLog {
    fn new(logger: &Bound<'_, PyAny>) -> PyResult<AccessLog> {
        Ok(AccessLog { info: logger.getattr("info")?.unbind() })
    }

    fn log(
        &self,
        py: Python<'_>,
        record: &AccessLine,
        time: &LocalTime,
        status: u16,
        bytes: u64,
    ) -> PyResult<()> {
        let mut line = String::with_capacity(192);
        let peer = record.peer.bind(py).str()?;
        let peer = peer.to_string_lossy();
        line.push_str(if peer.is_empty() { "-" } else { &peer });
        line.push_str(" - - [");
        time.push(py, &mut line)?;
        line.push_str("] \"");
        push_quoted(&mut line, &record.method.bind(py).str()?);
        line.push(' ');
        push_quoted(&mut line, &record.target.bind(py).str()?);
        line.push(' ');
        push_quoted(&mut line, &record.protocol.bind(py).str()?);
        // Writing to a String cannot fail.
        let _ = write!(line, "\" {status} {bytes}");
        for field in [&record.referer, &record.agent] {
            line.push_str(" \"");
            match field {
                Some(field) => push_quoted(&mut line, &field.bind(py).str()?),
                None => line.push('-'),
            }
            line.push('"');
        }
        self.info.bind(py).call1(("%s", line))?;
        Ok(())
    }
}

impl LocalTime {
    fn new(py: Python<'_>) -> PyResult<LocalTime> {
        let strftime = py.import("time")?.getattr("strftime")?.unbind();
        Ok(LocalTime { strftime, shown: RefCell::new((0, String::new())) })
    }

    fn push(&self, py: Python<'_>, line: &mut String) -> PyResult<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.shown.borrow().0 != now {
            let shown = self.strftime.bind(py).call1(("%d/%b/%Y:%H:%M:%S %z",))?.to_string();
            *self.shown.borrow_mut() = (now, shown);
        }
        line.push_str(&self.shown.borrow().1);
        Ok(())
    }
}

/// Appends text from a client so that it cannot end its field or its line.
fn push_quoted(line: &mut String, text: &Bound<'_, PyString>) {
    for character in text.to_string_lossy().chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            ' '..='~' => line.push(character),
            // Writing to a String cannot fail.
            other => drop(write!(line, "\\x{:02x}", u32::from(other))),
        }
    }
}
