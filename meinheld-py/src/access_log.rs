//! The access log: when a line is made, and where it goes.
//!
//! ```text
//!   request ends ──▶ line ──┬─ the logger would only pass it on ──▶ gathered ──▶ written once a turn
//!                           ├─ any other logger of `logging` ─────▶ logger.info("%s", line)
//!                           └─ a program's own ───────────────────▶ logger.access(environ)
//! ```
//!
//! Which loggers only pass a line on is decided in `meinheld/_direct.py`. Whenever lines are written,
//! what that depends on is looked at; if anything has changed, they go through `logging` after all. Not
//! here: how a line reads (see `access_line.rs`), and how it is written (see
//! `meinheld_core::LineWriter`).

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meinheld_core::http::Head;
use meinheld_core::{ConnectionInfo, LineWriter, LogFile};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::access_line::{Refused, push_answered};
use crate::fork::is_child;
use crate::head_line::{HeadLine, HeadLines};
use crate::hooks;
use crate::log::is_exit;
use crate::names::name;
use crate::text;

/// How long the end of a server waits for a reader that is slow.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The access log of one server.
pub(crate) struct AccessLog {
    /// `meinheld.access`, if it was enabled when the server began to run.
    named: Option<Named>,
    head_lines: RefCell<HeadLines>,
    sink: RefCell<Sink>,
    writer: RefCell<LineWriter>,
    time: LocalTime,
    /// What has gone wrong with lines that were gathered, and is to be told.
    trouble: RefCell<Trouble>,
}

struct Named {
    logger: Py<PyAny>,
    info: Py<PyAny>,
}

/// Where lines can be written without a logger; looked for anew each second.
#[derive(Default)]
struct Sink {
    /// The second when it was looked for, and the program's logger then, by its number.
    looked_for: Option<(u64, u64)>,
    target: Option<Rc<Target>>,
}

/// What `meinheld/_direct.py` has found.
struct Target {
    info: Py<PyAny>,
    flush: Py<PyAny>,
    reopen: Option<Py<PyAny>>,
    watched: Vec<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>,
    file: LogFile,
}

/// What is kept of a request to log it when it has been answered.
pub(crate) enum AccessRecord {
    /// Its line, but for what came of it.
    Line(Rc<HeadLine>),
    /// It goes to the program's own logger; when it began.
    Own(Instant),
}

/// When lines are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Turn,
    /// Of the server: there is no later.
    End,
}

/// What has gone wrong.
#[derive(Default)]
pub(crate) struct Trouble {
    /// Why lines could not be written.
    pub(crate) fault: Option<io::Error>,
    /// How many lines were lost, once others can be written again.
    pub(crate) lost: u64,
    /// What a logger has raised that got lines in the place of the server; what is to end a program.
    pub(crate) raised: Vec<PyErr>,
}

impl AccessLog {
    pub(crate) fn new(py: Python<'_>) -> PyResult<AccessLog> {
        Ok(AccessLog {
            named: Named::find(py)?,
            head_lines: RefCell::default(),
            sink: RefCell::default(),
            writer: RefCell::default(),
            time: LocalTime::new(py)?,
            trouble: RefCell::default(),
        })
    }

    /// What will be needed of a request, if there is a log.
    pub(crate) fn record(
        &self,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> Option<AccessRecord> {
        if hooks::has_access_logger() {
            return Some(AccessRecord::Own(Instant::now()));
        }
        self.named.as_ref()?;
        let generation = hooks::access_generation();
        let line = self.head_lines.borrow_mut().line(head, connection, generation);
        Some(AccessRecord::Line(line))
    }

    /// Whether lines were written by the server itself when it last looked.
    pub(crate) fn is_direct(&self) -> bool {
        self.sink.borrow().target.is_some()
    }

    /// Logs a request that has been answered.
    pub(crate) fn log(
        &self,
        environ: &Bound<'_, PyDict>,
        record: &AccessRecord,
        status: u16,
        bytes: u64,
    ) -> PyResult<()> {
        let py = environ.py();
        let second = LocalTime::second();
        let target = self.target(py, second);
        let has_own = hooks::has_access_logger();
        match (record, &self.named, target) {
            // It was taken back meanwhile.
            (AccessRecord::Own(_), ..) if !has_own => Ok(()),
            (AccessRecord::Own(began), _, None) => self.log_own(environ, *began, status, bytes),
            (AccessRecord::Own(_), _, Some(_)) => self.gather_own(environ, second, status, bytes),
            (AccessRecord::Line(line), Some(named), target) => {
                let time = self.time.at(py, second)?;
                let push = |out: &mut Vec<u8>| line.push(out, &time.text, status, bytes);
                if target.is_none() || has_own {
                    return named.log(py, push);
                }
                self.gather(py, push);
                Ok(())
            }
            (AccessRecord::Line(_), None, _) => Ok(()),
        }
    }

    /// Logs a request that had no environ. A program's own logger, which is called with one, is not
    /// told of it.
    pub(crate) fn log_refused(&self, py: Python<'_>, refused: &Refused<'_>) -> PyResult<()> {
        let has_own = hooks::has_access_logger();
        if self.named.is_none() && !has_own {
            return Ok(());
        }
        let second = LocalTime::second();
        let (target, time) = (self.target(py, second), self.time.at(py, second)?);
        let push = |out: &mut Vec<u8>| refused.push(out, &time.text);
        match &self.named {
            _ if target.is_some() => self.gather(py, push),
            Some(named) if !has_own => return named.log(py, push),
            _ => {}
        }
        Ok(())
    }

    /// Puts the line of a request whose logger would make it of the environ to the others.
    fn gather_own(
        &self,
        environ: &Bound<'_, PyDict>,
        second: u64,
        status: u16,
        bytes: u64,
    ) -> PyResult<()> {
        let py = environ.py();
        let time = self.time.at(py, second)?;
        // What the application has put into the environ may run code, and log other requests.
        let mut line = Vec::with_capacity(192);
        push_answered(environ, &mut line, &time.text, status, bytes)?;
        self.gather(py, |out| out.extend_from_slice(&line));
        Ok(())
    }

    /// Puts a line to the others.
    fn gather(&self, py: Python<'_>, push: impl FnOnce(&mut Vec<u8>)) {
        let mut writer = self.writer.borrow_mut();
        if let Some(lines) = writer.begin() {
            push(lines);
            lines.push(b'\n');
        }
        let is_due = writer.is_due();
        drop(writer);
        if is_due {
            self.flush(py);
        }
    }

    fn log_own(
        &self,
        environ: &Bound<'_, PyDict>,
        began: Instant,
        status: u16,
        bytes: u64,
    ) -> PyResult<()> {
        let py = environ.py();
        let Some(access) = hooks::access_logger(py) else { return Ok(()) };
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        environ.set_item(name!(py, status_code), status)?;
        environ.set_item(name!(py, send_bytes), bytes)?;
        environ.set_item(name!(py, request_time), milliseconds)?;
        let time = self.time.at(py, LocalTime::second())?;
        environ.set_item(name!(py, local_time), text::utf_8(py, &time.text)?)?;
        access.bind(py).call1((environ,)).map(drop)
    }

    /// The logger that has the lines, to be named if it fails.
    pub(crate) fn logger(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let named = || self.named.as_ref().map(|named| named.logger.clone_ref(py));
        hooks::access_logger(py).or_else(named)
    }

    /// When lines that could not be written are to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.writer.borrow().retry_at()
    }

    /// Whether there is nothing to write or to tell.
    pub(crate) fn is_quiet(&self) -> bool {
        let trouble = self.trouble.borrow();
        self.writer.borrow().is_empty() && trouble.fault.is_none() && trouble.raised.is_empty()
    }

    /// Writes what has been gathered, as far as there is room.
    pub(crate) fn flush(&self, py: Python<'_>) {
        self.write(py, Moment::Turn);
    }

    /// Writes it at the end of the server, which waits a moment for room.
    pub(crate) fn flush_last(&self, py: Python<'_>) {
        self.write(py, Moment::End);
    }

    /// What has gone wrong since this was asked last.
    pub(crate) fn take_trouble(&self) -> Trouble {
        let mut writer = self.writer.borrow_mut();
        let lost = if writer.is_empty() { writer.take_lost() } else { 0 };
        Trouble { lost, ..self.trouble.take() }
    }

    fn write(&self, py: Python<'_>, moment: Moment) {
        if self.writer.borrow().is_empty() {
            return;
        }
        if is_child() {
            // They are the parent's.
            self.writer.borrow_mut().take();
            return;
        }
        let Some(target) = self.sink.borrow().target.clone() else { return };
        if !self.heed(py, target.holds(py)).unwrap_or(false) {
            return self.hand_over(py, &target.info);
        }
        let retry_at = self.retry_at();
        if moment == Moment::Turn && retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.reopened(py, &target) {
            Ok(Some(usable)) => self.write_to(&usable.file, moment),
            Ok(None) => self.hand_over(py, &target.info),
            Err(fault) => self.keep(fault, moment),
        }
    }

    fn write_to(&self, file: &LogFile, moment: Moment) {
        let mut writer = self.writer.borrow_mut();
        let written = match moment {
            Moment::Turn => writer.flush(file, Instant::now()),
            Moment::End => writer.flush_last(file, LAST_PATIENCE),
        };
        if let Err(fault) = written {
            self.trouble.borrow_mut().fault = Some(fault);
        }
    }

    /// Keeps the lines until the file can be opened.
    fn keep(&self, fault: io::Error, moment: Moment) {
        self.trouble.borrow_mut().fault = Some(fault);
        let mut writer = self.writer.borrow_mut();
        match moment {
            Moment::Turn => writer.postpone(Instant::now()),
            Moment::End => writer.lose(),
        }
    }

    /// The target that is the same logger's after a rotation, or this one if there was none. `None` if
    /// the logger is not as it was; an error if the file cannot be opened anew.
    fn reopened(&self, py: Python<'_>, target: &Rc<Target>) -> io::Result<Option<Rc<Target>>> {
        let Some(reopen) = target.reopen.as_ref().filter(|_| target.file.has_moved()) else {
            return Ok(Some(Rc::clone(target)));
        };
        match reopen.bind(py).call0() {
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                return Err(io::Error::other(error.value(py).to_string()));
            }
            // What else it raises it raises again for the logger, which knows what to do then.
            outcome => self.heed(py, outcome),
        };
        self.sink.borrow_mut().looked_for = None;
        Ok(self.target(py, LocalTime::second()))
    }

    /// Gives the lines to the logger: something about it is not as it was.
    fn hand_over(&self, py: Python<'_>, info: &Py<PyAny>) {
        *self.sink.borrow_mut() = Sink::default();
        let lines = self.writer.borrow_mut().take();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Err(error) = log_line(py, info, line) {
                self.trouble.borrow_mut().raised.push(error);
            }
        }
    }

    /// Where lines can be written now, if they can.
    fn target(&self, py: Python<'_>, second: u64) -> Option<Rc<Target>> {
        let at = (second, hooks::access_generation());
        let looked_for = self.sink.borrow().looked_for;
        if looked_for == Some(at) {
            return self.sink.borrow().target.clone();
        }
        if looked_for.is_some_and(|(_, generation)| generation != at.1) {
            // Those that there are are another logger's.
            self.flush(py);
        }
        let found = self.heed(py, self.find(py)).flatten().map(Rc::new);
        let replaced = {
            let mut sink = self.sink.borrow_mut();
            sink.looked_for = Some(at);
            std::mem::replace(&mut sink.target, found.clone())
        };
        if let (None, Some(replaced)) = (&found, replaced) {
            self.hand_over(py, &replaced.info);
        }
        found
    }

    /// Without what kept it from being had: then the logger will find that, too. But what is to end a
    /// program, from a signal's handler, is kept.
    fn heed<T>(&self, py: Python<'_>, outcome: PyResult<T>) -> Option<T> {
        outcome
            .map_err(|error| {
                if is_exit(py, &error) {
                    self.trouble.borrow_mut().raised.push(error);
                }
            })
            .ok()
    }

    fn find(&self, py: Python<'_>) -> PyResult<Option<Target>> {
        let direct = py.import(name!(py, meinheld_direct))?;
        let found = match (hooks::access_logger(py), &self.named) {
            (Some(own), _) => direct.call_method1(name!(py, target_of_hook), (own,))?,
            (None, Some(named)) => direct.call_method1(name!(py, target_of), (&named.logger,))?,
            (None, None) => return Ok(None),
        };
        if found.is_none() { Ok(None) } else { Target::of(&found).map(Some) }
    }
}

impl Named {
    fn find(py: Python<'_>) -> PyResult<Option<Named>> {
        let logging = py.import("logging")?;
        let logger = logging.call_method1("getLogger", ("meinheld.access",))?;
        let info = logging.getattr("INFO")?;
        let enabled = logger.call_method1("isEnabledFor", (info,))?.is_truthy()?
            && logger.call_method0("hasHandlers")?.is_truthy()?;
        if !enabled {
            return Ok(None);
        }
        let info = logger.getattr("info")?.unbind();
        Ok(Some(Named { logger: logger.unbind(), info }))
    }

    fn log(&self, py: Python<'_>, push: impl FnOnce(&mut Vec<u8>)) -> PyResult<()> {
        let mut line = Vec::new();
        push(&mut line);
        log_line(py, &self.info, &line)
    }
}

type Found = (
    Py<PyAny>,
    Py<PyAny>,
    Py<PyAny>,
    Option<Py<PyAny>>,
    Option<PathBuf>,
    Vec<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>,
);

impl Target {
    fn of(found: &Bound<'_, PyAny>) -> PyResult<Target> {
        let py = found.py();
        let (info, flush, fileno, reopen, path, watched): Found = found.extract()?;
        let file = LogFile::new(fileno.bind(py).call0()?.extract()?, path)?;
        Ok(Target { info, flush, reopen, watched, file })
    }

    /// Whether all is as it was; what others have put into the stream is written before. A stream that
    /// is closed says so then, and one that is open has the descriptor that it had.
    fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        for (owner, name, value) in &self.watched {
            let (owner, name) = (owner.bind(py), name.bind(py));
            let found = match owner.cast_exact::<PyDict>() {
                Ok(own) => own.get_item(name)?,
                Err(_) => Some(owner.getattr(name.cast()?)?),
            };
            let is_same = |found: Bound<'_, PyAny>| Ok(found.is(value) || found.eq(value)?);
            if !found.map_or(Ok::<_, PyErr>(false), is_same)? {
                return Ok(false);
            }
        }
        self.flush.bind(py).call0()?;
        Ok(true)
    }
}

fn log_line(py: Python<'_>, info: &Py<PyAny>, line: &[u8]) -> PyResult<()> {
    let line = text::utf_8(py, &String::from_utf8_lossy(line))?;
    info.bind(py).call1((name!(py, format), line)).map(drop)
}

/// The local time as the combined format has it, made once a second.
struct LocalTime {
    strftime: Py<PyAny>,
    shown: RefCell<Rc<Shown>>,
}

struct Shown {
    second: u64,
    text: String,
}

impl LocalTime {
    fn new(py: Python<'_>) -> PyResult<LocalTime> {
        let strftime = py.import("time")?.getattr("strftime")?.unbind();
        let none = Shown { second: 0, text: String::new() };
        Ok(LocalTime { strftime, shown: RefCell::new(Rc::new(none)) })
    }

    /// The Unix time.
    fn second() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn at(&self, py: Python<'_>, second: u64) -> PyResult<Rc<Shown>> {
        if self.shown.borrow().second != second {
            let text = self.strftime.bind(py).call1((name!(py, time_format),))?.to_string();
            let text = with_month_name(&text);
            *self.shown.borrow_mut() = Rc::new(Shown { second, text });
        }
        Ok(Rc::clone(&self.shown.borrow()))
    }
}

/// `25/11/2026:…` as `25/Nov/2026:…`: `strftime` would name months in the language of the program.
fn with_month_name(time: &str) -> String {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = time.get(3..5).and_then(|digits| digits.parse::<usize>().ok());
    let name = month.and_then(|month| NAMES.get(month.wrapping_sub(1)));
    name.map_or_else(|| time.to_owned(), |name| format!("{}{name}{}", &time[..3], &time[5..]))
}

#[cfg(test)]
mod tests {
    use super::with_month_name;

    #[test]
    fn months_have_english_names() {
        assert_eq!(with_month_name("01/01/2026:00:00:00 +0000"), "01/Jan/2026:00:00:00 +0000");
        assert_eq!(with_month_name("31/12/2026:23:59:59 -0930"), "31/Dec/2026:23:59:59 -0930");
        assert_eq!(with_month_name("what is this"), "what is this");
    }
}
