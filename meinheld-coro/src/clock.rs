//! The scheduler's clock, and its alarm: how a hub with nothing to do sleeps and is woken.
//!
//! Not here: deadlines (see timer.rs) and what to do when one has passed.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Which time a scheduler goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The system's monotonic clock.
    #[default]
    Monotonic,
    /// A clock that stands still while a task runs and jumps to the next deadline when all wait:
    /// a test of an hour's time-out takes no time, and gives the same order every time.
    Virtual,
}

/// A clock with its state.
pub(crate) struct Time {
    clock: Clock,
    /// The time of the last turn; on a virtual clock, the time.
    turn: Cell<Instant>,
}

impl Time {
    pub(crate) fn new(clock: Clock) -> Time {
        Time { clock, turn: Cell::new(Instant::now()) }
    }

    pub(crate) fn now(&self) -> Instant {
        match self.clock {
            Clock::Monotonic => Instant::now(),
            Clock::Virtual => self.turn.get(),
        }
    }

    /// The time of the last turn: free to read, and good enough to list who waits since when.
    pub(crate) fn turn(&self) -> Instant {
        self.turn.get()
    }

    /// Begins a turn at `now`.
    pub(crate) fn advance(&self, now: Instant) {
        self.turn.set(self.turn.get().max(now));
    }

    /// Sleeps until `deadline`, until `chore`, or until the thread is unparked. A virtual clock does
    /// not jump for a chore.
    pub(crate) fn wait(&self, deadline: Option<Instant>, chore: Option<Instant>) {
        let until = match self.clock {
            Clock::Virtual => deadline,
            Clock::Monotonic => [deadline, chore].into_iter().flatten().min(),
        };
        match (self.clock, until) {
            (Clock::Virtual, Some(until)) => self.advance(until),
            (Clock::Monotonic, Some(until)) => {
                thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            (_, None) => thread::park(),
        }
    }
}

/// A waker that unparks the calling thread.
pub(crate) fn thread_waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(thread::current())))
}
