//! When the coroutine that runs must not be switched away from.
//!
//! Two kinds of C code keep state of their own for the stack they run on, and would find another
//! stack's there. Not here: what to do instead (block, or raise).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::{meinheld_tstate_gilstate_depth, meinheld_tstate_modules_changed};

/// Why the coroutine that runs cannot suspend now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A C library called back into Python through `PyGILState_Ensure`, and expects the
    /// callbacks to end in the reverse order of their beginnings.
    InsideCallback,
    /// A child greenlet runs, whose parent's frames are not on this stack.
    InsideGreenlet,
}

impl fmt::Display for Refusal {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::InsideCallback => "cannot suspend inside a callback from a C library",
            Self::InsideGreenlet => "cannot suspend inside a child greenlet",
        })
    }
}

/// Why the coroutine that runs must not suspend now, or `None` if it may.
pub(crate) fn suspend_refusal(py: Python<'_>) -> Option<Refusal> {
    // SAFETY: attached, by `py`.
    if unsafe { meinheld_tstate_gilstate_depth() } > 1 {
        Some(Refusal::InsideCallback)
    } else if in_child_greenlet(py) {
        Some(Refusal::InsideGreenlet)
    } else {
        None
    }
}

fn in_child_greenlet(py: Python<'_>) -> bool {
    let Some(getcurrent) = greenlet_getcurrent(py) else { return false };
    let parent = getcurrent.call0().and_then(|current| current.getattr(intern!(py, "parent")));
    // Who cannot tell must not leave.
    parent.map_or(true, |parent| !parent.is_none())
}

/// `greenlet.getcurrent`, if anything has imported the package.
fn greenlet_getcurrent(py: Python<'_>) -> Option<&Bound<'_, PyAny>> {
    static GETCURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    /// Whether it was not among the modules when these were looked at last.
    static ABSENT: AtomicBool = AtomicBool::new(false);

    if let Some(known) = GETCURRENT.get(py) {
        return Some(known.bind(py));
    }
    // SAFETY: attached, by `py`.
    let changed = unsafe { meinheld_tstate_modules_changed() } != 0;
    if !changed && ABSENT.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: attached, by `py`. The interpreter lends its dict of modules, and keeps it.
    let modules = unsafe { Bound::from_borrowed_ptr(py, ffi::PyImport_GetModuleDict()) };
    let greenlet = modules.cast_into::<PyDict>().ok()?.get_item(intern!(py, "greenlet")).ok()?;
    ABSENT.store(greenlet.is_none(), Ordering::Relaxed);
    let found = greenlet?.getattr(intern!(py, "getcurrent")).ok()?.unbind();
    Some(GETCURRENT.get_or_init(py, || found).bind(py))
}
