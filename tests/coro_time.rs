//! Time: sleeps and time-outs, their order, and the two ways to let time pass.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use meinheld_coro::{
    Clock, Config, Continuation, Interrupt, Refusal, RunError, Scheduler, Timers, now, park, sleep,
    spawn, spawn_at, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

#[test]
fn on_a_virtual_clock_a_sleep_takes_exactly_its_time_and_no_other() {
    let began = Instant::now();
    let day = Duration::from_secs(86_400);
    let slept = scheduler().block_on(move || {
        let before = now();
        sleep(day).unwrap();
        now() - before
    });
    assert_eq!(slept.unwrap(), day);
    assert!(began.elapsed() < day, "nothing has waited for it");
}

#[test]
fn a_virtual_clock_stands_still_while_tasks_run() {
    let same = scheduler().block_on(|| {
        let before = now();
        (0..1000).for_each(|_| yield_now().unwrap());
        now() == before
    });
    assert!(same.unwrap());
}

#[test]
fn on_the_real_clock_a_sleep_is_not_shorter_than_asked() {
    let began = Instant::now();
    let asked = Duration::from_millis(5);
    Scheduler::new(Config::default()).block_on(move || sleep(asked)).unwrap().unwrap();
    assert!(began.elapsed() >= asked);
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines_and_then_of_going_to_sleep() {
    let scheduler = scheduler();
    let order = Rc::new(RefCell::new(Vec::new()));
    for (seconds, name) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
        let order = Rc::clone(&order);
        scheduler.spawn(move || {
            sleep(SECOND * seconds).unwrap();
            order.borrow_mut().push(name);
        });
    }
    scheduler.run().unwrap();
    assert_eq!(*order.borrow(), ['a', 'b', 'c', 'd']);
}

#[test]
fn a_sleep_of_no_time_still_lets_others_run() {
    let ran = scheduler().block_on(|| {
        let ran = Rc::new(Cell::new(false));
        let set = Rc::clone(&ran);
        spawn(move || set.set(true));
        sleep(Duration::ZERO).unwrap();
        ran.get()
    });
    assert!(ran.unwrap());
}

#[test]
fn a_cancelled_sleep_ends_at_once() {
    let (woken, waited) = scheduler()
        .block_on(|| {
            let before = now();
            let sleeper = spawn(|| sleep(SECOND * 3600));
            yield_now().unwrap();
            sleeper.cancel();
            (sleeper.join().unwrap(), now() - before)
        })
        .unwrap();
    assert!(matches!(woken, Err(Interrupt::Cancelled)));
    assert_eq!(waited, Duration::ZERO);
}

#[test]
fn sleep_outside_of_a_task_is_refused() {
    assert!(matches!(sleep(SECOND), Err(Interrupt::Refused(Refusal::NoTask))));
    assert!(matches!(park(None), Err(Interrupt::Refused(Refusal::NoTask))));
    assert!(matches!(yield_now(), Err(Interrupt::Refused(Refusal::NoTask))));
}

#[test]
fn a_time_too_long_to_add_is_no_limit() {
    let scheduler = scheduler();
    scheduler.spawn(|| sleep(Duration::MAX));
    assert!(matches!(scheduler.run(), Err(RunError::Stalled { suspended: 1 })));
    assert_eq!(scheduler.suspended()[0].deadline, None);
}

#[test]
fn a_deadline_that_has_passed_already_times_out_at_the_next_turn() {
    let ended = scheduler().block_on(|| park(now().checked_sub(SECOND)));
    assert!(matches!(ended.unwrap(), Err(Interrupt::TimedOut)));
}

#[test]
fn a_loop_around_the_scheduler_decides_what_time_it_is() {
    let scheduler = Scheduler::new(Config::default());
    let ended = Rc::new(Cell::new(None));
    let set = Rc::clone(&ended);
    let deadline = Instant::now() + SECOND * 3600;
    let task = move || set.set(Some(park(Some(deadline)).is_err()));
    scheduler.start(task).unwrap();
    assert_eq!(scheduler.next_deadline(), Some(deadline));
    scheduler.advance(deadline.checked_sub(Duration::from_nanos(1)).unwrap());
    assert_eq!(scheduler.run_ready(), 0);
    scheduler.advance(deadline);
    assert_eq!(scheduler.run_ready(), 1);
    assert_eq!(ended.get(), Some(true));
}

#[test]
fn a_wait_that_ended_leaves_no_timer_behind() {
    let scheduler = scheduler();
    let told = Rc::new(RefCell::new(None));
    let tell = Rc::clone(&told);
    let task = move || {
        let here = Continuation::current().expect("this is a task");
        tell.replace(Some(here.clone()));
        here.suspend(Some(SECOND)).expect("it is resumed in time");
        park(None).expect("nothing else wakes it");
    };
    scheduler.start(task).unwrap();
    assert!(scheduler.next_deadline().is_some());
    told.take().unwrap().resume(()).unwrap();
    assert_eq!(scheduler.next_deadline(), None);
    scheduler.run_ready();
    assert_eq!(scheduler.suspended().len(), 1);
}

#[test]
fn the_earliest_of_many_deadlines_is_the_next() {
    let scheduler = scheduler();
    let base = Instant::now() + SECOND * 60;
    for offset in [5, 2, 9, 2, 7] {
        let task = move || drop(park(Some(base + SECOND * offset)));
        scheduler.start(task).unwrap();
    }
    let mut told = Vec::new();
    while scheduler.task_count() > 0 {
        let deadline = scheduler.next_deadline().unwrap();
        scheduler.advance(deadline);
        told.push(((deadline - base).as_secs(), scheduler.run_ready()));
    }
    assert_eq!(told, [(2, 2), (5, 1), (7, 1), (9, 1)]);
}

#[test]
fn timers_hand_back_their_keys_once() {
    let start = Instant::now();
    let mut timers = Timers::default();
    let ids: Vec<_> =
        (0..1000_u32).map(|key| timers.arm(start + SECOND * (key % 7), key)).collect();
    for id in ids.iter().step_by(2) {
        assert!(timers.cancel(*id).is_some());
        assert!(timers.cancel(*id).is_none());
    }
    let expired: Vec<u32> = std::iter::from_fn(|| timers.pop_expired(start + SECOND * 6)).collect();
    let mut expected: Vec<u32> = (0..1000).filter(|key| key % 2 == 1).collect();
    expected.sort_by_key(|key| key % 7);
    assert_eq!(expired, expected);
    assert!(timers.is_empty());
}

#[test]
fn scheduled_tasks_begin_in_the_order_of_their_times_and_hold_no_coroutine_before() {
    let scheduler = scheduler();
    let order = Rc::new(RefCell::new(Vec::new()));
    let start = now();
    for (seconds, name) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
        let order = Rc::clone(&order);
        scheduler.spawn_at(start + SECOND * seconds, move || order.borrow_mut().push(name));
    }
    assert_eq!(scheduler.coroutine_counts().made, 0);
    scheduler.run().unwrap();
    assert_eq!(*order.borrow(), ['a', 'b', 'c', 'd']);
    assert_eq!(scheduler.coroutine_counts().made, 1);
}

#[test]
fn a_scheduled_task_can_be_joined_cancelled_and_may_park() {
    let outcome = scheduler().block_on(|| {
        let begun = now();
        let task = spawn_at(begun + SECOND, move || {
            sleep(SECOND).unwrap();
            now() - begun
        });
        let never = spawn_at(begun + SECOND, || unreachable!("it was cancelled"));
        assert!(never.cancel());
        (task.join().unwrap(), never.join().map_err(|error| error.to_string()))
    });
    let cancelled = "the task was cancelled before it began".to_owned();
    assert_eq!(outcome.unwrap(), (2 * SECOND, Err(cancelled)));
}

#[test]
fn a_shutdown_drops_what_has_not_begun() {
    let scheduler = scheduler();
    let held = Rc::new(());
    let moved = Rc::clone(&held);
    scheduler.spawn_at(now() + SECOND, move || drop(moved));
    assert_eq!(scheduler.shutdown().ended, 1);
    assert_eq!((Rc::strong_count(&held), scheduler.next_deadline()), (1, None));
}

#[test]
fn code_around_the_tasks_can_spawn_within_its_scheduler_and_not_park() {
    let scheduler = scheduler();
    let ran = Rc::new(Cell::new(false));
    let noted = Rc::clone(&ran);
    scheduler.within(|| {
        spawn(move || noted.set(true));
        assert!(matches!(sleep(SECOND), Err(Interrupt::Refused(Refusal::NoTask))));
    });
    scheduler.run().unwrap();
    assert!(ran.get());
}
