//! The GIL, where no token of PyO3's can be carried: at the edge between the loop and Python.
//!
//! The loop runs on one thread, which holds the GIL throughout [`crate::server::run`] but for
//! [`released`]. All code that the loop calls, on its own stack or on a request's, is therefore
//! attached.

use std::cell::{RefCell, RefMut};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The token of the thread that the loop runs on.
pub(crate) fn attached<'py>() -> Python<'py> {
    // SAFETY: called from the loop's callbacks only, all of which run attached (see above), and from the
    // collector's. The token is used within the callback and stored nowhere.
    unsafe { Python::assume_attached() }
}

/// Gives the GIL up while `wait` blocks, which must touch nothing of Python's and not switch.
pub(crate) fn released(wait: &mut dyn FnMut()) {
    // SAFETY: the thread is attached (see above), and is again when this returns. `wait` is the
    // loop's call of epoll_wait(2), which neither touches Python nor switches to a request.
    unsafe {
        let thread = ffi::PyEval_SaveThread();
        wait();
        ffi::PyEval_RestoreThread(thread);
    }
}

/// Has an exception of a class raised in the Python code that a thread runs, as soon as it runs any.
pub(crate) fn raise_in(thread: i64, class: &Bound<'_, PyType>) {
    // SAFETY: attached, by `class`, which the interpreter takes a reference of. A number that is no
    // thread's does nothing.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, class.as_ptr()) };
}

/// Runs the handlers of signals that have come; does nothing but on the main thread.
///
/// # Errors
/// What a handler raised.
pub(crate) fn check_signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}

/// A value that the GIL guards, in place of a lock: for what is looked at so often that an atomic
/// operation is felt.
pub(crate) struct Guarded<T>(RefCell<T>);

// SAFETY: the cell is reached with the proof that its thread is attached, and there is one such thread at
// a time (free-threaded builds are refused). What is borrowed is no longer so than the proof holds, and
// is not `Send`, so that no code that gives the GIL up can take it along. Should such code run
// meanwhile, others find the cell borrowed, and panic.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Guarded<T> {
        Guarded(RefCell::new(value))
    }

    /// Calls `use_it`, which runs no code of Python's: nothing is dropped in it.
    pub(crate) fn with<R>(&self, _py: Python<'_>, use_it: impl FnOnce(&mut T) -> R) -> R {
        use_it(&mut self.0.borrow_mut())
    }

    /// The value, for code that runs none of Python's until it lets go of it.
    pub(crate) fn lock<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// The same, unless somebody has it.
    pub(crate) fn try_lock<'a>(&'a self, _py: Python<'a>) -> Option<RefMut<'a, T>> {
        self.0.try_borrow_mut().ok()
    }
}
