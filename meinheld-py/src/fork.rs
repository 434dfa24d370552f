//! A process that a request has forked, and that comes back to the server instead of ending.
//!
//! It shares the connections and the loop's epoll with its parent, so that whatever it sends, closes
//! or watches would be done to the parent. It ends at once, as `os._exit` does.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use crate::names::name;
use crate::server;

/// Whether this process was forked since the server began to run.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Called in a child by `os.register_at_fork`.
#[pyfunction]
pub(crate) fn note_fork() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Called in a parent by `os.register_at_fork`.
#[pyfunction]
pub(crate) fn note_child() {
    server::note_child();
}

/// A server that begins to run belongs to this process.
pub(crate) fn forget() {
    FORKED.store(false, Ordering::Relaxed);
}

/// Whether this process was forked by a request.
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Ends this process if it is such a child; `raised` is what came out of its application.
pub(crate) fn leave_if_child(py: Python<'_>, raised: Option<&PyErr>) {
    if is_child() {
        leave(py, raised);
    }
}

#[cold]
fn leave(py: Python<'_>, raised: Option<&PyErr>) {
    let raised = raised.map(|error| error.value(py));
    let left = py
        .import(name!(py, meinheld_server))
        .and_then(|server| server.call_method1(name!(py, leave_forked_child), (raised,)));
    // It does not return; if it could not be called, nothing better is left.
    if left.is_err() {
        std::process::abort();
    }
}
