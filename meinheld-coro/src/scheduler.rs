//! The scheduler: the hub that runs tasks on pooled coroutines, and the calls by which they park.
//!
//! One turn of the hub: take wake-ups from other threads, expire timers, run what is ready. A
//! program of coroutines alone lets [`Scheduler::run`] turn it; a program with an event loop of its
//! own calls [`advance`](Scheduler::advance) and [`run_ready`](Scheduler::run_ready) from that.
//!
//! INVARIANT: no `RefCell` of this file is borrowed while a coroutine runs, while a job is dropped or
//! while the host is called, so that whatever these do may come back here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Time, thread_waker};
use crate::error::{Interrupt, JoinError, Refusal, RunError};
use crate::join::{JoinHandle, joinable};
use crate::local::TaskLocalFactory;
use crate::pool::Pool;
use crate::remote::Remote;
use crate::stack::{Geometry, StackError};
use crate::switch::{Coroutine, Job, Left, Port};
use crate::task::{Suspended, TaskId, Tasks, Ticket, Wake, Work};

/// How often [`Scheduler::shutdown`] throws `Cancelled` into a task before it gives up on it.
const CANCEL_ROUNDS: usize = 8;

/// How many turns each such round may take.
const CANCEL_TURNS: usize = 1000;

/// How a scheduler is made.
#[derive(Clone)]
pub struct Config {
    /// The size of each stack in bytes, guard included; default 256 KiB. Only what is touched
    /// costs memory.
    pub stack_bytes: usize,
    /// How many coroutines there may be at once; default 131,072. Tasks beyond wait for their turn.
    pub coroutines_max: usize,
    /// Which time to go by.
    pub clock: Clock,
    /// What is exchanged at each switch, if the host keeps state per thread of execution.
    pub locals: Option<Rc<dyn TaskLocalFactory>>,
    /// What wakes the hub when another thread has resumed a task; the default unparks the thread
    /// that made the scheduler, which is what [`Scheduler::run`] waits for.
    pub waker: Option<Waker>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stack_bytes: 256 * 1024,
            coroutines_max: 131_072,
            clock: Clock::default(),
            locals: None,
            waker: None,
        }
    }
}

/// What became of the tasks that [`Scheduler::shutdown`] found, and of those they spawned meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// How many have ended.
    pub ended: usize,
    /// How many parked again each time they were cancelled, and have been leaked with their stacks.
    pub abandoned: usize,
}

/// Runs tasks, each on a coroutine, all on the thread that made it.
///
/// Dropping it is a [`shutdown`](Scheduler::shutdown), except while a panic unwinds: what is parked
/// then is leaked.
pub struct Scheduler {
    hub: Rc<Hub>,
}

/// What the scheduler's handle and the tasks share.
pub(crate) struct Hub {
    id: u32,
    tasks: RefCell<Tasks>,
    pool: RefCell<Pool>,
    locals: Option<Rc<dyn TaskLocalFactory>>,
    running: RefCell<Option<Running>>,
    /// Tasks that wait for a coroutine, since none can be made.
    starved: RefCell<VecDeque<TaskId>>,
    starved_by: RefCell<Option<StackError>>,
    parking_forbidden: Cell<u32>,
    time: Time,
    remote: Arc<Remote>,
}

#[derive(Clone)]
struct Running {
    task: TaskId,
    port: Rc<Port>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Hub>>> = const { RefCell::new(None) };
    /// Every scheduler of this thread by its number, so that a wake-up finds the task's own, also
    /// where none runs or another one does.
    static HUBS: RefCell<Vec<(u32, Weak<Hub>)>> = const { RefCell::new(Vec::new()) };
}

impl Scheduler {
    /// Makes a scheduler; no memory is reserved before the first task runs.
    pub fn new(config: Config) -> Scheduler {
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        let geometry = Geometry {
            stack_bytes: config.stack_bytes,
            reserved_bytes: config.locals.as_ref().map_or(0, |locals| locals.reserved_bytes()),
            stacks_max: config.coroutines_max,
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let hub = Hub {
            id,
            tasks: RefCell::new(Tasks::new(id)),
            pool: RefCell::new(Pool::new(geometry)),
            locals: config.locals,
            running: RefCell::new(None),
            starved: RefCell::default(),
            starved_by: RefCell::new(None),
            parking_forbidden: Cell::new(0),
            time: Time::new(config.clock),
            remote: Arc::new(Remote::new(config.waker.unwrap_or_else(thread_waker))),
        };
        let hub = Rc::new(hub);
        hub.register();
        Scheduler { hub }
    }

    /// Adds a task to the end of the ready queue.
    pub fn spawn<T: 'static>(&self, function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.hub.spawn(function)
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
        let hub = &self.hub;
        let _entered = hub.enter();
        let mut coroutine = hub.take_coroutine()?;
        coroutine.load(Box::new(function));
        let id = hub.tasks.borrow_mut().spawn_running();
        hub.run_on(id, coroutine);
        Ok(())
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

    /// Asks a task to end: it is woken with [`Interrupt::Cancelled`], now if it is parked, at its
    /// next park if not. One that has not begun never will. False if it has ended.
    pub fn cancel(&self, task: TaskId) -> bool {
        self.hub.cancel(task)
    }

    /// Makes the task ready whose park `ticket` names; false if that park is over. For an event
    /// loop around the scheduler; tasks use [`Ticket::wake`].
    pub fn wake(&self, ticket: Ticket) -> bool {
        self.hub.wake(ticket, Wake::Resumed)
    }

    /// The same, with [`Interrupt::Interrupted`].
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

    /// Ends every task: each is woken with [`Interrupt::Cancelled`], up to eight times if it parks
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

impl Hub {
    /// The scheduler that runs on this thread.
    pub(crate) fn current() -> Option<Rc<Hub>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// The scheduler of `task`, running or not, if it belongs to this thread.
    pub(crate) fn owning(task: TaskId) -> Option<Rc<Hub>> {
        let current = Hub::current().filter(|hub| hub.id == task.hub);
        current.or_else(|| HUBS.try_with(|hubs| find(&hubs.borrow(), task.hub)).ok().flatten())
    }

    fn register(self: &Rc<Self>) {
        HUBS.with_borrow_mut(|hubs| {
            hubs.retain(|(_, hub)| hub.strong_count() > 0);
            hubs.push((self.id, Rc::downgrade(self)));
        });
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    pub(crate) fn now(&self) -> Instant {
        self.time.now()
    }

    pub(crate) fn spawn<T: 'static>(
        &self,
        function: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        let (job, result) = joinable(function);
        let id = self.tasks.borrow_mut().spawn(job);
        JoinHandle::new(id, result)
    }

    pub(crate) fn current_task(&self) -> Option<TaskId> {
        self.running.borrow().as_ref().map(|running| running.task)
    }

    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.current_task().map(|task| self.tasks.borrow().ticket(task))
    }

    pub(crate) fn wake(&self, ticket: Ticket, wake: Wake) -> bool {
        self.tasks.borrow_mut().wake(ticket, wake)
    }

    pub(crate) fn cancel(&self, task: TaskId) -> bool {
        let cancelled = self.tasks.borrow_mut().cancel(task);
        cancelled.is_ok()
    }

    /// Whether the running task may park now.
    pub(crate) fn may_park(&self) -> Result<(), Refusal> {
        if self.parking_forbidden.get() > 0 {
            return Err(Refusal::Forbidden);
        }
        if thread::panicking() {
            return Err(Refusal::Panicking);
        }
        self.current_task().map(|_| ()).ok_or(Refusal::NoTask)
    }

    /// Parks the running task until it is woken.
    pub(crate) fn park(
        &self,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Result<(), Interrupt> {
        self.park_after(deadline, location, |_| ())
    }

    /// Parks the running task behind all that are ready: woken as soon as it is parked.
    pub(crate) fn yield_now(&self, location: &'static Location<'static>) -> Result<(), Interrupt> {
        self.park_after(None, location, |ticket| {
            self.wake(ticket, Wake::Resumed);
        })
    }

    /// Marks the running task parked, calls `parked` with its ticket, and leaves for the hub.
    fn park_after(
        &self,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
        parked: impl FnOnce(Ticket),
    ) -> Result<(), Interrupt> {
        self.may_park()?;
        let running = self.running.borrow().clone();
        let Running { task, port } = running.ok_or(Refusal::NoTask)?;
        let ticket = self.tasks.borrow().ticket(task);
        let refused = self.tasks.borrow_mut().park(task, self.time.turn(), deadline, location);
        let wake = refused.unwrap_or_else(|| {
            parked(ticket);
            port.leave();
            self.tasks.borrow_mut().woken(task)
        });
        wake.into_result()
    }

    /// Whether the task has not ended.
    pub(crate) fn exists(&self, task: TaskId) -> bool {
        self.tasks.borrow().exists(task)
    }

    pub(crate) fn deadline_in(&self, timeout: Duration) -> Option<Instant> {
        self.now().checked_add(timeout)
    }

    /// Runs `function`, in which no task may park.
    pub(crate) fn without_parking<R>(&self, function: impl FnOnce() -> R) -> R {
        struct Allow<'a>(&'a Cell<u32>);
        impl Drop for Allow<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.parking_forbidden.set(self.parking_forbidden.get() + 1);
        let _allow = Allow(&self.parking_forbidden);
        function()
    }

    fn advance(&self, now: Instant) {
        self.time.advance(now);
        let mut tasks = self.tasks.borrow_mut();
        for ticket in self.remote.take() {
            tasks.wake(ticket, Wake::Resumed);
        }
        tasks.expire(now);
        self.pool.borrow_mut().trim(now);
    }

    fn run_ready(&self) -> usize {
        let count = self.tasks.borrow().ready_count();
        for _ in 0..count {
            let next = self.tasks.borrow_mut().begin_next();
            let Some((id, work)) = next else { break };
            match work {
                Work::Coroutine(coroutine) => self.run_on(id, coroutine),
                Work::Job(job) => self.begin(id, job),
            }
        }
        count
    }

    /// Begins a queued task, or sets it aside until a coroutine is free.
    fn begin(&self, id: TaskId, job: Job) {
        match self.take_coroutine() {
            Ok(mut coroutine) => {
                coroutine.load(job);
                self.run_on(id, coroutine);
            }
            Err(error) => {
                self.tasks.borrow_mut().put_back(id, job);
                self.starved.borrow_mut().push_back(id);
                *self.starved_by.borrow_mut() = Some(error);
            }
        }
    }

    /// An idle coroutine, or a new one.
    fn take_coroutine(&self) -> Result<Coroutine, StackError> {
        let idle = self.pool.borrow_mut().take();
        if let Some(coroutine) = idle {
            return Ok(coroutine);
        }
        let stack = self.pool.borrow_mut().make_stack()?;
        let local = self.locals.as_ref().map(|locals| locals.create(stack.span()));
        Ok(Coroutine::new(stack, local))
    }

    /// Enters a coroutine for the task `id`, and stores it or takes it back afterwards.
    fn run_on(&self, id: TaskId, mut coroutine: Coroutine) {
        let running = Running { task: id, port: Rc::clone(coroutine.port()) };
        *self.running.borrow_mut() = Some(running);
        let left = coroutine.enter();
        *self.running.borrow_mut() = None;
        if left == Left::Parked {
            self.tasks.borrow_mut().store(id, coroutine);
            return;
        }
        self.tasks.borrow_mut().end(id);
        self.pool.borrow_mut().put(coroutine, self.time.turn());
        self.retry_starved();
    }

    /// Lets the task begin that has waited longest for a coroutine.
    fn retry_starved(&self) {
        let mut starved = self.starved.borrow_mut();
        let mut tasks = self.tasks.borrow_mut();
        while starved.pop_front().is_some_and(|task| !tasks.retry(task)) {}
    }

    /// Sleeps until something can be done.
    fn wait(&self) -> Result<(), RunError> {
        let deadline = self.tasks.borrow().next_deadline();
        let resumers = Arc::strong_count(&self.remote) - 1;
        if deadline.is_none() && resumers == 0 {
            return Err(self.dead_end());
        }
        let trim = self.pool.borrow().next_trim();
        self.time.wait(deadline, trim);
        Ok(())
    }

    /// Tells why nothing can go on. Tasks that wait for a coroutine are queued again, in the order
    /// in which they were, for a later run.
    fn dead_end(&self) -> RunError {
        let starved = std::mem::take(&mut *self.starved.borrow_mut());
        let mut tasks = self.tasks.borrow_mut();
        let queued = starved.into_iter().rev().filter(|task| tasks.retry(*task)).count();
        match self.starved_by.borrow_mut().take() {
            Some(error) if queued > 0 => RunError::Stack(error),
            _ => RunError::Stalled { suspended: tasks.count() },
        }
    }

    /// Cancels every task and runs until all are parked again or gone.
    fn cancel_round(&self) {
        let ids = self.tasks.borrow().ids();
        for id in ids {
            self.cancel(id);
        }
        for _ in 0..CANCEL_TURNS {
            if self.run_ready() == 0 {
                break;
            }
        }
    }

    /// Makes this the thread's current scheduler for as long as the guard lives.
    fn enter(self: &Rc<Self>) -> Entered {
        assert!(self.running.borrow().is_none(), "the hub of a scheduler is not run inside a task");
        let outer = CURRENT.with_borrow_mut(|current| current.replace(Rc::clone(self)));
        Entered { outer }
    }
}

fn find(hubs: &[(u32, Weak<Hub>)], id: u32) -> Option<Rc<Hub>> {
    hubs.iter().find(|(number, _)| *number == id).and_then(|(_, hub)| hub.upgrade())
}

/// Restores the thread's current scheduler.
struct Entered {
    outer: Option<Rc<Hub>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        CURRENT.with_borrow_mut(|current| *current = outer);
    }
}
