//! A Python file as something that sendfile(2) can send: its descriptor, where it stands, how long
//! it is.
//!
//! Only files that hold on disk what `read` returns: a `GzipFile` has a descriptor too, of bytes
//! that the application does not mean.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use meinheld_core::{Exchange, duplicate_file};
use pyo3::prelude::*;

use crate::names::name;

/// A regular file and the part of it to be sent.
pub(crate) struct FileBody {
    file: File,
    offset: u64,
    bytes: u64,
}

impl FileBody {
    /// Sends it as the whole body of a response.
    pub(crate) fn send(&self, exchange: &mut Exchange) -> io::Result<()> {
        exchange.send_file(self.file.as_fd(), self.offset, self.bytes)?;
        exchange.end()
    }
}

/// The file behind a Python object, from its current position; `None` if it has to be read instead.
pub(crate) fn file_body(object: &Bound<'_, PyAny>) -> PyResult<Option<FileBody>> {
    let py = object.py();
    let Some(object) = raw_file(object)? else { return Ok(None) };
    let fd: i32 = object.call_method0(name!(py, fileno))?.extract()?;
    // A copy of the descriptor, since the application may close its own while this waits.
    let file = duplicate_file(fd)?;
    // A file of no length may be one that the kernel makes up as it is read (/proc).
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(None);
    }
    object.call_method0(name!(py, flush))?;
    let position: u64 = object.call_method0(name!(py, tell))?.extract()?;
    let bytes = file.metadata()?.len().saturating_sub(position);
    Ok(Some(FileBody { file, offset: position, bytes }))
}

/// The object itself, or what a temporary file wraps, if it is one of io's own for a real file. A
/// subclass may give other bytes than its file has.
fn raw_file<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let io = py.import(name!(py, io))?;
    let file_io = io.getattr(name!(py, file_io))?;
    let inner = unwrapped(object)?;
    let kind = inner.get_type();
    if kind.is(&file_io) {
        return Ok(Some(inner));
    }
    let is_buffered = kind.is(&io.getattr(name!(py, buffered_reader))?)
        || kind.is(&io.getattr(name!(py, buffered_random))?);
    let is_real = is_buffered && inner.getattr(name!(py, raw))?.get_type().is(&file_io);
    Ok(is_real.then_some(inner))
}

/// What `tempfile.NamedTemporaryFile` gave, without what it is wrapped in.
fn unwrapped<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let module = object.get_type().getattr_opt(name!(py, module))?;
    let is_temporary = match module {
        Some(module) => module.eq(name!(py, tempfile))?,
        None => false,
    };
    let inner = if is_temporary { object.getattr_opt(name!(py, file))? } else { None };
    Ok(inner.unwrap_or_else(|| object.clone()))
}
