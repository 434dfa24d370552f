//! The continuation: one task suspends, any other code resumes it with a value.
//!
//! ```text
//!                 suspend                       resume / throw
//!      ┌─ Idle ───────────▶ Suspended(ticket) ──────────────────▶ Resumed(message) ─┐
//!      │    │                      │ time-out, cancel                               │ suspend
//!      │    │ resume from          ▼                                                │ returns
//!      │    │ another thread     Idle                                               │
//!      │    ▼                                                                       │
//!      │  Kept(message) ── suspend returns at once ──▶ Idle ◀───────────────────────┘
//!      └──── close ──▶ Closed (from any state, for good)
//! ```
//!
//! On the scheduler's own thread a resume that nobody waits for is a mistake, and an error. From
//! another thread it may simply have come early: it is kept for the next suspend, so that no
//! wake-up is lost. Not here: the ready queue and the switch.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{BoxError, Interrupt, Refusal};
use crate::hub::Hub;
use crate::remote::Remote;
use crate::task::{TaskId, Ticket, Wake};

/// A point at which one task waits for a `T`, and the means to pass it one.
///
/// Clones are the same continuation. It is `Send` if `T` is: any thread may resume it, only its own
/// task may suspend it.
pub struct Continuation<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    task: TaskId,
    remote: Arc<Remote>,
    phase: Mutex<Phase<T>>,
}

enum Phase<T> {
    Idle,
    Suspended(Ticket),
    Resumed(Message<T>, &'static Location<'static>),
    Kept(Message<T>, &'static Location<'static>),
    Closed,
}

enum Message<T> {
    Value(T),
    Error(BoxError),
}

/// Why a continuation could not be resumed; what was to be passed comes back with it.
#[derive(Debug)]
pub struct ResumeError<T> {
    /// Why.
    pub reason: ResumeRefusal,
    /// The value or error that was not delivered.
    pub undelivered: T,
}

/// The reasons of a [`ResumeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResumeRefusal {
    /// Its task does not wait on it now.
    NotSuspended,
    /// It has been resumed, at this place, and its task has not run since.
    AlreadyResumed(&'static Location<'static>),
    /// Its task has ended, or has closed it.
    Closed,
}

impl<T> fmt::Display for ResumeError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            ResumeRefusal::NotSuspended => f.write_str("not suspended"),
            ResumeRefusal::AlreadyResumed(place) => write!(f, "already resumed at {place}"),
            ResumeRefusal::Closed => f.write_str("its task has ended"),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for ResumeError<T> {}

impl<T> fmt::Debug for Continuation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Continuation").field("task", &self.task()).finish_non_exhaustive()
    }
}

impl<T> Clone for Continuation<T> {
    fn clone(&self) -> Self {
        Continuation { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Continuation<T> {
    /// The continuation of the running task, or `None` outside of a task. Each call makes a new
    /// one; a task may have several.
    pub fn current() -> Option<Continuation<T>> {
        let hub = Hub::current()?;
        let shared = Shared {
            task: hub.current_task()?,
            remote: Arc::clone(hub.remote()),
            phase: Mutex::new(Phase::Idle),
        };
        Some(Continuation { shared: Arc::new(shared) })
    }

    /// Which task this belongs to.
    pub fn task(&self) -> TaskId {
        self.shared.task
    }

    /// Whether its task waits on it now.
    pub fn is_suspended(&self) -> bool {
        matches!(*self.lock(), Phase::Suspended(_))
    }

    /// Parks the task until it is resumed, for `timeout` at the most.
    ///
    /// # Errors
    /// [`Interrupt::TimedOut`], [`Interrupt::Thrown`] for what was passed to [`throw`](Self::throw),
    /// [`Interrupt::Cancelled`], and [`Interrupt::Refused`] without having waited when called from
    /// another task or where a task may not park.
    #[track_caller]
    pub fn suspend(&self, timeout: Option<Duration>) -> Result<T, Interrupt> {
        self.suspend_watched(timeout, |_| ())
    }

    /// The same; `watch` is told the ticket of this very wait before it begins, so that something
    /// else can end it too, with [`Ticket::interrupt`]. It may not park.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend), and [`Interrupt::Interrupted`].
    #[track_caller]
    pub fn suspend_watched(
        &self,
        timeout: Option<Duration>,
        watch: impl FnOnce(Ticket),
    ) -> Result<T, Interrupt> {
        let location = Location::caller();
        let hub = Hub::current().ok_or(Refusal::NoTask)?;
        hub.may_park()?;
        if hub.current_task() != Some(self.shared.task) {
            return Err(Refusal::OtherTask.into());
        }
        let deadline = timeout.and_then(|timeout| hub.deadline_in(timeout));
        let ticket = hub.ticket().ok_or(Refusal::NoTask)?;
        if let Some(result) = self.begin_suspension(ticket) {
            return result;
        }
        hub.without_parking(|| watch(ticket));
        let parked = hub.park(deadline, location);
        let Some(message) = self.end_suspension() else {
            return Err(parked.err().unwrap_or(Interrupt::Interrupted));
        };
        if let Err(Interrupt::Cancelled) = parked {
            hub.cancel(self.shared.task); // it is told at its next park instead
        }
        message.into_result()
    }

    /// Makes the suspended task ready, to return `value` from its suspend. Does not switch: the
    /// caller goes on. Tasks run in the order in which they were resumed.
    ///
    /// # Errors
    /// See [`ResumeRefusal`]. From another thread than the scheduler's, a value that comes before
    /// the suspend is kept instead, and that suspend returns at once.
    #[track_caller]
    pub fn resume(&self, value: T) -> Result<(), ResumeError<T>> {
        self.deliver(Message::Value(value), Location::caller()).map_err(|(reason, message)| {
            match message {
                Message::Value(undelivered) => ResumeError { reason, undelivered },
                Message::Error(_) => unreachable!("a value was passed in, so it comes back"),
            }
        })
    }

    /// The same, raising `error` in the suspended task as [`Interrupt::Thrown`].
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    #[track_caller]
    pub fn throw(&self, error: impl Into<BoxError>) -> Result<(), ResumeError<BoxError>> {
        let message = Message::Error(error.into());
        self.deliver(message, Location::caller()).map_err(|(reason, message)| match message {
            Message::Error(undelivered) => ResumeError { reason, undelivered },
            Message::Value(_) => unreachable!("an error was passed in, so it comes back"),
        })
    }

    /// Ends the continuation: every later resume and suspend is refused, and a suspend that waits
    /// now ends with [`Interrupt::Interrupted`]. A value that was kept is dropped.
    pub fn close(&self) {
        let phase = std::mem::replace(&mut *self.lock(), Phase::Closed);
        if let Phase::Suspended(ticket) = phase {
            self.wake(ticket);
        }
    }

    /// Tells what to return at once, or marks the continuation suspended.
    fn begin_suspension(&self, ticket: Ticket) -> Option<Result<T, Interrupt>> {
        let before = self.shift(|phase| match phase {
            Phase::Kept(..) => Phase::Idle,
            _ => Phase::Suspended(ticket),
        });
        match before {
            Phase::Kept(message, _) => Some(message.into_result()),
            Phase::Closed => Some(Err(Refusal::Closed.into())),
            _ => None,
        }
    }

    /// A message that has been delivered counts, whatever else ended the wait at the same time.
    fn end_suspension(&self) -> Option<Message<T>> {
        match self.shift(|_| Phase::Idle) {
            Phase::Resumed(message, _) => Some(message),
            _ => None,
        }
    }

    /// Goes on to the phase that `next` tells, unless closed; hands back the phase before.
    fn shift(&self, next: impl FnOnce(&Phase<T>) -> Phase<T>) -> Phase<T> {
        let mut phase = self.lock();
        let next = match *phase {
            Phase::Closed => Phase::Closed,
            _ => next(&phase),
        };
        std::mem::replace(&mut *phase, next)
    }

    fn deliver(
        &self,
        message: Message<T>,
        location: &'static Location<'static>,
    ) -> Result<(), (ResumeRefusal, Message<T>)> {
        let hub = Hub::owning(self.shared.task);
        let mut phase = self.lock();
        match *phase {
            Phase::Suspended(ticket) => {
                *phase = Phase::Resumed(message, location);
                drop(phase);
                self.wake(ticket);
                Ok(())
            }
            Phase::Idle => match hub {
                Some(hub) if hub.exists(self.shared.task) => {
                    Err((ResumeRefusal::NotSuspended, message))
                }
                Some(_) => Err((ResumeRefusal::Closed, message)),
                None => {
                    *phase = Phase::Kept(message, location);
                    Ok(())
                }
            },
            Phase::Resumed(_, first) | Phase::Kept(_, first) => {
                Err((ResumeRefusal::AlreadyResumed(first), message))
            }
            Phase::Closed => Err((ResumeRefusal::Closed, message)),
        }
    }

    fn wake(&self, ticket: Ticket) {
        match Hub::owning(self.shared.task) {
            Some(hub) => {
                hub.wake(ticket, Wake::Resumed);
            }
            None => self.shared.remote.wake(ticket),
        }
    }

    /// No code of ours or of a user's runs under the lock, so that it cannot be poisoned.
    fn lock(&self) -> MutexGuard<'_, Phase<T>> {
        self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Message<T> {
    fn into_result(self) -> Result<T, Interrupt> {
        match self {
            Message::Value(value) => Ok(value),
            Message::Error(error) => Err(Interrupt::Thrown(error)),
        }
    }
}
