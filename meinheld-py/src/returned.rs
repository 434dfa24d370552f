//! What an application has returned: sent in the way that suits it, and closed.
//!
//! ```text
//!   one bytes in a list or tuple      with its length, and the head, in one call
//!   FileWrapper of a real file        by sendfile(2)
//!   other lists and tuples            with the length of all, piece by piece
//!   any other iterable                each piece as it comes
//! ```
//!
//! Not here: when the application is called, and what becomes of an error (see wsgi.rs).

use std::io;

use meinheld_core::Exchange;
use pyo3::exceptions::{PyAssertionError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyTupleMethods};

use crate::errors::from_io;
use crate::file_body::file_body;
use crate::file_wrapper::FileWrapper;
use crate::fork::leave_if_child;
use crate::lane::Lane;
use crate::names::name;
use crate::raising::{Saying, class_name};
use crate::start_response::body_bytes;
use crate::unwinding;

/// An application's iterable, and the lane of the request that it answers.
pub(crate) struct Returned<'a, 'py> {
    pub(crate) body: &'a Bound<'py, PyAny>,
    pub(crate) lane: &'a Lane,
}

impl<'py> Returned<'_, 'py> {
    /// Sends it, in the way that suits it.
    pub(crate) fn send(&self) -> PyResult<()> {
        if self.lane.is_answered() {
            // What was to be said has been said, in another protocol or on the descriptor itself.
            return Ok(());
        }
        if let Some(piece) = only_piece(self.body) {
            return self.send_only(&piece);
        }
        self.send_several()
    }

    /// Not inlined: most bodies are one piece, and their requests do well with a page of stack.
    #[inline(never)]
    fn send_several(&self) -> PyResult<()> {
        if let Ok(wrapper) = self.body.cast::<FileWrapper>() {
            return self.send_wrapped(wrapper);
        }
        if sequence_length(self.body).is_some() {
            self.announce_length()?;
        }
        self.send_pieces()
    }

    /// Calls its `close`, if it has one.
    pub(crate) fn close(&self) -> PyResult<()> {
        if sequence_length(self.body).is_some() {
            return Ok(());
        }
        let name = name!(self.body.py(), close);
        match self.body.getattr_opt(name)? {
            Some(close) => unwinding::call(&close, []).map(drop),
            None => Ok(()),
        }
    }

    fn send_pieces(&self) -> PyResult<()> {
        let pieces = self.body.try_iter().map_err(|error| iteration_error(self.body, error))?;
        loop {
            let piece = unwinding::next(&pieces);
            leave_if_child(self.body.py(), piece.as_ref().err());
            let Some(piece) = piece? else { break };
            if self.lane.is_answered() {
                return Ok(());
            }
            let bytes = body_bytes(&piece)?.as_bytes();
            if !bytes.is_empty() {
                self.check_started()?;
                if self.lane.wait(|exchange| send_piece(exchange, bytes))?.map_err(from_io)? {
                    return Ok(());
                }
            }
        }
        self.check_started()
    }

    /// The whole body in one piece: it goes out with its length, and the head, in one call.
    fn send_only(&self, piece: &Bound<'py, PyAny>) -> PyResult<()> {
        let bytes = body_bytes(piece)?.as_bytes();
        self.check_started()?;
        self.lane.wait(|exchange| exchange.write_last(bytes))?.map_err(from_io)
    }

    /// A list or tuple of bytes has a length as a whole.
    fn announce_length(&self) -> PyResult<()> {
        let mut total = 0;
        for piece in self.body.try_iter()? {
            total += body_bytes(&piece?)?.as_bytes().len() as u64;
        }
        self.lane.work(|exchange| exchange.announce_length(total))
    }

    /// A real file by sendfile(2).
    fn send_wrapped(&self, wrapper: &Bound<'py, FileWrapper>) -> PyResult<()> {
        let Some(file) = file_body(wrapper.get().file(wrapper.py()))? else {
            return self.send_pieces();
        };
        self.check_started()?;
        self.lane.wait(|exchange| file.send(exchange))?.map_err(from_io)
    }

    fn check_started(&self) -> PyResult<()> {
        if self.lane.is_started() || self.lane.is_answered() {
            return Ok(());
        }
        let message = "the application returned a body without having called start_response";
        Err(PyAssertionError::saying(message))
    }
}

/// Sends a piece; whether nothing after it would be sent, so that an endless body is not asked on.
fn send_piece(exchange: &mut Exchange, piece: &[u8]) -> io::Result<bool> {
    exchange.write_soon(piece)?;
    Ok(exchange.is_body_over())
}

/// The piece of a list or a tuple that has one.
fn only_piece<'py>(body: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if let Ok(list) = body.cast_exact::<PyList>() {
        return if list.len() == 1 { list.get_item(0).ok() } else { None };
    }
    let tuple = body.cast_exact::<PyTuple>().ok()?;
    if tuple.len() == 1 { tuple.get_item(0).ok() } else { None }
}

/// How many pieces a list or a tuple has; other iterables may not be asked.
fn sequence_length(body: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(list) = body.cast_exact::<PyList>() {
        return Some(list.len());
    }
    body.cast_exact::<PyTuple>().ok().map(PyTupleMethods::len)
}

/// Says what an application returned that is no iterable; what `__iter__` raised is its own.
fn iteration_error(body: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    if body.get_type().hasattr(name!(body.py(), iter)).unwrap_or(true) {
        return error;
    }
    let name = class_name(body);
    PyTypeError::saying(format!("the application returned {name}, not an iterable of bytes"))
}
