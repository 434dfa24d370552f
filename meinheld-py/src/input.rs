//! `wsgi.input`: the request's body as a file, read from the client as the application asks.
//!
//! PEP 3333, "Input and Error Streams". Reading past the end gives `b""`; a body that the client cuts
//! short or corrupts raises, and never looks like a shorter one. Reading may park the request.

use std::cell::RefCell;

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::errors::from_io;
use crate::lane::{Lane, SharedLane, lane_of};
use crate::thread_bound::ThreadBound;

/// How much is read at a time when the application asks for lines, or for everything.
const READ_BYTES: usize = 64 * 1024;

/// The request's body.
#[pyclass(frozen, module = "meinheld.server", name = "Input")]
pub(crate) struct Input {
    lane: SharedLane,
    /// What was read beyond the end of a line.
    ahead: ThreadBound<RefCell<Vec<u8>>>,
}

impl Input {
    pub(crate) fn new(lane: Lane) -> Input {
        let ahead = ThreadBound::new(RefCell::default());
        Input { lane: ThreadBound::new(lane), ahead }
    }

    fn ahead(&self) -> &RefCell<Vec<u8>> {
        self.ahead
            .get()
            .expect("the lane was found to be this thread's, and both were made together")
    }

    /// Reads until `limit` bytes are there, or the end of the body.
    fn read_up_to(&self, lane: &Lane, limit: usize) -> PyResult<Vec<u8>> {
        let mut bytes = std::mem::take(&mut *self.ahead().borrow_mut());
        while bytes.len() < limit {
            if self.read_more(lane, &mut bytes, limit)? == 0 {
                break;
            }
        }
        self.keep_ahead(&mut bytes, limit);
        Ok(bytes)
    }

    /// Reads until the end of a line, `limit` bytes, or the end of the body.
    fn read_line(&self, lane: &Lane, limit: usize) -> PyResult<Vec<u8>> {
        let mut bytes = std::mem::take(&mut *self.ahead().borrow_mut());
        let mut searched = 0;
        let end = loop {
            if let Some(at) = bytes[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + at + 1;
            }
            searched = bytes.len();
            if bytes.len() >= limit || self.read_more(lane, &mut bytes, usize::MAX)? == 0 {
                break bytes.len();
            }
        };
        self.keep_ahead(&mut bytes, end.min(limit));
        Ok(bytes)
    }

    /// Reads once, towards `limit` bytes in all. What was read is kept if reading fails.
    fn read_more(&self, lane: &Lane, bytes: &mut Vec<u8>, limit: usize) -> PyResult<usize> {
        let filled = bytes.len();
        let wanted = (limit - filled).min(READ_BYTES.max(filled));
        bytes.resize(filled + wanted, 0);
        let read = lane.work(|exchange| exchange.read_body(&mut bytes[filled..]));
        let read = read.and_then(|read| read.map_err(from_io));
        bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
        if read.is_err() {
            *self.ahead().borrow_mut() = std::mem::take(bytes);
        }
        read
    }

    fn keep_ahead(&self, bytes: &mut Vec<u8>, end: usize) {
        if bytes.len() > end {
            *self.ahead().borrow_mut() = bytes.split_off(end);
        }
    }
}

#[pymethods]
impl Input {
    /// Reads up to `size` bytes, all of the body if it is negative or None.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.read_up_to(lane_of(&self.lane)?, limit_of(size))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Reads a line with its newline, up to `size` bytes of it.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.read_line(lane_of(&self.lane)?, limit_of(size))?;
        Ok(PyBytes::new(py, &line))
    }

    /// Reads lines until the end, or until `hint` bytes have been read.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let limit = match hint {
            Some(0) | None => usize::MAX,
            hint => limit_of(hint),
        };
        let lane = lane_of(&self.lane)?;
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < limit {
            let next = self.read_line(lane, usize::MAX)?;
            if next.is_empty() {
                break;
            }
            total += next.len();
            lines.append(PyBytes::new(py, &next))?;
        }
        Ok(lines)
    }

    /// Reads into a writable buffer; how many bytes.
    fn readinto(&self, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = pyo3::types::PyMemoryView::from(buffer)?.call_method1("cast", ("B",))?;
        let size = view.len()?;
        let bytes = self.read_up_to(lane_of(&self.lane)?, size)?;
        let target = pyo3::types::PySlice::new(buffer.py(), 0, bytes.len().cast_signed(), 1);
        view.set_item(target, PyBytes::new(buffer.py(), &bytes))?;
        Ok(bytes.len())
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
            return Err(PyStopIteration::new_err(()));
        }
        Ok(line)
    }
}

fn limit_of(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}
