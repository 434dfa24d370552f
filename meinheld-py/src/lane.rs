//! A request's exchange, lent to the Python objects that the application holds.
//!
//! The application may keep `wsgi.input` or `write` for longer than the request, use one from
//! another thread, or from another request while the first waits in it. So an operation takes the
//! exchange out, works, and puts it back; who comes meanwhile, or after the end, gets an error.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use meinheld_core::{Client, Exchange};
use meinheld_coro::without_parking;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::continuation::PyContinuation;
use crate::gil::attached;
use crate::raising::Saying;
use crate::thread_bound::ThreadBound;
use crate::tstate::suspend_refusal;

/// Where a request's exchange is while nobody works with it.
#[derive(Clone)]
pub(crate) struct Lane {
    slot: Rc<Slot>,
}

#[derive(Default)]
struct Slot {
    exchange: Cell<Option<Exchange>>,
    /// The client of the request, also of one that has ended.
    client: RefCell<Option<Client>>,
    /// Whether the application has called `start_response`.
    started: Cell<bool>,
    ended: Cell<bool>,
    /// Whether the connection's bytes are no HTTP any more.
    upgraded: Cell<bool>,
    /// Whether no response is due: it has been upgraded, or muted.
    answered: Cell<bool>,
    /// Whether the environ that the lane's objects go with has them already.
    equipped: Cell<bool>,
    made: Cell<Option<Box<Made>>>,
}

/// The continuations that the request's client has made, to be closed at its end.
#[derive(Default)]
struct Made(Vec<Py<PyContinuation>>);

/// An exchange that is worked with; it goes back in every ending, a panic too.
struct Taken<'a> {
    slot: &'a Slot,
    exchange: Option<Exchange>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.slot.exchange.set(self.exchange.take());
    }
}

/// A lane inside a Python object.
pub(crate) type SharedLane = ThreadBound<Lane>;

impl Lane {
    /// A lane whose request has not begun.
    pub(crate) fn new() -> Lane {
        Lane { slot: Rc::default() }
    }

    /// Begins a request: the exchange is taken out of its place, and can be used from now on. Whoever
    /// has the lane of an earlier request has this one's.
    pub(crate) fn open(&self, place: &mut Exchange) {
        let slot = &*self.slot;
        slot.client.replace(Some(place.client().clone()));
        for mark in [&slot.started, &slot.ended, &slot.upgraded, &slot.answered] {
            mark.set(false);
        }
        slot.exchange.set(Some(place.detach()));
    }

    /// Ends the request: the exchange goes back to its place. `false` if another request is waiting
    /// in it.
    pub(crate) fn close(&self, place: &mut Exchange) -> bool {
        self.slot.ended.set(true);
        let Some(exchange) = self.slot.exchange.take() else { return false };
        *place = exchange;
        true
    }

    /// Notes whether the environ that the lane's objects go with has them already.
    pub(crate) fn set_equipped(&self, equipped: bool) {
        self.slot.equipped.set(equipped);
    }

    /// Whether it has.
    pub(crate) fn is_equipped(&self) -> bool {
        self.slot.equipped.get()
    }

    /// Notes a continuation that is to be closed when the request ends. Of one that has ended none is
    /// noted: it has the lane, and each would keep the other for ever.
    pub(crate) fn note_made(&self, continuation: Py<PyContinuation>) {
        if self.slot.ended.get() {
            return;
        }
        let mut made = self.slot.made.take().unwrap_or_default();
        made.0.push(continuation);
        self.slot.made.set(Some(made));
    }

    /// The continuations that were noted, once.
    pub(crate) fn take_made(&self) -> impl Iterator<Item = Py<PyContinuation>> {
        self.slot.made.take().into_iter().flat_map(|made| made.0)
    }

    /// How many have the lane.
    pub(crate) fn owners(&self) -> usize {
        Rc::strong_count(&self.slot)
    }

    /// The client of the request; `None` before the first.
    pub(crate) fn client(&self) -> Option<Client> {
        self.slot.client.borrow().clone()
    }

    /// Notes that the application has called `start_response`.
    pub(crate) fn mark_started(&self) {
        self.slot.started.set(true);
    }

    /// Whether it has.
    pub(crate) fn is_started(&self) -> bool {
        self.slot.started.get()
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
        let exchange = self.slot.exchange.take();
        if exchange.is_none() {
            return Err(self.refusal());
        }
        let mut taken = Taken { slot: &self.slot, exchange };
        let exchange = taken.exchange.as_mut().expect("it was found to be there");
        Ok(work(exchange))
    }

    /// The same for work that may wait, where the code that calls may be left: not inside a C
    /// library's callback, say. There a wait is refused.
    pub(crate) fn wait<R>(&self, work: impl FnOnce(&mut Exchange) -> R) -> PyResult<R> {
        match suspend_refusal(attached()) {
            None => self.work(work),
            Some(_) => without_parking(|| self.work(work)),
        }
    }

    #[cold]
    #[inline(never)]
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
    in_request(shared)
}

/// What a Python object has of its request, on the server's thread.
pub(crate) fn in_request<T>(shared: &ThreadBound<T>) -> PyResult<&T> {
    shared.get().ok_or_else(elsewhere)
}

#[cold]
#[inline(never)]
fn elsewhere() -> PyErr {
    PyRuntimeError::saying("a request's input and output belong to the server's thread")
}
