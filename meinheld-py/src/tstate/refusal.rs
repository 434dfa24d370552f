//! When the coroutine that runs must not be switched away from.
//!
//! Two kinds of C code keep state of their own for the stack they run on, and would find another
//! stack's there. Not here: what to do instead (block, or raise).

use std::ffi::c_int;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::names::name;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::meinheld_tstate_before_switch;

/// What `meinheld_tstate_before_switch` tells.
const IN_CALLBACK: c_int = 1;
const MODULES_CHANGED: c_int = 2;

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

/// `greenlet.getcurrent`, once anything has imported the package.
static GETCURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Why the coroutine that runs must not suspend now, or `None` if it may.
pub(crate) fn suspend_refusal(py: Python<'_>) -> Option<Refusal> {
    /// Whether greenlet was not among the modules when these were looked at last.
    static ABSENT: AtomicBool = AtomicBool::new(false);

    // SAFETY: attached, by `py`.
    let before = unsafe { meinheld_tstate_before_switch() };
    if before == 0 && ABSENT.load(Ordering::Relaxed) {
        return None;
    }
    if before == IN_CALLBACK {
        return Some(Refusal::InsideCallback);
    }
    if before == MODULES_CHANGED || GETCURRENT.get(py).is_none() {
        ABSENT.store(is_absent(py), Ordering::Relaxed);
    }
    in_child_greenlet(py).then_some(Refusal::InsideGreenlet)
}

/// Looks for greenlet among the modules.
fn is_absent(py: Python<'_>) -> bool {
    if GETCURRENT.get(py).is_some() {
        return false;
    }
    // SAFETY: attached, by `py`. The interpreter lends its dict of modules, and keeps it.
    let modules = unsafe { Bound::from_borrowed_ptr(py, ffi::PyImport_GetModuleDict()) };
    let Ok(modules) = modules.cast_into::<PyDict>() else { return false };
    let Ok(greenlet) = modules.get_item(name!(py, greenlet)) else { return false };
    let Some(greenlet) = greenlet else { return true };
    // While it is being imported it has none yet.
    if let Ok(getcurrent) = greenlet.getattr(name!(py, getcurrent)) {
        GETCURRENT.get_or_init(py, || getcurrent.unbind());
    }
    false
}

fn in_child_greenlet(py: Python<'_>) -> bool {
    let Some(getcurrent) = GETCURRENT.get(py) else { return false };
    let current = getcurrent.bind(py).call0();
    let parent = current.and_then(|current| current.getattr(name!(py, parent)));
    // Who cannot tell must not leave.
    parent.map_or(true, |parent| !parent.is_none())
}
