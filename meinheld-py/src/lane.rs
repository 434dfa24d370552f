//! A request's exchange, lent to the Python objects that the application holds.
//!
//! The application may keep `wsgi.input` or `write` for longer than the request, use one from
//! another thread, or from another request while the first waits in it. So an operation takes the
//! exchange out, works, and puts it back; who comes meanwhile, or after the end, gets an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use meinheld_core::Exchange;
use meinheld_coro::without_parking;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::gil::attached;
use crate::raising::Saying;
use crate::thread_bound::ThreadBound;
use crate::tstate::suspend_refusal;

/// Where a request's exchange is while nobody works with it.
#[derive(Clone)]
pub(crate) struct Lane {
    slot: Rc<Slot>,
}

struct Slot {
    exchange: Cell<Option<Exchange>>,
    ended: Cell<bool>,
    /// Whether the connection's bytes are no HTTP any more.
    upgraded: Cell<bool>,
    /// Whether no response is due: it has been upgraded, or muted.
    answered: Cell<bool>,
}

/// A lane inside a Python object.
pub(crate) type SharedLane = ThreadBound<Lane>;

impl Lane {
    /// A lane whose request has not begun.
    pub(crate) fn new() -> Lane {
        let (ended, upgraded, answered) = (Cell::new(false), Cell::new(false), Cell::new(false));
        Lane { slot: Rc::new(Slot { exchange: Cell::new(None), ended, upgraded, answered }) }
    }

    /// Begins: the exchange can be used from now on.
    pub(crate) fn open(&self, exchange: Exchange) {
        self.slot.exchange.set(Some(exchange));
    }

    /// Ends: hands the exchange back. `None` if another request is waiting in it.
    pub(crate) fn close(&self) -> Option<Exchange> {
        self.slot.ended.set(true);
        self.slot.exchange.take()
    }

    /// Notes that the exchange has been upgraded, so that no response is due.
    pub(crate) fn mark_upgraded(&self) {
        self.slot.upgraded.set(true);
        self.slot.answered.set(true);
    }

    /// Mutes the exchange, since the application answers by other means; or takes that back.
    pub(crate) fn mute(&self, muted: bool) -> PyResult<()> {
        self.work(|exchange| exchange.mute(muted))?;
        self.slot.answered.set(muted || self.slot.upgraded.get());
        Ok(())
    }

    /// Whether no response is due: the application has answered in another protocol, or by other means.
    pub(crate) fn is_answered(&self) -> bool {
        self.slot.answered.get()
    }

    /// Calls `work` with the exchange, which does not wait in it.
    pub(crate) fn work<R>(&self, work: impl FnOnce(&mut Exchange) -> R) -> PyResult<R> {
        let Some(mut exchange) = self.slot.exchange.take() else { return Err(self.refusal()) };
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut exchange)));
        self.slot.exchange.set(Some(exchange));
        Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// The same for work that may wait, where the code that calls may be left: not inside a C
    /// library's callback, say. There a wait is refused.
    pub(crate) fn wait<R>(&self, work: impl FnOnce(&mut Exchange) -> R) -> PyResult<R> {
        match suspend_refusal(attached()) {
            None => self.work(work),
            Some(_) => without_parking(|| self.work(work)),
        }
    }

    fn refusal(&self) -> PyErr {
        PyRuntimeError::saying(if self.slot.ended.get() {
            "the request that this belongs to has ended"
        } else {
            "another coroutine is waiting in this request's input or output"
        })
    }
}

/// The lane of a Python object, on the server's thread.
pub(crate) fn lane_of(shared: &SharedLane) -> PyResult<&Lane> {
    shared.get().ok_or_else(|| {
        PyRuntimeError::saying("a request's input and output belong to the server's thread")
    })
}
