//! Tasks and their states: which is ready, which is parked, and what woke it.
//!
//! ```text
//!            spawn_at            expire
//!   (free) ─────────▶ Scheduled ────────┐
//!     │      spawn                      ▼         park
//!     └───────────────────────────▶ Fresh    ┌──────────▶ Parked
//!     ▲                               │ begin              │ wake, expire, cancel
//!     │ end                           ▼      │             ▼
//!     └──────────────────────────── Running ◀── begin ── Woken
//!                        (Fresh and Woken tasks stand in the ready queue, first in, first out)
//! ```
//!
//! A [`Ticket`] names one park of one task. Once that park is over the ticket is stale and waking
//! it does nothing: a late timer or a second event cannot hit a later park, or a later task in the
//! same slot. Not here: the switch itself, or any clock.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::panic::Location;
use std::time::Instant;

use slab::Slab;

use crate::switch::{Coroutine, Job};
use crate::timer::{TimerId, Timers};

/// Names a task: an index and a generation, so that the name of an ended task names nothing, and
/// the scheduler, so that the name means nothing to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub(crate) hub: u32,
    index: u32,
    generation: NonZeroU32,
}

impl TaskId {
    /// A number that no other task of its scheduler has, also not one that has ended, for as long as
    /// there were not billions.
    pub fn number(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation.get())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}.{}", self.index, self.generation)
    }
}

/// Names one park of one task: what a waker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) task: TaskId,
    park: u32,
}

/// What woke a parked task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// What it waited for has come.
    Resumed,
    /// Its deadline has passed.
    TimedOut,
    /// The task is to end: see [`Scheduler::cancel`](crate::Scheduler::cancel).
    Cancelled,
    /// Something else has happened that makes waiting pointless; the waker knows what.
    Interrupted,
}

/// A parked task, as [`Scheduler::suspended`](crate::Scheduler::suspended) lists it.
#[derive(Clone, Copy, Debug)]
pub struct Suspended {
    /// Which task.
    pub task: TaskId,
    /// The source line that parked it.
    pub location: &'static Location<'static>,
    /// When it parked, to the scheduler's last turn.
    pub since: Instant,
    /// When it will time out.
    pub deadline: Option<Instant>,
}

/// What a slot holds of a task that is not running.
pub(crate) enum Work {
    /// It has not begun.
    Job(Job),
    /// It has, and is parked on this coroutine.
    Coroutine(Coroutine),
}

#[derive(Clone, Copy)]
enum State {
    /// It is to begin when this timer expires.
    Scheduled(TimerId),
    Fresh,
    /// `early` is a wake-up that came between taking the ticket and parking.
    Running {
        early: Option<Wake>,
    },
    Parked {
        location: &'static Location<'static>,
        since: Instant,
        timer: Option<TimerId>,
    },
    Woken(Wake),
}

struct Slot {
    /// That of the name; its other parts are where the slot lies.
    generation: NonZeroU32,
    /// Counts the parks that are over.
    park: u32,
    state: State,
    /// INVARIANT: `None` exactly while the task runs.
    work: Option<Work>,
    /// A cancellation that the task has not been told of yet.
    cancelled: bool,
}

/// All tasks of a scheduler.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Slab<Slot>,
    ready: VecDeque<TaskId>,
    timers: Timers<Ticket>,
    hub: u32,
    /// Counts the tasks that there have been: the generation of the newest.
    spawned: u32,
}

impl Tasks {
    /// No tasks yet, of the scheduler with the number `hub`.
    pub(crate) fn new(hub: u32) -> Tasks {
        Tasks { hub, ..Tasks::default() }
    }

    /// Takes a new task in, ready to begin.
    pub(crate) fn spawn(&mut self, job: Job) -> TaskId {
        let id = self.insert(State::Fresh, Some(Work::Job(job)));
        self.ready.push_back(id);
        id
    }

    /// Takes a new task in that becomes ready at `at`; until then it is a job and a timer.
    pub(crate) fn spawn_at(&mut self, at: Instant, job: Job) -> TaskId {
        let id = self.insert(State::Fresh, Some(Work::Job(job)));
        let timer = self.timers.arm(at, self.ticket(id));
        if let Some(slot) = self.slot_mut(id) {
            slot.state = State::Scheduled(timer);
        }
        id
    }

    /// Takes a new task in that begins at once.
    pub(crate) fn spawn_running(&mut self) -> TaskId {
        self.insert(State::Running { early: None }, None)
    }

    fn insert(&mut self, state: State, work: Option<Work>) -> TaskId {
        self.spawned = self.spawned.wrapping_add(1);
        let generation = NonZeroU32::new(self.spawned).unwrap_or(NonZeroU32::MAX);
        let entry = self.slots.vacant_entry();
        let index = u32::try_from(entry.key()).expect("four billion tasks do not fit in memory");
        let id = TaskId { hub: self.hub, index, generation };
        entry.insert(Slot { generation, park: 0, state, work, cancelled: false });
        id
    }

    /// The next task to run, now `Running`, with its work.
    pub(crate) fn begin_next(&mut self) -> Option<(TaskId, Work)> {
        loop {
            let id = self.ready.pop_front()?;
            let Some(slot) = self.slot_mut(id) else { continue };
            let Some(work) = slot.work.take() else { continue };
            if !matches!(slot.state, State::Woken(_)) {
                slot.state = State::Running { early: None };
            }
            return Some((id, work));
        }
    }

    /// Takes back the job of a task for which there is no coroutine; it stands in no queue until
    /// [`retry`](Self::retry).
    pub(crate) fn put_back(&mut self, id: TaskId, job: Job) {
        if let Some(slot) = self.slot_mut(id) {
            slot.state = State::Fresh;
            slot.work = Some(Work::Job(job));
        }
    }

    /// Puts a task that was put back to the front of the ready queue; false if it was cancelled.
    pub(crate) fn retry(&mut self, id: TaskId) -> bool {
        let exists = self.exists(id);
        if exists {
            self.ready.push_front(id);
        }
        exists
    }

    /// Stores the coroutine of a task that has parked.
    #[inline]
    pub(crate) fn store(&mut self, id: TaskId, coroutine: Coroutine) {
        if let Some(slot) = self.slot_mut(id) {
            slot.work = Some(Work::Coroutine(coroutine));
        }
    }

    /// Frees the slot of a task that has ended.
    pub(crate) fn end(&mut self, id: TaskId) {
        if self.slot_mut(id).is_some() {
            self.slots.remove(id.index as usize);
        }
    }

    /// The ticket of the running task's next park.
    pub(crate) fn ticket(&self, id: TaskId) -> Ticket {
        let park = self.slots.get(id.index as usize).map_or(0, |slot| slot.park);
        Ticket { task: id, park }
    }

    /// Marks the running task parked.
    ///
    /// # Errors
    /// What woke it before, so that it need not park at all.
    pub(crate) fn park(
        &mut self,
        id: TaskId,
        since: Instant,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Result<Ticket, Wake> {
        let slot = find(&mut self.slots, self.hub, id).expect("a task that runs has a slot");
        let early = match slot.state {
            State::Running { early } => early,
            _ => None,
        };
        if early.is_some() || slot.cancelled {
            return Err(slot.refuse_park(early));
        }
        let ticket = Ticket { task: id, park: slot.park };
        let timer = deadline.map(|deadline| self.timers.arm(deadline, ticket));
        slot.state = State::Parked { location, since, timer };
        Ok(ticket)
    }

    /// What woke a task that runs again.
    #[inline]
    pub(crate) fn woken(&mut self, id: TaskId) -> Wake {
        let slot = self.slot_mut(id).expect("a task that runs has a slot");
        let wake = match slot.state {
            State::Woken(wake) => wake,
            _ => Wake::Resumed,
        };
        slot.state = State::Running { early: None };
        wake
    }

    /// Wakes the task that parked with `ticket`; false if that park is over.
    pub(crate) fn wake(&mut self, ticket: Ticket, wake: Wake) -> bool {
        let Some(slot) = self.slot_mut(ticket.task) else { return false };
        if slot.park != ticket.park {
            return false;
        }
        match slot.state {
            State::Running { early: ref mut early @ None } => {
                *early = Some(wake);
                true
            }
            State::Parked { timer, .. } => {
                slot.park = slot.park.wrapping_add(1);
                slot.state = State::Woken(wake);
                self.ready.push_back(ticket.task);
                if let Some(timer) = timer {
                    self.timers.cancel(timer);
                }
                true
            }
            State::Scheduled(_) | State::Fresh | State::Running { .. } | State::Woken(_) => false,
        }
    }

    /// Makes a task ready whose time to begin has come; false if it is none.
    fn begin_scheduled(&mut self, id: TaskId) -> bool {
        let Some(slot) = self.slot_mut(id) else { return false };
        let scheduled = matches!(slot.state, State::Scheduled(_));
        if scheduled {
            slot.state = State::Fresh;
            self.ready.push_back(id);
        }
        scheduled
    }

    /// Cancels a task: the job of one that has not begun is handed back to be dropped, one that is
    /// parked is woken, and any other is told when it parks next. `Err` if there is no such task.
    pub(crate) fn cancel(&mut self, id: TaskId) -> Result<Option<Job>, NoSuchTask> {
        let ticket = self.ticket(id);
        let slot = self.slot_mut(id).ok_or(NoSuchTask)?;
        match slot.state {
            State::Fresh => {
                let Some(Work::Job(job)) = slot.work.take() else { return Ok(None) };
                self.slots.remove(id.index as usize);
                Ok(Some(job))
            }
            State::Scheduled(timer) => {
                let Some(Work::Job(job)) = slot.work.take() else { return Ok(None) };
                self.timers.cancel(timer);
                self.slots.remove(id.index as usize);
                Ok(Some(job))
            }
            State::Parked { .. } => {
                self.wake(ticket, Wake::Cancelled);
                Ok(None)
            }
            State::Running { .. } | State::Woken(_) => {
                slot.cancelled = true;
                Ok(None)
            }
        }
    }

    /// Wakes every task whose deadline has passed, and makes those ready whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(ticket) = self.timers.pop_expired(now) {
            if !self.begin_scheduled(ticket.task) {
                self.wake(ticket, Wake::TimedOut);
            }
        }
    }

    /// The earliest deadline of a parked task, or of one that is to begin.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// How many tasks stand in the ready queue.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// How many tasks there have been, modulo 2³².
    pub(crate) fn spawned(&self) -> u32 {
        self.spawned
    }

    /// The names of all tasks.
    pub(crate) fn ids(&self) -> Vec<TaskId> {
        self.slots.iter().map(|(index, slot)| self.id_of(index, slot)).collect()
    }

    /// Whether the task has not ended.
    pub(crate) fn exists(&self, id: TaskId) -> bool {
        let slot = self.slots.get(id.index as usize);
        id.hub == self.hub && slot.is_some_and(|slot| slot.generation == id.generation)
    }

    /// The parked tasks, longest first.
    pub(crate) fn suspended(&self) -> Vec<Suspended> {
        let slots = self.slots.iter();
        let mut all: Vec<Suspended> =
            slots.filter_map(|(index, slot)| self.suspended_in(index, slot)).collect();
        all.sort_by_key(|suspended| suspended.since);
        all
    }

    /// Takes all work out, for a scheduler that ends with tasks left.
    pub(crate) fn drain(&mut self) -> Vec<Work> {
        self.ready.clear();
        self.timers = Timers::default();
        self.slots.drain().filter_map(|slot| slot.work).collect()
    }

    fn suspended_in(&self, index: usize, slot: &Slot) -> Option<Suspended> {
        let State::Parked { location, since, timer } = slot.state else { return None };
        let deadline = timer.and_then(|timer| self.timers.deadline(timer));
        Some(Suspended { task: self.id_of(index, slot), location, since, deadline })
    }

    fn id_of(&self, index: usize, slot: &Slot) -> TaskId {
        let index = u32::try_from(index).expect("checked at insertion");
        TaskId { hub: self.hub, index, generation: slot.generation }
    }

    #[inline]
    fn slot_mut(&mut self, id: TaskId) -> Option<&mut Slot> {
        find(&mut self.slots, self.hub, id)
    }
}

/// The slot of a task of the scheduler with the number `hub`.
#[inline]
fn find(slots: &mut Slab<Slot>, hub: u32, id: TaskId) -> Option<&mut Slot> {
    let slot = slots.get_mut(id.index as usize)?;
    (slot.generation == id.generation && id.hub == hub).then_some(slot)
}

/// The task named has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSuchTask;

impl Slot {
    /// Ends a park before it begins. The other way round an early wake-up would swallow the
    /// cancellation.
    #[cold]
    fn refuse_park(&mut self, early: Option<Wake>) -> Wake {
        self.park = self.park.wrapping_add(1);
        self.state = State::Running { early: None };
        early.unwrap_or_else(|| {
            self.cancelled = false;
            Wake::Cancelled
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parked(tasks: &mut Tasks, deadline: Option<Instant>) -> (TaskId, Ticket) {
        let id = tasks.spawn_running();
        let ticket = tasks.ticket(id);
        assert_eq!(tasks.park(id, Instant::now(), deadline, Location::caller()), Ok(ticket));
        (id, ticket)
    }

    #[test]
    fn a_slot_stays_small() {
        assert!(size_of::<Slot>() <= 80, "{}", size_of::<Slot>());
    }

    #[test]
    fn a_ticket_wakes_its_own_park_once() {
        let mut tasks = Tasks::default();
        let (id, ticket) = parked(&mut tasks, None);
        assert!(tasks.wake(ticket, Wake::Resumed));
        assert!(!tasks.wake(ticket, Wake::Resumed), "the second wake-up finds it woken");
        assert_eq!(tasks.woken(id), Wake::Resumed);
        assert!(tasks.park(id, Instant::now(), None, Location::caller()).is_ok());
        assert!(!tasks.wake(ticket, Wake::Resumed), "the old ticket misses the new park");
        assert_eq!(tasks.ready_count(), 1);
    }

    #[test]
    fn a_ticket_misses_the_next_task_in_the_same_slot() {
        let mut tasks = Tasks::default();
        let (first, ticket) = parked(&mut tasks, None);
        tasks.end(first);
        let (second, _) = parked(&mut tasks, None);
        assert_eq!(first.index, second.index);
        assert!(!tasks.wake(ticket, Wake::Resumed));
        assert!(tasks.cancel(first).is_err());
    }

    #[test]
    fn a_wake_up_between_ticket_and_park_is_kept() {
        let mut tasks = Tasks::default();
        let id = tasks.spawn_running();
        let ticket = tasks.ticket(id);
        assert!(tasks.wake(ticket, Wake::Interrupted));
        let park = tasks.park(id, Instant::now(), None, Location::caller());
        assert_eq!(park, Err(Wake::Interrupted));
        assert!(!tasks.wake(ticket, Wake::Resumed), "that park is over");
    }

    #[test]
    fn a_wake_up_disarms_the_deadline() {
        let mut tasks = Tasks::default();
        let deadline = Instant::now() + Duration::from_secs(1);
        let (_, ticket) = parked(&mut tasks, Some(deadline));
        assert_eq!(tasks.next_deadline(), Some(deadline));
        assert!(tasks.wake(ticket, Wake::Resumed));
        assert_eq!(tasks.next_deadline(), None);
    }

    #[test]
    fn an_early_wake_up_does_not_swallow_a_cancellation() {
        let mut tasks = Tasks::default();
        let id = tasks.spawn_running();
        assert!(tasks.wake(tasks.ticket(id), Wake::Resumed));
        assert!(tasks.cancel(id).is_ok());
        let now = Instant::now();
        assert_eq!(tasks.park(id, now, None, Location::caller()), Err(Wake::Resumed));
        assert_eq!(tasks.park(id, now, None, Location::caller()), Err(Wake::Cancelled));
    }

    #[test]
    fn a_name_means_nothing_to_another_scheduler() {
        let (mut one, mut other) = (Tasks::new(1), Tasks::new(2));
        let (id, ticket) = parked(&mut one, None);
        parked(&mut other, None);
        assert!(!other.wake(ticket, Wake::Resumed));
        assert!(other.cancel(id).is_err());
    }

    #[test]
    fn a_scheduled_task_is_ready_at_its_time_and_not_before() {
        let mut tasks = Tasks::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let later = tasks.spawn_at(start + 2 * second, Job::once(|| ()));
        let sooner = tasks.spawn_at(start + second, Job::once(|| ()));
        tasks.expire(start);
        assert_eq!(tasks.ready_count(), 0);
        assert_eq!(tasks.next_deadline(), Some(start + second));
        tasks.expire(start + 2 * second);
        let begun = [tasks.begin_next(), tasks.begin_next()].map(|next| next.map(|(id, _)| id));
        assert_eq!(begun, [Some(sooner), Some(later)]);
    }

    #[test]
    fn a_cancelled_scheduled_task_leaves_no_timer() {
        let mut tasks = Tasks::default();
        let now = Instant::now();
        let id = tasks.spawn_at(now, Job::once(|| ()));
        assert!(matches!(tasks.cancel(id), Ok(Some(_))));
        assert_eq!((tasks.count(), tasks.next_deadline()), (0, None));
        tasks.expire(now);
        assert_eq!(tasks.ready_count(), 0);
    }

    #[test]
    fn a_running_task_is_told_of_its_cancellation_at_the_next_park() {
        let mut tasks = Tasks::default();
        let id = tasks.spawn_running();
        assert!(tasks.cancel(id).is_ok());
        let now = Instant::now();
        assert_eq!(tasks.park(id, now, None, Location::caller()), Err(Wake::Cancelled));
        assert!(tasks.park(id, now, None, Location::caller()).is_ok(), "it is told once");
    }
}
