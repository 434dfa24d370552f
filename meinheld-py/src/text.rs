//! str and bytes objects: a str of bytes of the wire (PEP 3333, "Unicode Issues"), without a detour by
//! UTF-8; and those that end in a `MemoryError` where `PyO3` would panic.
//!
//! Not here: what the bytes mean.

use std::borrow::Cow;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// Text that a method returns.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'py> IntoPyObject<'py> for Text<'_> {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        utf_8(py, &self.0)
    }
}

/// Bytes as a native string whose characters are those bytes.
///
/// # Panics
/// When there is no memory for it.
pub(crate) fn latin_1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    // A slice is never longer than isize::MAX.
    let length = bytes.len().cast_signed();
    let kind = ffi::PyUnicode_1BYTE_KIND.cast_signed();
    // SAFETY: attached, by `py`. The call copies `length` bytes that the slice lends, and gives a new
    // reference to a str, or null with an exception set, which ends in a panic.
    unsafe {
        let text = ffi::PyUnicode_FromKindAndData(kind, bytes.as_ptr().cast(), length);
        Bound::from_owned_ptr(py, text).cast_into_unchecked()
    }
}

/// Text as a str.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn utf_8<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyString>> {
    // A str is never longer than isize::MAX.
    let length = text.len().cast_signed();
    // SAFETY: attached, by `py`. The call copies `length` bytes that the str lends, and gives a new
    // reference to a str, or null with an exception set.
    unsafe {
        let text = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), length);
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// A number and a text as a tuple.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn numbered<'py>(
    py: Python<'py>,
    number: i32,
    text: &str,
) -> PyResult<Bound<'py, PyTuple>> {
    let text = utf_8(py, text)?;
    // SAFETY: attached, by `py`. The format asks for an int and for an object, which is lent and lives
    // until the call returns: a new reference to a tuple, or null with an exception set.
    unsafe {
        let pair = ffi::Py_BuildValue(c"(iO)".as_ptr(), number, text.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(py, pair)?.cast_into_unchecked())
    }
}

/// Bytes as a bytes object.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |copy| {
        copy.copy_from_slice(bytes);
        Ok(())
    })
}
