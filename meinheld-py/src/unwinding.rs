//! Calls of Python code that may be the last thing that a daemon thread does.
//!
//! Python code gives the GIL up and takes it back. Up to 3.13 a thread that wants it back when the
//! interpreter has ended is ended by unwinding its stack (`pthread_exit`), and that aborts the process
//! where it comes to Rust code, which `PyO3` has told that such calls never unwind. Here a frame of C
//! is in between (`unwinding.c`), in which the thread stops for good instead, as 3.14 has it, and the
//! process ends in peace. Not here: which calls take long enough for that to happen.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};

// What `unwinding.c` offers: the functions of CPython of these names. Each needs the GIL.
unsafe extern "C" {
    fn meinheld_call(
        function: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
    ) -> *mut ffi::PyObject;
    fn meinheld_call_with(
        function: *mut ffi::PyObject,
        arguments: *mut ffi::PyObject,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    fn meinheld_next(iterator: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Calls a function with these arguments.
///
/// # Errors
/// What it raises.
#[inline]
pub(crate) fn call<'py, const COUNT: usize>(
    function: &Bound<'py, PyAny>,
    arguments: [&Bound<'py, PyAny>; COUNT],
) -> PyResult<Bound<'py, PyAny>> {
    let row = arguments.map(Bound::as_ptr);
    // SAFETY: attached, by `function`. It and the arguments are borrowed, and so alive; what comes back
    // is a new reference, or null with an exception set.
    unsafe {
        let returned = meinheld_call(function.as_ptr(), row.as_ptr(), COUNT);
        Bound::from_owned_ptr_or_err(function.py(), returned)
    }
}

/// Calls a function with positional arguments, and with named ones if there are any.
///
/// # Errors
/// What it raises.
pub(crate) fn call_with<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let keywords = keywords.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: as in `call`; null is no keywords.
    unsafe {
        let returned = meinheld_call_with(function.as_ptr(), arguments.as_ptr(), keywords);
        Bound::from_owned_ptr_or_err(function.py(), returned)
    }
}

/// The next item of an iterator; `None` at its end.
///
/// # Errors
/// What it raises.
#[inline]
pub(crate) fn next<'py>(iterator: &Bound<'py, PyIterator>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: attached, by `iterator`, which is borrowed, and so alive, and is an iterator; what comes
    // back is a new reference, or null, with an exception set or not.
    let item =
        unsafe { Bound::from_owned_ptr_or_opt(iterator.py(), meinheld_next(iterator.as_ptr())) };
    match item {
        Some(item) => Ok(Some(item)),
        None => PyErr::take(iterator.py()).map_or(Ok(None), Err),
    }
}
