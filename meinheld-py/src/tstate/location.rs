//! Where Python code stands, kept so cheaply that every suspension can afford it.
//!
//! Not here: stack walks, frame objects.

use std::ffi::c_int;

use crate::names::name;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCode;

use super::meinheld_tstate_location;

/// A place in Python code: a code object and the offset of an instruction in it, in bytes.
pub(crate) struct Location {
    code: Py<PyCode>,
    instruction: c_int,
}

/// Where the innermost Python frame that runs now stands; `None` if none runs.
pub(crate) fn location(py: Python<'_>) -> Option<Location> {
    let mut instruction = 0;
    // SAFETY: attached, by `py`. What comes back is null or a new reference to a code object.
    let code = unsafe {
        let code = meinheld_tstate_location(&raw mut instruction);
        Bound::from_owned_ptr_or_opt(py, code)?.cast_into_unchecked::<PyCode>()
    };
    Some(Location { code: code.unbind(), instruction })
}

impl Location {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Location {
        Location { code: self.code.clone_ref(py), instruction: self.instruction }
    }

    /// `file.py:123 in name`.
    pub(crate) fn describe(&self, py: Python<'_>) -> String {
        let code = self.code.bind(py);
        let file = code.getattr(name!(py, co_filename));
        let name = code.getattr(name!(py, co_qualname));
        match (file, name) {
            (Ok(file), Ok(name)) => format!("{file}:{} in {name}", self.line(py)),
            _ => String::from("unknown code"),
        }
    }

    /// The line number, or -1 where the code object has none for this instruction.
    fn line(&self, py: Python<'_>) -> c_int {
        // SAFETY: attached, by `py`, and `code` is a code object, which `location` saw to.
        unsafe { ffi::PyCode_Addr2Line(self.code.bind(py).as_ptr().cast(), self.instruction) }
    }
}
