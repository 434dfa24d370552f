//! Where a request that suspends and the code that resumes it meet: who waits, and what is handed over.
//!
//! ```text
//!                 suspend                        resume / throw
//!      ┌─ Idle ───────────▶ Suspended(ticket) ──────────────────▶ Resumed ─┐
//!      │    │                      │ time-out, cancel                      │ suspend
//!      │    │ resume from          ▼                                       │ returns
//!      │    │ another thread     Idle                                      │
//!      │    ▼                                                              │
//!      │   Kept ── suspend returns at once ──▶ Idle ◀──────────────────────┘
//!      └──── the request ends ──▶ Closed (from any state, for good)
//! ```
//!
//! They are the states of [`meinheld_coro::Continuation`]; but all who meet here hold the GIL, which
//! spares the atomic operations of a lock. Not here: waiting, and waking.

use meinheld_coro::{TaskId, Ticket};
use pyo3::prelude::*;

use crate::gil::Guarded;
use crate::tstate::Location;

/// What a resumer passes.
pub(crate) enum Delivery {
    Value(Py<PyAny>),
    Exception(Py<PyAny>),
}

/// The meeting point of one continuation.
pub(crate) struct Rendezvous(Guarded<Meeting>);

struct Meeting {
    task: TaskId,
    phase: Phase,
}

enum Phase {
    Idle,
    Suspended(Ticket),
    Resumed(Parcel),
    Kept(Parcel),
    /// With the parcel's place, if one was never taken.
    Closed(Option<Location>),
}

/// What was passed, and where that was done.
pub(crate) struct Parcel {
    pub(crate) delivery: Delivery,
    pub(crate) place: Option<Location>,
}

/// Why a request cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotSuspended,
    AlreadyResumed,
    Closed,
}

/// What a request that cannot wait finds.
pub(crate) enum Found {
    /// It was resumed before, from another thread.
    Kept,
    /// The request has ended.
    Closed,
    /// It waits already.
    Suspended,
}

impl Rendezvous {
    pub(crate) fn new(task: TaskId) -> Rendezvous {
        Rendezvous(Guarded::new(Meeting { task, phase: Phase::Idle }))
    }

    /// Calls `use_it` with the phase, under [`Guarded::with`]'s rule.
    fn with<R>(&self, py: Python<'_>, use_it: impl FnOnce(&mut Phase) -> R) -> R {
        self.0.with(py, |meeting| use_it(&mut meeting.phase))
    }

    /// Begins anew, for another task, as if it had just been made. For one that nobody else has.
    pub(crate) fn renew(&self, py: Python<'_>, task: TaskId) {
        let next = Meeting { task, phase: Phase::Idle };
        let before = self.0.with(py, |meeting| std::mem::replace(meeting, next));
        drop(before);
    }

    /// Whose it is.
    pub(crate) fn task(&self, py: Python<'_>) -> TaskId {
        self.0.with(py, |meeting| meeting.task)
    }

    /// Whether the request waits here, and nobody has resumed it.
    pub(crate) fn is_suspended(&self, py: Python<'_>) -> bool {
        self.with(py, |phase| matches!(phase, Phase::Suspended(_)))
    }

    /// Looks before the request waits; `None` if nothing is in its way.
    pub(crate) fn look(&self, py: Python<'_>) -> Option<Found> {
        self.with(py, |phase| match phase {
            Phase::Idle => None,
            Phase::Kept(_) => Some(Found::Kept),
            Phase::Closed(_) => Some(Found::Closed),
            Phase::Suspended(_) | Phase::Resumed(_) => Some(Found::Suspended),
        })
    }

    /// Notes that the request waits: it is woken by `ticket`.
    pub(crate) fn begin(&self, py: Python<'_>, ticket: Ticket) {
        self.with(py, |phase| {
            if matches!(phase, Phase::Idle) {
                *phase = Phase::Suspended(ticket);
            }
        });
    }

    /// Notes that the request waits no more, or need not; what it was resumed with, if it was.
    pub(crate) fn end(&self, py: Python<'_>) -> Option<Delivery> {
        let before = self.with(py, |phase| match phase {
            Phase::Closed(_) => None,
            _ => Some(std::mem::replace(phase, Phase::Idle)),
        });
        match before {
            Some(Phase::Resumed(parcel) | Phase::Kept(parcel)) => Some(parcel.delivery),
            _ => None,
        }
    }

    /// Leaves a parcel for the request that waits; whom to wake.
    ///
    /// # Errors
    /// Why it was not left, and the parcel.
    pub(crate) fn leave(
        &self,
        py: Python<'_>,
        parcel: Parcel,
    ) -> Result<Ticket, (Refused, Parcel)> {
        self.with(py, |phase| match *phase {
            Phase::Suspended(ticket) => {
                *phase = Phase::Resumed(parcel);
                Ok(ticket)
            }
            Phase::Idle => Err((Refused::NotSuspended, parcel)),
            Phase::Resumed(_) | Phase::Kept(_) => Err((Refused::AlreadyResumed, parcel)),
            Phase::Closed(_) => Err((Refused::Closed, parcel)),
        })
    }

    /// Keeps a parcel for the request's next wait, if nothing else is in its way.
    ///
    /// # Errors
    /// As [`leave`](Self::leave).
    pub(crate) fn keep(&self, py: Python<'_>, parcel: Parcel) -> Result<(), (Refused, Parcel)> {
        self.with(py, |phase| match phase {
            Phase::Idle => {
                *phase = Phase::Kept(parcel);
                Ok(())
            }
            Phase::Closed(_) => Err((Refused::Closed, parcel)),
            _ => Err((Refused::AlreadyResumed, parcel)),
        })
    }

    /// Ends it, for good; whom to wake.
    pub(crate) fn close(&self, py: Python<'_>) -> Option<Ticket> {
        let before = self.exchange(py, Phase::Closed(None));
        let place = match before {
            Phase::Suspended(ticket) => return Some(ticket),
            // What was passed is dropped here, which may run any code.
            Phase::Resumed(parcel) | Phase::Kept(parcel) => parcel.place,
            Phase::Closed(place) => place,
            Phase::Idle => None,
        };
        self.exchange(py, Phase::Closed(place));
        None
    }

    fn exchange(&self, py: Python<'_>, next: Phase) -> Phase {
        self.with(py, |phase| std::mem::replace(phase, next))
    }

    /// Where it was resumed last, if what was passed then has not been taken: `file.py:123 in name`.
    pub(crate) fn place(&self, py: Python<'_>) -> Option<String> {
        let place = self.with(py, |phase| match phase {
            Phase::Resumed(parcel) | Phase::Kept(parcel) => {
                parcel.place.as_ref().map(|it| it.clone_ref(py))
            }
            Phase::Closed(place) => place.as_ref().map(|it| it.clone_ref(py)),
            Phase::Idle | Phase::Suspended(_) => None,
        });
        place.map(|place| place.describe(py))
    }
}
