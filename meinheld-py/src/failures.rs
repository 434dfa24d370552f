//! What goes wrong in a server's coroutines: it is logged, and ends the server if it would end a
//! program.
//!
//! Not here: how a log line is made (see log.rs), or what a client is told.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::prelude::*;

use crate::errors::{Stopped, TaskKilled};
use crate::fork::is_child;
use crate::log::{Logs, is_exit};

/// The failures of one server.
pub(crate) struct Failures {
    logs: Logs,
    /// What ends the server: an exception from a signal's handler, or `SystemExit` from a request.
    fatal: RefCell<Option<PyErr>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Failures>>> = const { RefCell::new(None) };
}

impl Failures {
    pub(crate) fn new(logs: Logs) -> Rc<Failures> {
        Rc::new(Failures { logs, fatal: RefCell::new(None) })
    }

    /// Those of the server that runs on this thread, in this process.
    pub(crate) fn current() -> Option<Rc<Failures>> {
        if is_child() { None } else { CURRENT.with_borrow(Clone::clone) }
    }

    /// Runs `function`, which runs the server, with these as the thread's.
    pub(crate) fn with_current<R>(self: &Rc<Self>, function: impl FnOnce() -> R) -> R {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        CURRENT.set(Some(Rc::clone(self)));
        let _leave = Leave;
        function()
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Logs an exception that nothing caught; one that ends a program ends the server.
    pub(crate) fn note(&self, py: Python<'_>, what: &str, error: PyErr) {
        self.logs.exception(py, what, &error);
        if is_exit(py, &error) {
            self.end_server(error);
        }
    }

    /// Ends the server; the first reason counts.
    pub(crate) fn end_server(&self, error: PyErr) {
        self.fatal.borrow_mut().get_or_insert(error);
    }

    /// Whether something ended the server.
    pub(crate) fn is_fatal(&self) -> bool {
        self.fatal.borrow().is_some()
    }

    /// The exception that ended the server, if one did.
    pub(crate) fn take_fatal(&self) -> Option<PyErr> {
        self.fatal.borrow_mut().take()
    }
}

/// Notes what a coroutine that is no request raised, unless it was made to end.
pub(crate) fn note_uncaught(py: Python<'_>, what: &str, error: &PyErr) {
    if error.is_instance_of::<Stopped>(py) || error.is_instance_of::<TaskKilled>(py) {
        return;
    }
    match Failures::current() {
        Some(failures) => failures.note(py, what, error.clone_ref(py)),
        None => error.clone_ref(py).write_unraisable(py, None),
    }
}
