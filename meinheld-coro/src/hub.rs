//! The hub: runs tasks on pooled coroutines, and is what they call to park.
//!
//! INVARIANT: no `RefCell` of this file is borrowed while a coroutine runs, while a job is dropped or
//! while the host is called, so that whatever these do may come back here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::{Time, thread_waker};
use crate::config::Config;
use crate::error::{Interrupt, Refusal, RunError};
use crate::join::{JoinHandle, joinable};
use crate::local::TaskLocalFactory;
use crate::pool::Pool;
use crate::remote::Remote;
use crate::stack::{Geometry, StackError};
use crate::switch::{Coroutine, Exit, Job, Left, Port};
use crate::task::{TaskId, Tasks, Ticket, Wake, Work};

/// How many turns one round of cancelling may take.
const CANCEL_TURNS: usize = 1000;

/// What the scheduler's handle and the tasks share.
pub(crate) struct Hub {
    pub(crate) id: u32,
    pub(crate) tasks: RefCell<Tasks>,
    pub(crate) pool: RefCell<Pool>,
    locals: Option<Rc<dyn TaskLocalFactory>>,
    stack_setting: &'static str,
    running: Cell<Option<Running>>,
    /// Tasks that wait for a coroutine, since none can be made.
    starved: RefCell<VecDeque<TaskId>>,
    starved_by: RefCell<Option<StackError>>,
    parking_forbidden: Cell<u32>,
    pub(crate) time: Time,
    remote: Arc<Remote>,
}

#[derive(Clone, Copy)]
struct Running {
    task: TaskId,
    exit: Exit,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Hub>>> = const { RefCell::new(None) };
    /// Every scheduler of this thread by its number, so that a wake-up finds the task's own, also
    /// where none runs or another one does.
    static HUBS: RefCell<Vec<(u32, Weak<Hub>)>> = const { RefCell::new(Vec::new()) };
}

impl Hub {
    /// Makes a hub that runs nothing yet.
    pub(crate) fn new(config: Config) -> Rc<Hub> {
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
            stack_setting: config.stack_setting,
            running: Cell::new(None),
            starved: RefCell::default(),
            starved_by: RefCell::new(None),
            parking_forbidden: Cell::new(0),
            time: Time::new(config.clock),
            remote: Arc::new(Remote::new(config.waker.unwrap_or_else(thread_waker))),
        };
        let hub = Rc::new(hub);
        hub.register();
        hub
    }

    /// The scheduler that runs on this thread.
    #[inline]
    pub(crate) fn current() -> Option<Rc<Hub>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Calls `look` with the coroutine that runs on this thread, if one does. For a signal's handler:
    /// it takes nothing but borrows, and gives up where it meets one.
    pub(crate) fn with_running<R>(look: impl FnOnce(&Hub, &Port) -> R) -> Option<R> {
        let call = |current: &RefCell<Option<Rc<Hub>>>| {
            let current = current.try_borrow().ok()?;
            let hub = current.as_ref()?;
            let running = hub.running.get()?;
            Some(running.exit.with_port(|port| look(hub, port)))
        };
        CURRENT.try_with(call).ok().flatten()
    }

    pub(crate) fn stack_setting(&self) -> &'static str {
        self.stack_setting
    }

    /// Calls `call` with the scheduler of `task`, running or not, if it belongs to this thread. The
    /// call comes back to no task and runs no code of others.
    #[inline]
    pub(crate) fn with_owning<R>(task: TaskId, call: impl FnOnce(&Hub) -> R) -> Option<R> {
        CURRENT
            .try_with(|current| match &*current.borrow() {
                Some(hub) if hub.id == task.hub => Some(call(hub)),
                _ => Hub::owning(task).map(|hub| call(&hub)),
            })
            .ok()
            .flatten()
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

    pub(crate) fn spawn_detached(&self, function: impl FnOnce() + 'static) -> TaskId {
        self.tasks.borrow_mut().spawn(Job::once(function))
    }

    pub(crate) fn spawn_at<T: 'static>(
        &self,
        at: Instant,
        function: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        let (job, result) = joinable(function);
        let id = self.tasks.borrow_mut().spawn_at(at, job);
        JoinHandle::new(id, result)
    }

    pub(crate) fn current_task(&self) -> Option<TaskId> {
        self.running.get().map(|running| running.task)
    }

    pub(crate) fn describe_running(&self, pieces: &[&[u8]]) {
        if let Some(running) = self.running.get() {
            running.exit.with_port(|port| port.describe(pieces));
        }
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
        self.parking().map(|_| ())
    }

    /// The running task, if it may park now.
    #[inline]
    fn parking(&self) -> Result<Running, Refusal> {
        if self.parking_forbidden.get() > 0 {
            return Err(Refusal::Forbidden);
        }
        if thread::panicking() {
            return Err(Refusal::Panicking);
        }
        self.running.get().ok_or(Refusal::NoTask)
    }

    /// Parks the running task until it is woken.
    pub(crate) fn park(
        &self,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Result<(), Interrupt> {
        self.park_after(self.parking()?, deadline, location, |_| ())
    }

    /// Parks the running task, which must be `task`, until it is woken; tells `watch` how, once it is
    /// parked.
    #[inline]
    pub(crate) fn park_watched(
        &self,
        task: TaskId,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
        watch: impl FnOnce(Ticket),
    ) -> Result<(), Interrupt> {
        let running = self.parking()?;
        if running.task != task {
            return Err(Refusal::OtherTask.into());
        }
        let watch = |ticket| self.without_parking(|| watch(ticket));
        self.park_after(running, deadline, location, watch)
    }

    /// Parks the running task behind all that are ready: woken as soon as it is parked.
    pub(crate) fn yield_now(&self, location: &'static Location<'static>) -> Result<(), Interrupt> {
        self.park_after(self.parking()?, None, location, |ticket| {
            self.wake(ticket, Wake::Resumed);
        })
    }

    /// Marks the running task parked, calls `parked` with its ticket, and leaves for the hub.
    #[inline]
    fn park_after(
        &self,
        running: Running,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
        parked: impl FnOnce(Ticket),
    ) -> Result<(), Interrupt> {
        let Running { task, exit } = running;
        let begun = self.tasks.borrow_mut().park(task, self.time.turn(), deadline, location);
        let wake = match begun {
            Ok(ticket) => {
                parked(ticket);
                exit.leave();
                self.tasks.borrow_mut().woken(task)
            }
            Err(wake) => wake,
        };
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

    pub(crate) fn advance(&self, now: Instant) {
        self.time.advance(now);
        let mut tasks = self.tasks.borrow_mut();
        for ticket in self.remote.take() {
            tasks.wake(ticket, Wake::Resumed);
        }
        tasks.expire(now);
        self.pool.borrow_mut().trim(now);
    }

    pub(crate) fn run_ready(&self) -> usize {
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
    pub(crate) fn take_coroutine(&self) -> Result<Coroutine, StackError> {
        let idle = self.pool.borrow_mut().take();
        if let Some(coroutine) = idle {
            return Ok(coroutine);
        }
        let stack = self.pool.borrow_mut().make_stack()?;
        let local = self.locals.as_ref().map(|locals| locals.create(stack.span()));
        Ok(Coroutine::new(stack, local))
    }

    /// Enters a coroutine for the task `id`, and stores it or takes it back afterwards. Inlined, so that
    /// one switch follows the other with no return between them (see fiber).
    #[expect(clippy::inline_always, reason = "a return between two switches is foretold wrongly")]
    #[inline(always)]
    pub(crate) fn run_on(&self, id: TaskId, mut coroutine: Coroutine) {
        self.running.set(Some(Running { task: id, exit: coroutine.exit() }));
        let left = coroutine.enter();
        self.running.set(None);
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
    pub(crate) fn wait(&self) -> Result<(), RunError> {
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
    pub(crate) fn cancel_round(&self) {
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
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        assert!(self.running.get().is_none(), "the hub of a scheduler is not run inside a task");
        CURRENT.with_borrow_mut(|current| match current {
            Some(hub) if Rc::ptr_eq(hub, self) => Entered { outer: None, replaced: false },
            _ => Entered { outer: current.replace(Rc::clone(self)), replaced: true },
        })
    }
}

fn find(hubs: &[(u32, Weak<Hub>)], id: u32) -> Option<Rc<Hub>> {
    hubs.iter().find(|(number, _)| *number == id).and_then(|(_, hub)| hub.upgrade())
}

/// Restores the thread's current scheduler.
pub(crate) struct Entered {
    outer: Option<Rc<Hub>>,
    /// Whether the outer one was another.
    replaced: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.replaced {
            let outer = self.outer.take();
            CURRENT.with_borrow_mut(|current| *current = outer);
        }
    }
}
