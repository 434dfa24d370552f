//! The error log and the access log, through Python's `logging`.
//!
//! `meinheld.error` is told what goes wrong; `meinheld.access` gets one line a request, in the
//! combined format, if it is enabled for INFO when the server begins to run.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// The two loggers.
pub(crate) struct Logs {
    error: Py<PyAny>,
    access: Option<AccessLog>,
}

struct AccessLog {
    info: Py<PyAny>,
    strftime: Py<PyAny>,
    /// The Unix second, and how it is shown.
    time: RefCell<(u64, String)>,
}

/// What a line of the access log takes from the environ, kept since an application may change that.
pub(crate) struct AccessRecord {
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
        Ok(Logs { error, access })
    }

    /// Logs one line.
    pub(crate) fn error(&self, py: Python<'_>, message: &str) {
        let error = self.error.bind(py);
        let logged = error.call_method1(intern!(py, "error"), ("%s", message));
        self.unraisable(py, logged);
    }

    /// Logs one line and a traceback.
    pub(crate) fn exception(&self, py: Python<'_>, message: &str, raised: &PyErr) {
        let keywords = PyDict::new(py);
        let exc_info = (raised.get_type(py), raised.value(py), raised.traceback(py));
        let logged = keywords.set_item("exc_info", exc_info).and_then(|()| {
            let error = self.error.bind(py);
            error.call_method(intern!(py, "error"), ("%s", message), Some(&keywords))
        });
        self.unraisable(py, logged);
    }

    /// What the access log will need of a request, if there is one.
    pub(crate) fn access_record(&self, environ: &Bound<'_, PyDict>) -> Option<AccessRecord> {
        self.access.as_ref()?;
        AccessRecord::of(environ).ok().flatten()
    }

    /// Logs a request that has been answered.
    pub(crate) fn access(&self, py: Python<'_>, record: &AccessRecord, status: u16, bytes: u64) {
        if let Some(access) = &self.access {
            let logged = access.log(py, record, status, bytes);
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

impl AccessRecord {
    fn of(environ: &Bound<'_, PyDict>) -> PyResult<Option<AccessRecord>> {
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
        Ok(Some(AccessRecord { peer, method, target, protocol, referer, agent }))
    }
}

impl AccessLog {
    fn new(logger: &Bound<'_, PyAny>) -> PyResult<AccessLog> {
        let strftime = logger.py().import("time")?.getattr("strftime")?.unbind();
        let time = RefCell::new((0, String::new()));
        Ok(AccessLog { info: logger.getattr("info")?.unbind(), strftime, time })
    }

    fn log(&self, py: Python<'_>, record: &AccessRecord, status: u16, bytes: u64) -> PyResult<()> {
        let mut line = String::with_capacity(192);
        let peer = record.peer.bind(py).str()?;
        let peer = peer.to_string_lossy();
        line.push_str(if peer.is_empty() { "-" } else { &peer });
        line.push_str(" - - [");
        self.push_time(py, &mut line)?;
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

    /// The time as the combined format has it, made once a second.
    fn push_time(&self, py: Python<'_>, line: &mut String) -> PyResult<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.time.borrow().0 != now {
            let shown = self.strftime.bind(py).call1(("%d/%b/%Y:%H:%M:%S %z",))?.to_string();
            *self.time.borrow_mut() = (now, shown);
        }
        line.push_str(&self.time.borrow().1);
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
