//! Whether anybody but its owner still has an object, and whether a dict has been changed.
//!
//! ```text
//!   counted      locals, containers, frames, tracebacks: Py_REFCNT
//!   not counted  weak references, which find the object as long as it lives
//! ```
//!
//! Classes of ours cannot be weakly referenced, but built-in functions can. Not here: what follows.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

/// Whether `owners` references to the object are all there are, where weak ones are not possible.
pub(crate) fn has_only<T>(_py: Python<'_>, object: &Py<T>, owners: isize) -> bool {
    // SAFETY: attached, by the token. The object is alive, since a reference is lent.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == owners }
}

/// The same for a built-in method, which must not be weakly referenced either, nor have been given a
/// `__module__`, the only attribute that it takes.
pub(crate) fn function_has_only(py: Python<'_>, function: &Py<PyCFunction>, owners: isize) -> bool {
    let object: *const ffi::PyCFunctionObject = function.as_ptr().cast();
    // SAFETY: attached, by `py`, so that nobody changes the object meanwhile. It is alive, since a
    // reference is lent, and a `PyCFunctionObject`, since its type was checked when it was cast.
    let (weak, module) = unsafe { ((*object).m_weakreflist, (*object).m_module) };
    has_only(py, function, owners) && weak.is_null() && module.is_null()
}

/// Whether [`dict_version`] tells anything: `CPython` counts up to 3.13.
pub(crate) const DICTS_HAVE_VERSIONS: bool = cfg!(not(Py_3_14));

/// A number that a dict has until it is changed, and that no dict ever has again; or zero.
pub(crate) fn dict_version(dict: &Bound<'_, PyDict>) -> u64 {
    let object: *const ffi::PyDictObject = dict.as_ptr().cast();
    // SAFETY: attached, by the token in `dict`, so that nobody changes it meanwhile. It is alive, and a
    // dict, since its type was checked when it was cast.
    unsafe { version_in(&*object) }
}

#[cfg(not(Py_3_14))]
#[allow(deprecated, reason = "it goes without a successor")]
fn version_in(dict: &ffi::PyDictObject) -> u64 {
    dict.ma_version_tag
}

#[cfg(Py_3_14)]
fn version_in(_dict: &ffi::PyDictObject) -> u64 {
    0
}
