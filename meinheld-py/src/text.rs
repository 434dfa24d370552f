//! str and bytes objects, and what is made of them: a str of bytes of the wire (PEP 3333, "Unicode
//! Issues"), without a detour by UTF-8; and those that end in a `MemoryError` where `PyO3` would panic.
//!
//! Not here: what the bytes mean.

use std::borrow::Cow;
use std::ffi::c_int;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

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

/// A number that a method returns.
pub(crate) struct Number(pub(crate) u64);

impl<'py> IntoPyObject<'py> for Number {
    type Target = PyInt;
    type Output = Bound<'py, PyInt>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyInt>> {
        // SAFETY: attached, by `py`: a new reference to an int, or null with an exception set.
        unsafe {
            let number = ffi::PyLong_FromUnsignedLongLong(self.0);
            made(py, number)
        }
    }
}

/// A number that need not be whole, which a method returns.
pub(crate) struct Fraction(pub(crate) f64);

impl<'py> IntoPyObject<'py> for Fraction {
    type Target = PyFloat;
    type Output = Bound<'py, PyFloat>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyFloat>> {
        // SAFETY: attached, by `py`: a new reference to a float, or null with an exception set.
        unsafe {
            let number = ffi::PyFloat_FromDouble(self.0);
            made(py, number)
        }
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
        made(py, text)
    }
}

/// Text as a str that everybody shares.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn interned(py: Python<'_>, text: &str) -> PyResult<Py<PyString>> {
    let mut text = utf_8(py, text)?.into_ptr();
    // SAFETY: attached, by `py`. The call takes the reference to a str, and gives one to the shared str
    // in its place, or the same one.
    unsafe {
        ffi::PyUnicode_InternInPlace(&raw mut text);
        Ok(made(py, text)?.unbind())
    }
}

/// An empty list.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn list(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    // SAFETY: attached, by `py`: a new reference to a list, or null with an exception set.
    unsafe { made(py, ffi::PyList_New(0)) }
}

/// Two texts as a tuple.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn pair<'py>(py: Python<'py>, one: &str, other: &str) -> PyResult<Bound<'py, PyTuple>> {
    let (one, other) = (utf_8(py, one)?, utf_8(py, other)?);
    // SAFETY: attached, by `py`. The format asks for two objects, which are lent and live until the
    // call returns: a new reference to a tuple, or null with an exception set.
    unsafe {
        let pair = ffi::Py_BuildValue(c"(OO)".as_ptr(), one.as_ptr(), other.as_ptr());
        made(py, pair)
    }
}

/// A host and its port as a tuple.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn host_and_port<'py>(
    py: Python<'py>,
    host: &str,
    port: u16,
) -> PyResult<Bound<'py, PyTuple>> {
    let host = utf_8(py, host)?;
    // SAFETY: attached, by `py`. The format asks for an object, which is lent and lives until the call
    // returns, and for an int: a new reference to a tuple, or null with an exception set.
    unsafe {
        let pair = ffi::Py_BuildValue(c"(Oi)".as_ptr(), host.as_ptr(), c_int::from(port));
        made(py, pair)
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
        made(py, pair)
    }
}

/// What a call of the interpreter has made, or its exception.
///
/// # Safety
/// `object` is a new reference to a `T`, or null with an exception set.
#[inline]
unsafe fn made<T>(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Bound<'_, T>> {
    // SAFETY: the caller's promise.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked()) }
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
