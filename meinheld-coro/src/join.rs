//! Waiting for a task's end, and for its result.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Interrupt, JoinError, Refusal};
use crate::hub::Hub;
use crate::switch::Job;
use crate::task::{TaskId, Ticket};

/// A handle to a task's result. Dropping it lets the task run on by itself.
pub struct JoinHandle<T> {
    task: TaskId,
    outcome: Rc<Outcome<T>>,
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("task", &self.task).finish_non_exhaustive()
    }
}

/// Where a task leaves its result for whoever joins it.
pub(crate) struct Outcome<T> {
    state: RefCell<State<T>>,
    waiters: RefCell<Vec<Ticket>>,
}

enum State<T> {
    Pending,
    Finished(Result<T, JoinError>),
    Taken,
}

/// Wraps a function into a job that leaves its result, or its panic, in the outcome.
pub(crate) fn joinable<T: 'static>(
    function: impl FnOnce() -> T + 'static,
) -> (Job, Rc<Outcome<T>>) {
    let state = RefCell::new(State::Pending);
    let outcome = Rc::new(Outcome { state, waiters: RefCell::default() });
    let promise = Promise(Rc::clone(&outcome));
    let job = Job::once(move || {
        let result = catch_unwind(AssertUnwindSafe(function));
        promise.0.finish(result.map_err(panicked));
    });
    (job, outcome)
}

fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
    JoinError::Panicked(payload)
}

/// The job's side of an outcome: a job that is dropped before it ran was cancelled.
struct Promise<T>(Rc<Outcome<T>>);

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let pending = matches!(*self.0.state.borrow(), State::Pending);
        if pending {
            self.0.finish(Err(JoinError::Cancelled));
        }
    }
}

impl<T> Outcome<T> {
    fn finish(&self, result: Result<T, JoinError>) {
        *self.state.borrow_mut() = State::Finished(result);
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for ticket in waiters {
            ticket.wake();
        }
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: TaskId, outcome: Rc<Outcome<T>>) -> JoinHandle<T> {
        JoinHandle { task, outcome }
    }

    /// Which task this is.
    pub fn id(&self) -> TaskId {
        self.task
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.outcome.state.borrow(), State::Pending)
    }

    /// Waits for the task's end and takes its result.
    ///
    /// # Errors
    /// [`JoinError::Panicked`] and [`JoinError::Cancelled`] for what became of the task,
    /// [`JoinError::Interrupted`] for what became of the wait (it can be joined again then),
    /// [`JoinError::Taken`] the second time.
    #[track_caller]
    pub fn join(&self) -> Result<T, JoinError> {
        self.join_by(None, Location::caller())
    }

    /// The same, for `timeout` at the most; see [`Interrupt::TimedOut`].
    ///
    /// # Errors
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_timeout(&self, timeout: Duration) -> Result<T, JoinError> {
        self.join_by(Some(timeout), Location::caller())
    }

    /// Asks the task to end, as [`Scheduler::cancel`](crate::Scheduler::cancel) does.
    pub fn cancel(&self) -> bool {
        self.task.cancel()
    }

    /// The result, if the task has ended and nobody took it.
    pub(crate) fn take_result(&self) -> Option<Result<T, JoinError>> {
        let mut state = self.outcome.state.borrow_mut();
        if matches!(*state, State::Pending) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Finished(result) => Some(result),
            State::Pending | State::Taken => Some(Err(JoinError::Taken)),
        }
    }

    fn join_by(
        &self,
        timeout: Option<Duration>,
        location: &'static Location<'static>,
    ) -> Result<T, JoinError> {
        let hub = Hub::current().ok_or_else(|| interrupted(Refusal::NoTask))?;
        let deadline = timeout.and_then(|timeout| hub.deadline_in(timeout));
        loop {
            if let Some(result) = self.take_result() {
                return result;
            }
            let ticket = hub.ticket().ok_or_else(|| interrupted(Refusal::NoTask))?;
            self.outcome.waiters.borrow_mut().push(ticket);
            let parked = hub.park(deadline, location);
            self.outcome.waiters.borrow_mut().retain(|waiter| *waiter != ticket);
            parked.map_err(JoinError::Interrupted)?;
        }
    }
}

fn interrupted(refusal: Refusal) -> JoinError {
    JoinError::Interrupted(Interrupt::Refused(refusal))
}
