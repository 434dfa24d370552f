//! Shutdown: tasks are asked to end and clean up; those that will not are left alone.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Continuation, Interrupt, JoinError, Scheduler, Shutdown, channel, park, sleep,
    spawn, yield_now,
};

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

/// Counts how often one of its clones is dropped.
#[derive(Clone)]
struct Dropped(Rc<Cell<usize>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn counter() -> Rc<Cell<usize>> {
    Rc::new(Cell::new(0))
}

fn add(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

#[test]
fn every_wait_ends_and_every_destructor_runs() {
    let scheduler = scheduler();
    let (dropped, cancelled) = (counter(), counter());
    let (sender, receiver) = channel::unbounded::<()>();
    let waits: [Box<dyn Fn() -> bool>; 4] = [
        Box::new(|| matches!(sleep(Duration::from_secs(1)), Err(Interrupt::Cancelled))),
        Box::new(|| matches!(park(None), Err(Interrupt::Cancelled))),
        Box::new(|| {
            let here = Continuation::<()>::current().expect("this is a task");
            matches!(here.suspend(None), Err(Interrupt::Cancelled))
        }),
        Box::new(move || {
            let waited = receiver.receive();
            matches!(waited, Err(channel::ReceiveError::Interrupted(Interrupt::Cancelled)))
        }),
    ];
    for wait in waits {
        let (value, cancelled) = (Dropped(Rc::clone(&dropped)), Rc::clone(&cancelled));
        let task = move || {
            let _value = value;
            if wait() {
                add(&cancelled);
            }
        };
        scheduler.start(task).unwrap();
    }
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 4, abandoned: 0 });
    assert_eq!((dropped.get(), cancelled.get()), (4, 4));
    assert_eq!(scheduler.task_count(), 0);
    drop(sender);
}

#[test]
fn tasks_that_have_not_begun_never_do() {
    let scheduler = scheduler();
    let (dropped, ran) = (counter(), counter());
    let (value, count) = (Dropped(Rc::clone(&dropped)), Rc::clone(&ran));
    scheduler.spawn(move || {
        let _value = value;
        add(&count);
    });
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 1, abandoned: 0 });
    assert_eq!((dropped.get(), ran.get()), (1, 0));
}

#[test]
fn dropping_the_scheduler_is_a_shutdown() {
    let dropped = counter();
    let value = Dropped(Rc::clone(&dropped));
    let scheduler = scheduler();
    let task = move || {
        let _value = value;
        let _ = park(None);
    };
    scheduler.start(task).unwrap();
    assert_eq!(dropped.get(), 0);
    drop(scheduler);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn a_task_may_park_again_to_clean_up_and_is_told_again() {
    let scheduler = scheduler();
    let (told, dropped) = (counter(), counter());
    let (count, value) = (Rc::clone(&told), Dropped(Rc::clone(&dropped)));
    let task = move || {
        let _value = value;
        for _ in 0..8 {
            assert!(matches!(park(None), Err(Interrupt::Cancelled)));
            add(&count);
        }
    };
    scheduler.start(task).unwrap();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 1, abandoned: 0 });
    assert_eq!((told.get(), dropped.get()), (8, 1));
}

#[test]
fn a_task_that_refuses_is_told_eight_times_and_then_leaked_without_being_unwound() {
    let scheduler = scheduler();
    let (told, dropped) = (counter(), counter());
    let (count, value) = (Rc::clone(&told), Dropped(Rc::clone(&dropped)));
    let task = move || {
        let _value = value;
        loop {
            let _ = park(None);
            add(&count);
        }
    };
    scheduler.start(task).unwrap();
    scheduler.start(|| drop(park(None))).unwrap();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 1, abandoned: 1 });
    assert_eq!(scheduler.task_count(), 0);
    drop(scheduler);
    assert_eq!((told.get(), dropped.get()), (8, 0));
}

#[test]
fn a_task_that_only_yields_is_abandoned_too() {
    let scheduler = scheduler();
    let task = || {
        loop {
            let _ = yield_now();
        }
    };
    scheduler.start(task).unwrap();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 0, abandoned: 1 });
}

#[test]
fn tasks_that_are_spawned_meanwhile_are_ended_and_counted_too() {
    let scheduler = scheduler();
    let ended = counter();
    let count = Rc::clone(&ended);
    let task = move || {
        let _ = park(None);
        for _ in 0..3 {
            let count = Rc::clone(&count);
            spawn(move || {
                let _ = park(None);
                add(&count);
            });
        }
    };
    scheduler.start(task).unwrap();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 4, abandoned: 0 });
    assert_eq!(ended.get(), 3);
}

#[test]
fn a_chain_of_tasks_without_end_does_not_keep_a_shutdown_from_ending() {
    fn again(ran: &Rc<Cell<usize>>) {
        add(ran);
        let ran = Rc::clone(ran);
        spawn(move || again(&ran));
    }
    let scheduler = scheduler();
    let ran = counter();
    let first = Rc::clone(&ran);
    scheduler.start(move || again(&first)).unwrap();
    let ended = scheduler.shutdown();
    assert_eq!(scheduler.task_count(), 0);
    assert_eq!(ended.abandoned, 0, "the first round cancels the task that has not begun");
    assert_eq!(Rc::strong_count(&ran), 1);
}

#[test]
fn a_task_can_join_another_while_both_are_cancelled() {
    let scheduler = scheduler();
    let joined = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&joined);
    scheduler.spawn(move || {
        let inner = spawn(|| park(None).is_err());
        let first = inner.join();
        log.borrow_mut().push(matches!(first, Err(JoinError::Interrupted(Interrupt::Cancelled))));
        log.borrow_mut().push(inner.join().unwrap_or(false));
    });
    scheduler.run_ready();
    scheduler.run_ready();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 2, abandoned: 0 });
    assert_eq!(*joined.borrow(), [true, true]);
}

#[test]
fn a_scheduler_can_be_used_again_after_a_shutdown() {
    let scheduler = scheduler();
    let stubborn = || {
        loop {
            let _ = sleep(Duration::from_secs(1));
        }
    };
    scheduler.start(stubborn).unwrap();
    assert_eq!(scheduler.shutdown().abandoned, 1);
    assert_eq!(scheduler.next_deadline(), None, "no timer of the abandoned task is left");
    assert_eq!(scheduler.block_on(|| spawn(|| 1).join().unwrap()).unwrap(), 1);
    assert_eq!(scheduler.shutdown(), Shutdown::default());
}

#[test]
fn a_destructor_may_wake_others_and_spawn_while_everything_ends() {
    struct Sends(channel::Sender<u8>);
    impl Drop for Sends {
        fn drop(&mut self) {
            let sender = self.0.clone();
            spawn(move || sender.try_send(2));
            self.0.try_send(1).expect("the receiver lives");
        }
    }
    let scheduler = scheduler();
    let (sender, receiver) = channel::unbounded();
    let sends = Sends(sender);
    let task = move || {
        let _sends = sends;
        let _ = park(None);
    };
    scheduler.start(task).unwrap();
    assert_eq!(scheduler.shutdown().abandoned, 0);
    assert_eq!(receiver.try_receive().unwrap(), 1);
}

#[test]
fn a_panic_during_the_clean_up_stays_in_its_task() {
    let scheduler = scheduler();
    let task = || {
        let _ = park(None);
        resume_unwind(Box::new("while cleaning up"));
    };
    scheduler.start(task).unwrap();
    scheduler.start(|| drop(park(None))).unwrap();
    assert_eq!(scheduler.shutdown(), Shutdown { ended: 2, abandoned: 0 });
}

#[test]
fn a_scheduler_that_is_dropped_by_a_panic_leaks_what_is_parked() {
    let dropped = counter();
    let value = Dropped(Rc::clone(&dropped));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let scheduler = scheduler();
        let task = move || {
            let _value = value;
            let _ = park(None);
        };
        scheduler.start(task).expect("a stack can be had");
        resume_unwind(Box::new("around the scheduler"));
    }));
    assert!(unwound.is_err());
    assert_eq!(dropped.get(), 0);
}
