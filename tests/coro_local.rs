//! The task-local hook: when it is called, on which stack, and what memory is the host's.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Scheduler, StackSpan, TaskLocal, TaskLocalFactory, park, sleep, yield_now,
};

const RESERVED_BYTES: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Create(usize),
    Enter(usize),
    Task(usize),
    Leave(usize),
    TaskEnd(usize),
    Drop(usize),
}

use Event::{Create, Drop as Dropped, Enter, Leave, Task, TaskEnd};

/// Writes down what is asked of it, and on which stack.
#[derive(Default)]
struct Recorder {
    events: RefCell<Vec<Event>>,
    spans: RefCell<Vec<StackSpan>>,
    /// The number of the coroutine that is entered.
    entered: Cell<Option<usize>>,
    /// Asked for its counts when a coroutine is made.
    scheduler: RefCell<Weak<Scheduler>>,
}

struct Factory(Rc<Recorder>);

struct Recorded {
    number: usize,
    recorder: Rc<Recorder>,
}

impl TaskLocalFactory for Factory {
    fn reserved_bytes(&self) -> usize {
        RESERVED_BYTES
    }

    fn create(&self, stack: &StackSpan) -> Box<dyn TaskLocal> {
        let number = self.0.spans.borrow().len();
        self.0.spans.borrow_mut().push(stack.clone());
        self.0.record(Create(number), false);
        if let Some(scheduler) = self.0.scheduler.borrow().upgrade() {
            assert_eq!(scheduler.coroutine_counts().made, number + 1);
        }
        Box::new(Recorded { number, recorder: Rc::clone(&self.0) })
    }
}

impl TaskLocal for Recorded {
    fn enter(&self) {
        assert_eq!(self.recorder.entered.replace(Some(self.number)), None);
        self.recorder.record(Enter(self.number), false);
    }

    fn leave(&self) {
        assert_eq!(self.recorder.entered.take(), Some(self.number));
        self.recorder.record(Leave(self.number), false);
    }

    fn task_end(&self) {
        assert_eq!(self.recorder.entered.get(), Some(self.number));
        self.recorder.record(TaskEnd(self.number), true);
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.recorder.record(Dropped(self.number), false);
    }
}

impl Recorder {
    /// Notes an event, having checked that it happens on a coroutine's own stack, or on none.
    fn record(&self, event: Event, on_coroutine: bool) {
        let local = 0_u8;
        let address = (&raw const local).addr();
        let at = self.spans.borrow().iter().position(|span| span.frames.contains(&address));
        assert_eq!(at, self.entered.get().filter(|_| on_coroutine), "{event:?}");
        self.events.borrow_mut().push(event);
    }

    /// What a task does between two switches.
    fn task(&self) {
        let number = self.entered.get().expect("a task runs between enter and leave");
        self.record(Task(number), true);
    }

    fn take(&self) -> Vec<Event> {
        self.events.take()
    }
}

fn recorded() -> (Rc<Scheduler>, Rc<Recorder>) {
    let recorder = Rc::new(Recorder::default());
    let locals: Rc<dyn TaskLocalFactory> = Rc::new(Factory(Rc::clone(&recorder)));
    let config = Config { locals: Some(locals), clock: Clock::Virtual, ..Config::default() };
    let scheduler = Rc::new(Scheduler::new(config));
    recorder.scheduler.replace(Rc::downgrade(&scheduler));
    (scheduler, recorder)
}

#[test]
fn enter_and_leave_stand_around_every_switch() {
    let (scheduler, recorder) = recorded();
    let inside = Rc::clone(&recorder);
    let task = move || {
        inside.task();
        sleep(Duration::from_secs(1)).unwrap();
        inside.task();
    };
    scheduler.start(task).unwrap();
    assert_eq!(recorder.take(), [Create(0), Enter(0), Task(0), Leave(0)]);
    scheduler.run().unwrap();
    assert_eq!(recorder.take(), [Enter(0), Task(0), TaskEnd(0), Leave(0)]);
}

#[test]
fn tasks_in_turn_each_run_with_their_own_state() {
    let (scheduler, recorder) = recorded();
    for _ in 0..2 {
        let inside = Rc::clone(&recorder);
        scheduler.spawn(move || {
            inside.task();
            yield_now().unwrap();
            inside.task();
        });
    }
    scheduler.run().unwrap();
    let turn = |number| [Enter(number), Task(number), Leave(number)];
    let end = |number| [Enter(number), Task(number), TaskEnd(number), Leave(number)];
    let mut expected = vec![Create(0)];
    expected.extend(turn(0));
    expected.push(Create(1));
    expected.extend(turn(1));
    expected.extend(end(0));
    expected.extend(end(1));
    assert_eq!(recorder.take(), expected);
}

#[test]
fn the_end_of_a_task_is_told_after_its_destructors_and_its_panic() {
    let (scheduler, recorder) = recorded();
    let unwound = AtDrop(Rc::clone(&recorder));
    PAYLOAD.set(Some(AtDrop(Rc::clone(&recorder))));
    let task = move || {
        let _unwound = unwound;
        resume_unwind(Box::new(DropsPayload));
    };
    scheduler.start(task).unwrap();
    let expected = [Create(0), Enter(0), Task(0), Task(0), TaskEnd(0), Leave(0)];
    assert_eq!(recorder.take(), expected);
}

/// Notes when it is dropped.
struct AtDrop(Rc<Recorder>);

impl Drop for AtDrop {
    fn drop(&mut self) {
        self.0.task();
    }
}

thread_local! {
    static PAYLOAD: RefCell<Option<AtDrop>> = const { RefCell::new(None) };
}

/// The payload of a panic. That must be `Send`, so what it drops lies in a place of the thread.
struct DropsPayload;

impl Drop for DropsPayload {
    fn drop(&mut self) {
        drop(PAYLOAD.take());
    }
}

#[test]
fn a_state_is_made_once_for_each_pooled_coroutine() {
    let (scheduler, recorder) = recorded();
    for _ in 0..100 {
        scheduler.start(|| ()).unwrap();
    }
    assert_eq!(created(&recorder), 1);
    for _ in 0..3 {
        scheduler.start(|| drop(park(None))).unwrap();
    }
    assert_eq!(created(&recorder), 2, "the first is used again");
}

fn created(recorder: &Recorder) -> usize {
    recorder.take().iter().filter(|event| matches!(event, Create(_))).count()
}

#[test]
fn the_reserved_bytes_are_aligned_and_nobody_elses() {
    let (scheduler, recorder) = recorded();
    for _ in 0..1500 {
        scheduler.start(|| drop(park(None))).unwrap();
    }
    let spans = recorder.spans.borrow();
    let mut taken: Vec<Range<usize>> = Vec::new();
    for span in spans.iter() {
        assert_eq!(span.reserved.start % 16, 0);
        assert_eq!(span.reserved.len(), RESERVED_BYTES.next_multiple_of(16));
        assert!(span.frames.end <= span.reserved.start);
        assert!(span.frames.len() > 128 * 1024);
        taken.extend([span.frames.clone(), span.reserved.clone()]);
    }
    taken.sort_by_key(|range| range.start);
    assert_eq!(taken.len(), 3000);
    assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start), "no two overlap");
}

#[test]
fn every_state_is_dropped_once_with_its_coroutine() {
    let (scheduler, recorder) = recorded();
    for _ in 0..3 {
        scheduler.spawn(|| sleep(Duration::from_secs(1)));
    }
    scheduler.run().unwrap();
    recorder.take();
    drop(scheduler);
    let mut dropped = recorder.take();
    dropped.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(dropped, [Dropped(0), Dropped(1), Dropped(2)]);
}

#[test]
fn an_abandoned_task_keeps_its_own_state_and_no_others() {
    let (scheduler, recorder) = recorded();
    let refuses = || {
        let _ = yield_now();
        loop {
            let _ = park(None);
        }
    };
    scheduler.start(refuses).unwrap();
    scheduler.start(|| ()).unwrap();
    drop(scheduler);
    let events = recorder.take();
    let dropped: Vec<_> = events.iter().filter(|event| matches!(event, Dropped(_))).collect();
    assert_eq!(dropped, [&Dropped(1)]);
}
