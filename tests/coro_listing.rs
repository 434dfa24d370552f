//! The list of what is suspended: which tasks, at which line, since when and until when.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Continuation, Scheduler, Suspended, channel, now, park, sleep, spawn, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

fn place(suspended: &Suspended) -> (&'static str, u32) {
    (suspended.location.file(), suspended.location.line())
}

#[test]
fn every_kind_of_wait_is_listed_with_the_line_of_the_caller() {
    let scheduler = scheduler();
    let here = || Continuation::<()>::current().unwrap();
    let (never, receiver) = channel::unbounded::<()>();
    let (full, _kept) = channel::bounded(1);
    full.try_send(()).unwrap();
    let timed = receiver.clone();
    let first = line!() + 2;
    let tasks: [Box<dyn FnOnce()>; 8] = [
        Box::new(|| drop(sleep(SECOND))),
        Box::new(|| drop(park(None))),
        Box::new(move || drop(here().suspend(None))),
        Box::new(move || drop(here().suspend_watched(None, |_| ()))),
        Box::new(move || drop(receiver.receive())),
        Box::new(move || drop(timed.receive_timeout(SECOND))),
        Box::new(move || drop(full.send(()))),
        Box::new(|| drop(spawn(|| park(None)).join())),
    ];
    for task in tasks {
        scheduler.start(task).unwrap();
    }
    let lines: Vec<_> = scheduler.suspended().iter().map(place).collect();
    let expected: Vec<_> = (first..first + 8).map(|line| (file!(), line)).collect();
    assert_eq!(lines, expected);
    drop(never);
}

#[test]
fn a_wait_is_listed_with_its_beginning_and_its_deadline() {
    let scheduler = scheduler();
    let began = scheduler.block_on(now).unwrap();
    scheduler.spawn(|| {
        sleep(SECOND * 5).unwrap();
        Continuation::<()>::current().unwrap().suspend(Some(SECOND * 7))
    });
    scheduler.spawn(|| park(None));
    scheduler.block_on(|| sleep(SECOND * 6).unwrap()).unwrap();
    let listed = scheduler.suspended();
    let times: Vec<_> = listed
        .iter()
        .map(|one| (one.since - began, one.deadline.map(|deadline| deadline - began)))
        .collect();
    assert_eq!(times, [(Duration::ZERO, None), (SECOND * 5, Some(SECOND * 12))]);
}

#[test]
fn who_has_waited_longest_is_listed_first() {
    let scheduler = scheduler();
    let names = Rc::new(RefCell::new(Vec::new()));
    for (name, seconds) in [('b', 2), ('c', 3), ('a', 1)] {
        let names = Rc::clone(&names);
        scheduler.spawn(move || {
            names.borrow_mut().push((meinheld_coro::current_task(), name));
            sleep(SECOND * seconds).unwrap();
            park(None)
        });
    }
    scheduler.block_on(|| sleep(SECOND * 4).unwrap()).unwrap();
    let name_of = |one: &Suspended| {
        let names = names.borrow();
        names.iter().find(|(task, _)| *task == Some(one.task)).map(|(_, name)| *name)
    };
    let listed: Vec<_> = scheduler.suspended().iter().filter_map(name_of).collect();
    assert_eq!(listed, ['a', 'b', 'c']);
}

#[test]
fn what_runs_or_is_ready_is_not_listed() {
    let scheduler = Rc::new(scheduler());
    let own = Rc::clone(&scheduler);
    scheduler
        .block_on(move || {
            spawn(|| ()); // has not begun
            spawn(|| while yield_now().is_ok() {}); // is ready
            let waiting = spawn(|| park(None));
            yield_now().unwrap();
            let listed: Vec<_> = own.suspended().iter().map(|one| one.task).collect();
            assert_eq!(listed, [waiting.id()]);
            assert_eq!(own.task_count(), 3);
        })
        .unwrap();
}

#[test]
fn a_task_is_off_the_list_as_soon_as_it_is_woken() {
    let scheduler = scheduler();
    scheduler.spawn(|| sleep(SECOND));
    scheduler.run_ready();
    assert_eq!(scheduler.suspended().len(), 1);
    scheduler.advance(scheduler.next_deadline().unwrap());
    assert!(scheduler.suspended().is_empty());
    assert_eq!(scheduler.task_count(), 1);
}
