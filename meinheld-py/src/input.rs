//! `wsgi.input`: the request's body as a file, read from the client as the application asks.
//!
//! PEP 3333, "Input and Error Streams". Reading past the end gives `b""`; a body that the client cuts
//! short or corrupts raises, and never looks like a shorter one. Reading may park the request.

use std::cell::{Ref, RefCell};

use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};

use crate::errors::from_io;
use crate::lane::{Lane, in_request};
use crate::names::name;
use crate::raising::Saying;
use crate::text;
use crate::thread_bound::ThreadBound;

/// How much is read at a time when the application asks for lines, or for everything.
const READ_BYTES: usize = 64 * 1024;

/// The request's body.
#[pyclass(frozen, module = "meinheld.server", name = "Input")]
pub(crate) struct Input(ThreadBound<Source>);

/// What it reads from.
struct Source {
    lane: Lane,
    /// What was read beyond the end of a line, if anything was: a request that waits has mostly none.
    ahead: RefCell<Option<Box<Ahead>>>,
}

/// Bytes, of which the first `taken` have been given to the application already.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    taken: usize,
}

impl Ahead {
    fn left(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes up to `count` bytes off the front.
    ///
    /// # Errors
    /// `MemoryError`; nothing has been taken then.
    fn take<'py>(&mut self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let end = self.bytes.len().min(self.taken.saturating_add(count));
        let taken = text::bytes(py, &self.bytes[self.taken..end])?;
        self.taken = end;
        Ok(taken)
    }
}

impl Input {
    pub(crate) fn new(lane: Lane) -> Input {
        Input(ThreadBound::new(Source { lane, ahead: RefCell::default() }))
    }

    /// Forgets what was read ahead, for the next request.
    pub(crate) fn forget(&self) {
        if let Some(source) = self.0.get() {
            source.ahead.take();
        }
    }

    fn source(&self) -> PyResult<&Source> {
        in_request(&self.0)
    }
}

impl Source {
    /// What was read ahead.
    fn left(&self) -> Ref<'_, [u8]> {
        Ref::map(self.ahead.borrow(), |ahead| ahead.as_deref().map_or(&[][..], Ahead::left))
    }

    /// Takes up to `count` bytes of what was read ahead.
    fn take<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut place = self.ahead.borrow_mut();
        let Some(ahead) = &mut *place else { return text::bytes(py, b"") };
        let taken = ahead.take(py, count)?;
        if ahead.left().is_empty() {
            *place = None;
        }
        Ok(taken)
    }

    /// Reads until `limit` bytes are there, or the end of the body.
    fn read_up_to<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        if self.left().is_empty()
            && let Some(taken) = self
                .lane
                .work(|exchange| exchange.take_arrived(limit, |arrived| text::bytes(py, arrived)))?
        {
            return taken;
        }
        while self.left().len() < limit {
            if self.read_more(limit)? == 0 {
                break;
            }
        }
        self.take(py, limit)
    }

    /// Reads until the end of a line, `limit` bytes, or the end of the body.
    fn read_line<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut searched = 0;
        let end = loop {
            let read = {
                let left = self.left();
                if let Some(at) = left[searched..].iter().position(|byte| *byte == b'\n') {
                    break searched + at + 1;
                }
                left.len()
            };
            searched = read;
            if read >= limit || self.read_more(usize::MAX)? == 0 {
                break read;
            }
        };
        self.take(py, end.min(limit))
    }

    /// Reads once, towards `limit` bytes in all. What was read before is kept if reading fails.
    fn read_more(&self, limit: usize) -> PyResult<usize> {
        // Reading may park this request: nothing is borrowed meanwhile.
        let Ahead { mut bytes, taken } = self.ahead.take().map_or_else(Ahead::default, |it| *it);
        bytes.drain(..taken);
        let filled = bytes.len();
        let wanted = (limit - filled).min(READ_BYTES.max(filled));
        let read = self.lane.wait(|exchange| {
            // No more room than there are bytes: it is cleared first.
            let left = exchange.body_bytes_left().and_then(|left| usize::try_from(left).ok());
            bytes.resize(filled + wanted.min(left.unwrap_or(wanted)), 0);
            exchange.read_body(&mut bytes[filled..])
        });
        let read = read.and_then(|read| read.map_err(from_io));
        bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
        self.put_back(bytes);
        read
    }

    /// Another request that reads meanwhile is refused, and leaves nothing here.
    fn put_back(&self, bytes: Vec<u8>) {
        let ahead = (!bytes.is_empty()).then(|| Box::new(Ahead { bytes, taken: 0 }));
        *self.ahead.borrow_mut() = ahead;
    }
}

#[pymethods]
impl Input {
    /// Reads up to `size` bytes, all of the body if it is negative or None.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.source()?.read_up_to(py, limit_of(size))
    }

    /// Reads a line with its newline, up to `size` bytes of it.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.source()?.read_line(py, limit_of(size))
    }

    /// Reads lines until the end, or until `hint` bytes have been read.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let limit = match hint {
            Some(0) | None => usize::MAX,
            hint => limit_of(hint),
        };
        let (lines, source) = (text::list(py)?, self.source()?);
        let mut total = 0;
        while total < limit {
            let next = source.read_line(py, usize::MAX)?;
            if next.as_bytes().is_empty() {
                break;
            }
            total += next.as_bytes().len();
            lines.append(next)?;
        }
        Ok(lines)
    }

    /// Reads into a writable buffer; how many bytes.
    fn readinto(&self, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = buffer.py();
        let view = PyMemoryView::from(buffer)?;
        if view.getattr(name!(py, readonly))?.is_truthy()? {
            return Err(PyTypeError::saying("readinto needs a writable buffer"));
        }
        let size: usize = view.getattr(name!(py, nbytes))?.extract()?;
        if size == 0 {
            return Ok(0);
        }
        let view = view.call_method1(name!(py, cast), (name!(py, format_bytes),))?;
        let bytes = self.source()?.read_up_to(py, size)?;
        let read = bytes.as_bytes().len();
        view.set_item(PySlice::new(py, 0, read.cast_signed(), 1), bytes)?;
        Ok(read)
    }

    #[expect(clippy::unused_self, reason = "io's protocol asks for a method")]
    fn readable(&self) -> bool {
        true
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.readline(py, None)?;
        if line.as_bytes().is_empty() {
            return Err(PyErr::new::<PyStopIteration, _>(()));
        }
        Ok(line)
    }
}

fn limit_of(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}
