//! The scheduler: the handle of a hub, for the program around the tasks.
//!
//! One turn of the hub: take wake-ups from other threads, expire timers, run what is ready. A
//! program of coroutines alone lets [`Scheduler::run`] turn it; a program with an event loop of its
//! own calls [`advance`](Scheduler::advance) and [`run_ready`](Scheduler::run_ready) from that.

use std::fmt;
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use crate::config::Config;
use crate::error::{JoinError, RunError};
use crate::hub::Hub;
use crate::join::JoinHandle;
use crate::stack::StackError;
use crate::switch::Job;
use crate::task::{Suspended, TaskId, Ticket, Wake};

/// How often [`Scheduler::shutdown`] throws `Cancelled` into a task before it gives up on it.
const CANCEL_ROUNDS: usize = 8;

/// What became of the tasks that [`Scheduler::shutdown`] found, and of those they spawned meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// How many have ended.
    pub ended: usize,
    /// How many did not end: those that parked again each time they were cancelled have been leaked with
    /// their stacks, those that never began are dropped.
    pub abandoned: usize,
}

/// Runs tasks, each on a coroutine, all on the thread that made it.
///
/// Dropping it is a [`shutdown`](Scheduler::shutdown), except while a panic unwinds: what is parked
/// then is leaked.
pub struct Scheduler {
    hub: Rc<Hub>,
}

impl Scheduler {
    /// Makes a scheduler; no memory is reserved before the first task runs.
    pub fn new(config: Config) -> Scheduler {
        Scheduler { hub: Hub::new(config) }
    }

    /// Adds a task to the end of the ready queue.
    pub fn spawn<T: 'static>(&self, function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.hub.spawn(function)
    }

    /// Adds a task that becomes ready at `at`. It has no coroutine, and so no stack, until it begins;
    /// [`JoinHandle::cancel`] takes it back. Tasks of one time begin in the order in which they were
    /// added.
    pub fn spawn_at<T: 'static>(
        &self,
        at: Instant,
        function: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        self.hub.spawn_at(at, function)
    }

    /// Runs `function` with this as the thread's scheduler, so that [`spawn`](crate::spawn) works in
    /// it. It is no task, and cannot park.
    ///
    /// # Panics
    /// When called inside a task.
    pub fn within<R>(&self, function: impl FnOnce() -> R) -> R {
        let _entered = self.hub.enter();
        function()
    }

    /// Runs a new task at once, until it parks or ends. A panic in it is caught, and its payload
    /// dropped after the panic hook has reported it.
    ///
    /// # Errors
    /// When no coroutine can be had; `function` has then been dropped.
    ///
    /// # Panics
    /// When called inside a task: tasks start others with [`spawn`](crate::spawn).
    pub fn start(&self, function: impl FnOnce() + 'static) -> Result<(), StackError> {
        self.start_job(|| Job::once(function))
    }

    /// The same with a function that others are started with, too: nothing is allocated.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_shared(&self, function: &Rc<dyn Fn()>) -> Result<(), StackError> {
        self.start_job(|| Job::Shared(Rc::clone(function)))
    }

    fn start_job(&self, job: impl FnOnce() -> Job) -> Result<(), StackError> {
        let hub = &self.hub;
        let _entered = hub.enter();
        let mut coroutine = hub.take_coroutine()?;
        coroutine.load(job());
        let id = hub.tasks.borrow_mut().spawn_running();
        hub.run_on(id, coroutine);
        Ok(())
    }

    /// As [`describe_task`](crate::describe_task) does for the task that runs, if it is this scheduler's.
    pub fn describe_running(&self, pieces: &[&[u8]]) {
        self.hub.describe_running(pieces);
    }

    /// As [`without_parking`](crate::without_parking) does for this scheduler's tasks.
    pub fn without_parking<R>(&self, function: impl FnOnce() -> R) -> R {
        self.hub.without_parking(function)
    }

    /// Begins a turn at `now`: takes wake-ups from other threads, expires timers, trims idle stacks.
    pub fn advance(&self, now: Instant) {
        self.hub.advance(now);
    }

    /// Runs each task that is ready now, once; tells how many. Tasks that become ready meanwhile
    /// wait for the next call, so that an event loop around it is not starved.
    ///
    /// # Panics
    /// When called inside a task.
    pub fn run_ready(&self) -> usize {
        let _entered = self.hub.enter();
        self.hub.run_ready()
    }

    /// Whether a task is ready to run.
    pub fn has_ready(&self) -> bool {
        self.hub.tasks.borrow().ready_count() > 0
    }

    /// When [`advance`](Self::advance) must be called next, unless something else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tasks = self.hub.tasks.borrow().next_deadline();
        let trim = self.hub.pool.borrow().next_trim();
        [tasks, trim].into_iter().flatten().min()
    }

    /// Runs until every task has ended.
    ///
    /// # Errors
    /// [`RunError::Stalled`] when all that are left are parked and nothing can wake them;
    /// [`RunError::Stack`] when the tasks that are left wait for a coroutine that cannot be had.
    ///
    /// # Panics
    /// When called inside a task.
    pub fn run(&self) -> Result<(), RunError> {
        self.run_until(|| false)
    }

    /// Runs `function` as a task until it has ended, and the other tasks as long.
    ///
    /// # Errors
    /// What [`JoinHandle::join`] gives; [`JoinError::Run`] with what [`run`](Self::run) gives.
    ///
    /// # Panics
    /// When called inside a task.
    pub fn block_on<T: 'static>(
        &self,
        function: impl FnOnce() -> T + 'static,
    ) -> Result<T, JoinError> {
        let handle = self.spawn(function);
        self.run_until(|| handle.is_finished()).map_err(JoinError::Run)?;
        handle.take_result().unwrap_or(Err(JoinError::Taken))
    }

    /// Asks a task to end: it is woken with [`Interrupt::Cancelled`](crate::Interrupt::Cancelled), now if it is parked, at its
    /// next park if not. One that has not begun never will. False if it has ended.
    pub fn cancel(&self, task: TaskId) -> bool {
        self.hub.cancel(task)
    }

    /// Makes the task ready whose park `ticket` names; false if that park is over. For an event
    /// loop around the scheduler; tasks use [`Ticket::wake`].
    pub fn wake(&self, ticket: Ticket) -> bool {
        self.hub.wake(ticket, Wake::Resumed)
    }

    /// The same, with [`Interrupt::Interrupted`](crate::Interrupt::Interrupted).
    pub fn interrupt(&self, ticket: Ticket) -> bool {
        self.hub.wake(ticket, Wake::Interrupted)
    }

    /// The parked tasks: where they wait, since when, and until when; longest first.
    pub fn suspended(&self) -> Vec<Suspended> {
        self.hub.tasks.borrow().suspended()
    }

    /// How many tasks have not ended.
    pub fn task_count(&self) -> usize {
        self.hub.tasks.borrow().count()
    }

    /// How many coroutines are in the pool: made in all, and idle.
    pub fn coroutine_counts(&self) -> CoroutineCounts {
        let pool = self.hub.pool.borrow();
        CoroutineCounts { made: pool.made_count(), idle: pool.idle_count() }
    }

    /// Ends every task: each is woken with [`Interrupt::Cancelled`](crate::Interrupt::Cancelled), up to eight times if it parks
    /// again. What is parked after that is leaked: its stack may hold frames that cannot be
    /// unwound.
    ///
    /// # Panics
    /// When called inside a task.
    pub fn shutdown(&self) -> Shutdown {
        let _entered = self.hub.enter();
        let found = self.hub.tasks.borrow().count();
        let spawned_before = self.hub.tasks.borrow().spawned();
        for _ in 0..CANCEL_ROUNDS {
            self.hub.cancel_round();
        }
        let spawned = self.hub.tasks.borrow().spawned().wrapping_sub(spawned_before) as usize;
        let left = self.hub.tasks.borrow_mut().drain();
        let abandoned = left.len();
        drop(left);
        Shutdown { ended: found + spawned - abandoned, abandoned }
    }

    fn run_until(&self, done: impl Fn() -> bool) -> Result<(), RunError> {
        let _entered = self.hub.enter();
        let hub = &self.hub;
        loop {
            hub.advance(hub.time.now());
            let ran = hub.run_ready();
            if done() || hub.tasks.borrow().count() == 0 {
                return Ok(());
            }
            if ran == 0 {
                hub.wait()?;
            }
        }
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("number", &self.hub.id).finish_non_exhaustive()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.shutdown();
        // An abandoned task may hold the hub for ever; what is idle need not wait for it.
        let idle = self.hub.pool.borrow_mut().drain();
        drop(idle);
    }
}

/// See [`Scheduler::coroutine_counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoroutineCounts {
    /// Made since the scheduler was.
    pub made: usize,
    /// Idle in the pool.
    pub idle: usize,
}
