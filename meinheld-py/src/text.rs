//! Bytes of the wire as str objects (PEP 3333, "Unicode Issues"), without a detour by UTF-8.
//!
//! Not here: what the bytes mean.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

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
