//! The calls that a task makes on the scheduler it runs in.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::error::{Interrupt, Refusal};
use crate::hub::Hub;
use crate::join::JoinHandle;
use crate::task::{TaskId, Ticket, Wake};

/// Adds a task to the end of the ready queue of the running scheduler.
///
/// # Panics
/// When no scheduler runs on this thread; [`Scheduler::spawn`](crate::Scheduler::spawn) works there.
#[track_caller]
pub fn spawn<T: 'static>(function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let hub =
        Hub::current().expect("spawn is called inside a task; elsewhere use Scheduler::spawn");
    hub.spawn(function)
}

/// The same for whoever needs no result: nothing is kept for one.
///
/// # Panics
/// As [`spawn`].
pub fn spawn_detached(function: impl FnOnce() + 'static) -> TaskId {
    let hub = Hub::current()
        .expect("spawn_detached is called inside a task; elsewhere use Scheduler::spawn");
    hub.spawn_detached(function)
}

/// Adds a task that becomes ready at `at`; see [`Scheduler::spawn_at`](crate::Scheduler::spawn_at).
///
/// # Panics
/// As [`spawn`].
#[track_caller]
pub fn spawn_at<T: 'static>(at: Instant, function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let hub = Hub::current()
        .expect("spawn_at is called inside a task; elsewhere use Scheduler::spawn_at");
    hub.spawn_at(at, function)
}

/// The running task.
pub fn current_task() -> Option<TaskId> {
    Hub::current()?.current_task()
}

/// Says what the running task does, in pieces that are put together: the line that tells of a stack
/// overflow names it so (see [`OverflowReports`](crate::OverflowReports)). Holds until the task ends.
pub fn describe_task(pieces: &[&[u8]]) {
    if let Some(hub) = Hub::current() {
        hub.describe_running(pieces);
    }
}

/// The scheduler's time; the system's outside of one.
pub fn now() -> Instant {
    Hub::current().map_or_else(Instant::now, |hub| hub.now())
}

/// Parks the running task for `duration`.
///
/// # Errors
/// [`Interrupt::Cancelled`], and [`Interrupt::Refused`] where a task may not park.
#[track_caller]
pub fn sleep(duration: Duration) -> Result<(), Interrupt> {
    let hub = Hub::current().ok_or(Refusal::NoTask)?;
    match hub.park(hub.deadline_in(duration), Location::caller()) {
        Err(Interrupt::TimedOut) => Ok(()),
        other => other,
    }
}

/// Lets every other ready task run before this one goes on.
///
/// # Errors
/// As [`sleep`].
#[track_caller]
pub fn yield_now() -> Result<(), Interrupt> {
    let hub = Hub::current().ok_or(Refusal::NoTask)?;
    hub.may_park()?;
    hub.yield_now(Location::caller())
}

/// The ticket of the running task's next park, for whoever is to wake it.
pub fn ticket() -> Option<Ticket> {
    Hub::current()?.ticket()
}

/// Parks the running task until its [`ticket`] is woken, or until `deadline`: the primitive that
/// every other wait is made of.
///
/// # Errors
/// [`Interrupt::TimedOut`], [`Interrupt::Cancelled`], [`Interrupt::Interrupted`], and
/// [`Interrupt::Refused`] where a task may not park.
#[track_caller]
pub fn park(deadline: Option<Instant>) -> Result<(), Interrupt> {
    Hub::current().ok_or(Refusal::NoTask)?.park(deadline, Location::caller())
}

/// The same, if the running task is `task`. Once it is parked, `watch` is told the ticket of this very
/// wait, so that something else can end it too, with [`Ticket::interrupt`]. It may not park.
///
/// # Errors
/// As [`park`], and [`Refusal::OtherTask`].
#[track_caller]
#[inline]
pub fn park_watched(
    task: TaskId,
    deadline: Option<Instant>,
    watch: impl FnOnce(Ticket),
) -> Result<(), Interrupt> {
    let hub = Hub::current().ok_or(Refusal::NoTask)?;
    hub.park_watched(task, deadline, Location::caller(), watch)
}

/// Runs `function`; a wait inside it is refused with [`Refusal::Forbidden`] instead of parking.
///
/// For code that holds something over the call which must not be seen by another task.
pub fn without_parking<R>(function: impl FnOnce() -> R) -> R {
    match Hub::current() {
        Some(hub) => hub.without_parking(function),
        None => function(),
    }
}

impl TaskId {
    /// Whether the task has not ended. To be called on the scheduler's thread.
    pub fn is_alive(self) -> bool {
        Hub::owning(self).is_some_and(|hub| hub.exists(self))
    }

    /// Asks the task to end, as [`Scheduler::cancel`](crate::Scheduler::cancel) does; false if it has
    /// ended. To be called on the scheduler's thread.
    pub fn cancel(self) -> bool {
        Hub::owning(self).is_some_and(|hub| hub.cancel(self))
    }
}

impl Ticket {
    /// Which task parks.
    pub fn task(self) -> TaskId {
        self.task
    }

    /// Makes the task ready whose park this names; false if that park is over. To be called on the
    /// scheduler's thread, in a task or outside of one.
    #[inline]
    pub fn wake(self) -> bool {
        self.end(Wake::Resumed)
    }

    /// The same, with [`Interrupt::Interrupted`].
    pub fn interrupt(self) -> bool {
        self.end(Wake::Interrupted)
    }

    /// As [`wake`](Self::wake); `None` on another thread than the scheduler's.
    #[inline]
    pub fn try_wake(self) -> Option<bool> {
        self.try_end(Wake::Resumed)
    }

    #[inline]
    fn try_end(self, wake: Wake) -> Option<bool> {
        Hub::with_owning(self.task, |hub| hub.wake(self, wake))
    }

    fn end(self, wake: Wake) -> bool {
        self.try_end(wake).unwrap_or(false)
    }
}
