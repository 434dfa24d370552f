//! Work for the loop's thread that comes from elsewhere: from other threads, and before the server
//! runs. It waits here until the loop takes it in, first in, first out.
//!
//! Not here: what the work is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use crate::failures::Failures;
use crate::fork::is_child;
use crate::server;

type Work = Box<dyn FnOnce(Python<'_>) + Send>;

static WAITING: Mutex<Vec<Work>> = Mutex::new(Vec::new());
/// Whether anything has come since the loop looked last; to be asked often, without the lock.
static PENDING: AtomicBool = AtomicBool::new(false);

/// Runs `work` on the loop's thread: now if this is it, else as soon as the loop turns.
pub(crate) fn on_loop(py: Python<'_>, work: impl FnOnce(Python<'_>) + Send + 'static) {
    if Failures::current().is_some() {
        return work(py);
    }
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(work));
    PENDING.store(true, Ordering::Release);
    // The bell of a forked process is its parent's.
    if !is_child() {
        server::wake();
    }
}

/// Does what has come. To be called on the loop's thread, in each turn.
pub(crate) fn take_in(py: Python<'_>) {
    if !PENDING.swap(false, Ordering::Acquire) {
        return;
    }
    let waiting = std::mem::take(&mut *WAITING.lock().unwrap_or_else(PoisonError::into_inner));
    for work in waiting {
        work(py);
    }
}
