//! Stacks: what an overflow hits, what many cost, what happens when there are no more, and that
//! idle ones give their memory back.
//!
//! Memory is read from `/proc/self`, so the tests of this file run one at a time.

use std::cell::{Cell, RefCell};
use std::fs;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meinheld_coro::{
    Clock, Config, Continuation, RunError, Scheduler, StackError, park, sleep, spawn, yield_now,
};

const STACK_BYTES: usize = 256 * 1024;
const SIGSEGV: i32 = 11;

/// Set in the process that is to overflow a stack.
const OVERFLOW: &str = "MEINHELD_TEST_OVERFLOW";

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scheduler(coroutines_max: usize) -> Scheduler {
    Scheduler::new(Config {
        stack_bytes: STACK_BYTES,
        coroutines_max,
        clock: Clock::Virtual,
        ..Config::default()
    })
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok());
    kilobytes.expect("a number of kB") * 1024
}

fn mappings() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this is Linux");
    let hex = |text: &str| usize::from_str_radix(text, 16).expect("an address");
    let ranges = maps.lines().map(|line| line.split_once(' ').expect("a range").0);
    ranges
        .map(|range| range.split_once('-').expect("two ends"))
        .map(|(a, b)| (hex(a), hex(b)))
        .collect()
}

fn here<T>() -> Continuation<T> {
    Continuation::current().expect("this is a task")
}

/// Goes down the stack until `bytes` of it are in use, then calls `at_the_bottom`.
fn descend(bytes: usize, at_the_bottom: &mut dyn FnMut()) {
    fn step(until: usize, at_the_bottom: &mut dyn FnMut()) {
        let page = black_box([0_u8; 2048]);
        if page.as_ptr().addr() > until {
            step(until, at_the_bottom);
        } else {
            at_the_bottom();
        }
        black_box(page);
    }
    let top = 0_u8;
    step(black_box(&raw const top).addr() - bytes, at_the_bottom);
}

// ------------------------------------------------------------------ overflow

/// The second stack lies above the first. Its task goes down further than its stack is long, but
/// not so far that it would leave the first: without a guard between them nothing would fault.
#[test]
fn an_overflow_is_a_fault_and_does_not_reach_the_neighbour() {
    if std::env::var_os(OVERFLOW).is_some() {
        overflow();
        return;
    }
    let _alone = one_at_a_time();
    let this = std::env::current_exe().unwrap();
    let name = "an_overflow_is_a_fault_and_does_not_reach_the_neighbour";
    let run = Command::new(this).args(["--exact", name]).env(OVERFLOW, "1").output().unwrap();
    assert_eq!(run.status.signal(), Some(SIGSEGV), "{run:?}");
}

fn overflow() {
    let scheduler = scheduler(2);
    scheduler.start(|| drop(park(None))).expect("the neighbour below");
    let too_deep = || descend(STACK_BYTES + STACK_BYTES / 2, &mut || std::process::exit(0));
    scheduler.start(too_deep).expect("the overflow");
}

#[test]
fn a_stack_is_as_deep_as_asked_for() {
    let _alone = one_at_a_time();
    let reached = Rc::new(Cell::new(false));
    let set = Rc::clone(&reached);
    let task = move || descend(STACK_BYTES - 48 * 1024, &mut || set.set(true));
    scheduler(1).start(task).unwrap();
    assert!(reached.get());
}

#[test]
fn a_senseless_size_is_an_error_or_works() {
    let _alone = one_at_a_time();
    for stack_bytes in [0, 1, usize::MAX, usize::MAX / 1024, (1 << 54) + 4096] {
        let scheduler = Scheduler::new(Config { stack_bytes, ..Config::default() });
        let ran = Rc::new(Cell::new(false));
        let set = Rc::clone(&ran);
        match scheduler.start(move || set.set(true)) {
            Ok(()) => assert!(ran.get()),
            Err(error) => assert!(matches!(error, StackError::NoAddressSpace { .. }), "{error}"),
        }
    }
}

// ------------------------------------------------------------------ many

#[test]
fn a_hundred_thousand_parked_tasks_add_few_mappings_and_a_page_or_two_each() {
    const TASKS: usize = 100_000;
    let _alone = one_at_a_time();
    let scheduler = scheduler(TASKS);
    scheduler.start(|| ()).unwrap();
    let (mappings_before, bytes_before) = (mappings().len(), resident_bytes());
    for count in 0..TASKS {
        match scheduler.start(|| drop(park(None))) {
            Ok(()) => {}
            // Without cheap guards the kernel's limit ends it, at about half of 65,530 mappings.
            Err(StackError::MappingsExhausted { .. }) if !has_cheap_guards() => {
                assert!(count > 10_000, "{count} stacks");
                return;
            }
            Err(error) => panic!("{count} stacks: {error}"),
        }
    }
    let mappings = mappings().len().saturating_sub(mappings_before);
    let bytes = resident_bytes().saturating_sub(bytes_before) / TASKS;
    println!("{TASKS} parked tasks: {mappings} more mappings, {bytes} bytes resident each");
    assert!(mappings <= 8, "{mappings} more mappings");
    assert!(bytes <= 9 * 1024, "{bytes} bytes resident each");
    assert_eq!(scheduler.shutdown().ended, TASKS);
}

/// Whether the kernel is Linux 6.13 or later.
fn has_cheap_guards() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("this is Linux");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

#[test]
fn what_a_scheduler_mapped_is_unmapped_with_it() {
    let _alone = one_at_a_time();
    let address = Rc::new(Cell::new(0));
    let set = Rc::clone(&address);
    let scheduler = scheduler(10);
    scheduler.start(move || set.set((&raw const set).addr())).unwrap();
    assert!(is_mapped(address.get()));
    drop(scheduler);
    assert!(!is_mapped(address.get()));
}

#[test]
fn the_stack_of_an_abandoned_task_stays_mapped() {
    let _alone = one_at_a_time();
    let address = Rc::new(Cell::new(0));
    let set = Rc::clone(&address);
    let scheduler = scheduler(10);
    let refuses = move || {
        set.set((&raw const set).addr());
        loop {
            let _ = park(None);
        }
    };
    scheduler.start(refuses).unwrap();
    assert_eq!(scheduler.shutdown().abandoned, 1);
    drop(scheduler);
    assert!(is_mapped(address.get()));
}

fn is_mapped(address: usize) -> bool {
    mappings().iter().any(|(start, end)| (*start..*end).contains(&address))
}

// ------------------------------------------------------------------ too many

#[test]
fn tasks_beyond_the_limit_wait_and_are_then_run_in_their_order() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(3);
    let order = Rc::new(RefCell::new(Vec::new()));
    let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for number in 0..10 {
        let (order, running, most) = (Rc::clone(&order), Rc::clone(&running), Rc::clone(&most));
        scheduler.spawn(move || {
            order.borrow_mut().push(number);
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            sleep(Duration::from_secs(1)).expect("nobody cancels it");
            running.set(running.get() - 1);
        });
    }
    scheduler.run().unwrap();
    assert_eq!(*order.borrow(), (0..10).collect::<Vec<_>>());
    assert_eq!(most.get(), 3);
    assert_eq!(scheduler.coroutine_counts().made, 3);
}

#[test]
fn start_tells_that_the_limit_is_reached_and_drops_the_function() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(1);
    scheduler.start(|| drop(park(None))).unwrap();
    let held = Rc::new(());
    let moved = Rc::clone(&held);
    let refused = scheduler.start(move || drop(moved));
    assert!(matches!(refused, Err(StackError::LimitReached { coroutines_max: 1 })));
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_task_that_is_cancelled_while_it_waits_for_a_stack_does_not_hold_up_the_next() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(1);
    let told = Rc::new(RefCell::new(None));
    let tell = Rc::clone(&told);
    let blocker = move || {
        tell.replace(Some(here::<()>()));
        let blocker = tell.borrow().clone().expect("just set");
        blocker.suspend(None).expect("it is resumed");
    };
    scheduler.start(blocker).unwrap();
    let cancelled = scheduler.spawn(|| ());
    let ran = Rc::new(Cell::new(false));
    let set = Rc::clone(&ran);
    scheduler.spawn(move || set.set(true));
    scheduler.run_ready();
    assert!(cancelled.cancel());
    told.take().unwrap().resume(()).unwrap();
    while scheduler.run_ready() > 0 {}
    assert!(ran.get());
}

#[test]
fn a_run_that_waits_for_a_stack_in_vain_says_so_and_can_be_repeated() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(1);
    scheduler.start(|| drop(park(None))).unwrap();
    let parked = scheduler.suspended()[0].task;
    let ran = Rc::new(Cell::new(false));
    let set = Rc::clone(&ran);
    scheduler.spawn(move || set.set(true));
    let vain = scheduler.run();
    assert!(matches!(vain, Err(RunError::Stack(StackError::LimitReached { .. }))), "{vain:?}");
    scheduler.cancel(parked);
    scheduler.run().unwrap();
    assert!(ran.get());
}

#[test]
fn a_shortage_that_is_over_is_not_blamed_for_a_later_stall() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(1);
    scheduler.spawn(|| yield_now().expect("nobody cancels it"));
    scheduler.spawn(|| ());
    scheduler.run().unwrap();
    scheduler.spawn(|| park(None));
    let stalled = scheduler.run();
    assert!(matches!(stalled, Err(RunError::Stalled { suspended: 1 })), "{stalled:?}");
}

#[test]
fn no_coroutine_at_all_is_an_error_and_not_a_wait() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(0);
    scheduler.spawn(|| ());
    assert!(matches!(scheduler.run(), Err(RunError::Stack(_))));
    assert!(scheduler.start(|| ()).is_err());
}

// ------------------------------------------------------------------ idle

#[test]
fn stacks_that_have_been_idle_for_long_give_their_memory_back() {
    const TASKS: usize = 200;
    const DEPTH: usize = 128 * 1024;
    let _alone = one_at_a_time();
    let scheduler = scheduler(TASKS);
    use_deep_stacks(&scheduler, TASKS, DEPTH);
    let in_use = resident_bytes();
    let due = scheduler.next_deadline().expect("idle stacks are due to be trimmed");
    scheduler.advance(due.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(resident_bytes() + DEPTH > in_use, "it is not time yet");
    advance_until_nothing_is_due(&scheduler);
    let given_back = in_use.saturating_sub(resident_bytes());
    assert!(given_back > TASKS * DEPTH / 2, "{given_back} bytes were given back");
    use_deep_stacks(&scheduler, TASKS, DEPTH);
    assert_eq!(scheduler.coroutine_counts().made, TASKS, "they are used again");
    assert!(scheduler.next_deadline().is_some(), "and will be trimmed again");
}

#[test]
fn a_stack_that_is_in_use_is_not_trimmed() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(2);
    let intact = Rc::new(Cell::new(false));
    let set = Rc::clone(&intact);
    let deep = move || {
        let page = black_box([7_u8; 8192]);
        descend(64 * 1024, &mut || drop(park(None)));
        set.set(page.iter().all(|&byte| byte == 7));
    };
    scheduler.start(deep).unwrap();
    scheduler.start(|| ()).unwrap();
    advance_until_nothing_is_due(&scheduler);
    scheduler.advance(Instant::now() + Duration::from_secs(3600));
    assert_eq!(scheduler.shutdown().ended, 1);
    assert!(intact.get());
}

/// Parks as many tasks deep down at the same time, then lets them end.
fn use_deep_stacks(scheduler: &Scheduler, tasks: usize, depth: usize) {
    for _ in 0..tasks {
        let deep = move || descend(depth, &mut || yield_now().expect("nobody cancels it"));
        scheduler.start(deep).expect("within the limit");
    }
    scheduler.run_ready();
    assert_eq!(scheduler.task_count(), 0);
    assert_eq!(scheduler.coroutine_counts().idle, tasks);
}

fn advance_until_nothing_is_due(scheduler: &Scheduler) {
    for _ in 0..1000 {
        let Some(due) = scheduler.next_deadline() else { return };
        scheduler.advance(due);
    }
    panic!("something is always due");
}

#[test]
fn a_running_scheduler_trims_while_it_sleeps() {
    let _alone = one_at_a_time();
    let scheduler = scheduler(4);
    use_deep_stacks(&scheduler, 4, 64 * 1024);
    assert!(scheduler.next_deadline().is_some());
    scheduler.spawn(|| {
        for _ in 0..3 {
            spawn(|| ());
            sleep(Duration::from_secs(10)).expect("nobody cancels it");
        }
    });
    scheduler.run().unwrap();
    let due = scheduler.next_deadline().expect("the last ones to become idle");
    scheduler.advance(due);
    assert_eq!(scheduler.next_deadline(), None, "all others have been trimmed on the way");
}
