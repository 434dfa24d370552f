//! Wake-ups from other threads: a queue beside the scheduler, and the alarm of its hub.
//!
//! Not here: what is handed over with a wake-up (see continuation.rs).

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::task::Ticket;

/// The part of a scheduler that other threads may touch.
pub(crate) struct Remote {
    tickets: Mutex<Vec<Ticket>>,
    /// INVARIANT: true whenever `tickets` is not empty, so that the hub need not lock to see none.
    pending: AtomicBool,
    waker: Waker,
}

impl Remote {
    pub(crate) fn new(waker: Waker) -> Remote {
        Remote { tickets: Mutex::new(Vec::new()), pending: AtomicBool::new(false), waker }
    }

    /// Has the hub wake the task that parked with `ticket`.
    pub(crate) fn wake(&self, ticket: Ticket) {
        let mut tickets = self.lock();
        tickets.push(ticket);
        self.pending.store(true, Ordering::Release);
        drop(tickets);
        self.waker.wake_by_ref();
    }

    /// Takes all tickets, in the order in which they came.
    pub(crate) fn take(&self) -> Vec<Ticket> {
        if !self.pending.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut tickets = self.lock();
        self.pending.store(false, Ordering::Release);
        mem::take(&mut tickets)
    }

    /// A panic while the lock is held is impossible but for the allocator's; the queue is whole in
    /// any case.
    fn lock(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
