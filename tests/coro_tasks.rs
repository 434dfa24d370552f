//! Tasks: their order, their results, their panics, and how they are cancelled.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Continuation, Interrupt, JoinError, Refusal, RunError, Scheduler, TaskId,
    current_task, park, park_watched, sleep, spawn, spawn_detached, ticket, yield_now,
};

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

/// Sets its flag when it is dropped.
struct Flag(Rc<Cell<bool>>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn flag() -> (Flag, Rc<Cell<bool>>) {
    let set = Rc::new(Cell::new(false));
    (Flag(Rc::clone(&set)), set)
}

/// What many tasks write to, and the test reads.
type Log = Rc<RefCell<Vec<u32>>>;

fn log() -> (Log, Log) {
    let log = Rc::new(RefCell::new(Vec::new()));
    (Rc::clone(&log), log)
}

// ------------------------------------------------------------------- order

#[test]
fn tasks_begin_in_the_order_in_which_they_were_spawned() {
    let scheduler = scheduler();
    let (order, read) = log();
    for number in 0..10 {
        let order = Rc::clone(&order);
        scheduler.spawn(move || order.borrow_mut().push(number));
    }
    scheduler.run().unwrap();
    assert_eq!(*read.borrow(), (0..10).collect::<Vec<_>>());
}

#[test]
fn yield_lets_every_other_ready_task_run_first() {
    let scheduler = scheduler();
    let (order, read) = log();
    for number in [1, 10, 100] {
        let order = Rc::clone(&order);
        scheduler.spawn(move || {
            for round in 1..=2 {
                order.borrow_mut().push(number * round);
                yield_now().unwrap();
            }
        });
    }
    scheduler.run().unwrap();
    assert_eq!(*read.borrow(), [1, 10, 100, 2, 20, 200]);
}

#[test]
fn one_call_of_run_ready_runs_what_was_ready_when_it_began() {
    let scheduler = scheduler();
    let (order, read) = log();
    scheduler.spawn(move || {
        order.borrow_mut().push(1);
        let inner = Rc::clone(&order);
        spawn(move || inner.borrow_mut().push(2));
        yield_now().unwrap();
        order.borrow_mut().push(3);
    });
    assert_eq!(scheduler.run_ready(), 1);
    assert_eq!(*read.borrow(), [1]);
    assert_eq!(scheduler.run_ready(), 2);
    assert_eq!(*read.borrow(), [1, 2, 3]);
    assert_eq!(scheduler.run_ready(), 0);
}

#[test]
fn a_detached_task_runs_among_the_others_and_can_be_cancelled() {
    let scheduler = scheduler();
    let (order, read) = log();
    let task = |number| {
        let order = Rc::clone(&order);
        move || order.borrow_mut().push(number)
    };
    scheduler.spawn(task(1));
    let ids = scheduler.within(|| [2, 3].map(|number| spawn_detached(task(number))));
    scheduler.spawn(task(4));
    assert!(ids[0].cancel());
    assert_eq!(ids.map(TaskId::is_alive), [false, true]);
    scheduler.run().unwrap();
    assert_eq!(*read.borrow(), [1, 3, 4]);
    assert!(!ids[1].is_alive());
}

#[test]
fn a_park_is_told_its_ticket_and_is_no_other_tasks() {
    let scheduler = scheduler();
    let told = Rc::new(Cell::new(None));
    let tell = Rc::clone(&told);
    let task = scheduler.spawn(move || {
        let here = current_task().expect("this is a task");
        let first = park_watched(here, None, |ticket| tell.set(Some(ticket)));
        first.and_then(|()| park_watched(here, None, |ticket| assert!(ticket.interrupt())))
    });
    scheduler.run_ready();
    let (id, ticket) = (task.id(), told.take().expect("it was told"));
    let other = scheduler.spawn(move || park_watched(id, None, |_| panic!("it does not park")));
    scheduler.run_ready();
    assert_eq!(std::thread::spawn(move || ticket.try_wake()).join().unwrap(), None);
    assert_eq!([ticket.try_wake(), ticket.try_wake()], [Some(true), Some(false)]);
    let ended = scheduler.block_on(move || (other.join().unwrap(), task.join().unwrap())).unwrap();
    assert!(matches!(ended.0, Err(Interrupt::Refused(Refusal::OtherTask))));
    assert!(matches!(ended.1, Err(Interrupt::Interrupted)));
}

#[test]
fn start_runs_the_task_at_once_until_it_parks() {
    let scheduler = scheduler();
    let (order, read) = log();
    let task = move || {
        order.borrow_mut().push(1);
        sleep(Duration::from_secs(1)).unwrap();
        order.borrow_mut().push(2);
    };
    scheduler.start(task).unwrap();
    assert_eq!(*read.borrow(), [1]);
    scheduler.run().unwrap();
    assert_eq!(*read.borrow(), [1, 2]);
}

#[test]
fn tasks_that_follow_each_other_share_one_coroutine() {
    let scheduler = scheduler();
    for _ in 0..1000 {
        scheduler.start(|| ()).unwrap();
    }
    assert_eq!(scheduler.coroutine_counts().made, 1);
    assert_eq!(scheduler.coroutine_counts().idle, 1);
    assert_eq!(scheduler.task_count(), 0);
}

#[test]
fn each_task_has_a_name_of_its_own() {
    let scheduler = scheduler();
    let first = scheduler.block_on(|| current_task().unwrap()).unwrap();
    let second = scheduler.block_on(|| current_task().unwrap()).unwrap();
    assert_ne!(first, second);
    assert!(!scheduler.cancel(first), "the name of an ended task names nothing");
}

// -------------------------------------------------------------------- join

#[test]
fn join_waits_for_the_result() {
    let scheduler = scheduler();
    let got = scheduler.block_on(|| {
        let slow = spawn(|| sleep(Duration::from_secs(3600)).map(|()| "slow").unwrap());
        let fast = spawn(|| "fast");
        (slow.join().unwrap(), fast.join().unwrap(), fast.is_finished())
    });
    assert_eq!(got.unwrap(), ("slow", "fast", true));
}

#[test]
fn a_result_is_taken_once_and_every_waiter_is_woken() {
    let scheduler = scheduler();
    let (one, other) = scheduler
        .block_on(|| {
            let task = Rc::new(spawn(|| sleep(Duration::from_secs(1)).map(|()| 1).unwrap()));
            let second = Rc::clone(&task);
            let other = spawn(move || second.join());
            (task.join(), other.join().unwrap())
        })
        .unwrap();
    let results = [one, other];
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(1))).count(), 1);
    assert!(results.iter().any(|result| matches!(result, Err(JoinError::Taken))));
}

#[test]
fn a_join_that_timed_out_can_be_repeated() {
    let result = scheduler().block_on(|| {
        let task = spawn(|| sleep(Duration::from_secs(10)).map(|()| 5).unwrap());
        let early = task.join_timeout(Duration::from_secs(1));
        assert!(matches!(early, Err(JoinError::Interrupted(Interrupt::TimedOut))));
        task.join()
    });
    assert_eq!(result.unwrap().unwrap(), 5);
}

#[test]
fn join_outside_of_a_task_is_refused() {
    let scheduler = scheduler();
    let task = scheduler.spawn(|| ());
    let refused = task.join();
    assert!(matches!(refused, Err(JoinError::Interrupted(Interrupt::Refused(Refusal::NoTask)))));
}

#[test]
fn block_on_returns_although_another_task_never_rests() {
    let scheduler = scheduler();
    scheduler.spawn(|| while yield_now().is_ok() {});
    assert_eq!(scheduler.block_on(|| 3).unwrap(), 3);
}

#[test]
fn a_run_that_cannot_go_on_says_how_many_tasks_wait() {
    let scheduler = scheduler();
    for _ in 0..3 {
        scheduler.spawn(|| park(None));
    }
    let stalled = scheduler.run();
    assert!(matches!(stalled, Err(RunError::Stalled { suspended: 3 })));
}

// ------------------------------------------------------------------- panics

#[test]
fn a_panic_stays_in_its_task() {
    let (failed, other) = scheduler()
        .block_on(|| {
            let failing = spawn(|| -> u8 { resume_unwind(Box::new("no luck".to_owned())) });
            let other = spawn(|| 1);
            (failing.join().unwrap_err(), other.join().unwrap())
        })
        .unwrap();
    assert_eq!(failed.to_string(), "the task panicked: no luck");
    assert_eq!(other, 1);
}

#[test]
fn a_panic_after_a_switch_is_caught_too_and_runs_the_destructors() {
    let scheduler = scheduler();
    let (flag, dropped) = flag();
    let task = move || {
        let _flag = flag;
        sleep(Duration::from_secs(1)).unwrap();
        resume_unwind(Box::new(()));
    };
    scheduler.start(task).unwrap();
    scheduler.run().unwrap();
    assert!(dropped.get());
    assert_eq!(scheduler.coroutine_counts().idle, 1, "its coroutine is used again");
    assert_eq!(scheduler.block_on(|| 1).unwrap(), 1);
}

#[test]
fn a_payload_that_parks_when_it_is_dropped_leaves_the_coroutine_whole() {
    struct Parks;
    impl Drop for Parks {
        fn drop(&mut self) {
            sleep(Duration::from_secs(1)).unwrap();
        }
    }
    let scheduler = scheduler();
    scheduler.start(|| resume_unwind(Box::new(Parks))).unwrap();
    assert_eq!(scheduler.task_count(), 1);
    scheduler.run().unwrap();
    assert_eq!(scheduler.coroutine_counts().idle, 1);
    assert_eq!(scheduler.block_on(|| 1).unwrap(), 1);
}

#[test]
fn a_payload_that_panics_when_it_is_dropped_stays_in_its_task() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            resume_unwind(Box::new("twice"));
        }
    }
    let scheduler = scheduler();
    scheduler.start(|| resume_unwind(Box::new(Panics))).unwrap();
    assert_eq!(scheduler.block_on(|| 1).unwrap(), 1);
    assert_eq!(scheduler.coroutine_counts().made, 1);
}

#[test]
fn a_result_that_panics_when_it_is_dropped_stays_in_its_task() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            resume_unwind(Box::new("in the result"));
        }
    }
    let scheduler = scheduler();
    drop(scheduler.spawn(|| Panics));
    scheduler.run().unwrap();
    assert_eq!(scheduler.block_on(|| 1).unwrap(), 1);
}

// ------------------------------------------------------------------- cancel

#[test]
fn a_parked_task_is_cancelled_where_it_waits() {
    let ended = scheduler().block_on(|| {
        let task = spawn(|| sleep(Duration::from_secs(3600)));
        yield_now().unwrap();
        assert!(task.cancel());
        task.join().unwrap()
    });
    assert!(matches!(ended.unwrap(), Err(Interrupt::Cancelled)));
}

#[test]
fn a_task_that_has_not_begun_never_will() {
    let (flag, dropped) = flag();
    let joined = scheduler().block_on(move || {
        let task = spawn(move || drop(flag));
        assert!(task.cancel());
        assert!(!task.cancel(), "it has ended");
        task.join()
    });
    assert!(matches!(joined.unwrap(), Err(JoinError::Cancelled)));
    assert!(dropped.get(), "what it would have used is dropped");
}

#[test]
fn cancelling_from_the_loop_outside_wakes_who_joins() {
    let scheduler = scheduler();
    let told = Rc::new(RefCell::new(None));
    let tell = Rc::clone(&told);
    let waiting = scheduler.spawn(move || {
        let fresh = spawn(|| ());
        tell.replace(Some(fresh.id()));
        fresh.join()
    });
    scheduler.run_ready();
    assert!(scheduler.cancel(told.take().unwrap()));
    let joined = scheduler.block_on(move || waiting.join().unwrap()).unwrap();
    assert!(matches!(joined, Err(JoinError::Cancelled)));
}

#[test]
fn a_handle_cancels_also_outside_of_a_task() {
    let scheduler = scheduler();
    let task = scheduler.spawn(|| park(None));
    scheduler.run_ready();
    assert!(task.cancel());
    let ended = scheduler.block_on(move || task.join().unwrap()).unwrap();
    assert!(matches!(ended, Err(Interrupt::Cancelled)));
}

#[test]
fn a_task_that_is_about_to_run_is_told_at_its_next_park() {
    let (first, second) = scheduler()
        .block_on(|| {
            let task = spawn(|| {
                let here = Continuation::current().unwrap();
                spawn({
                    let here = here.clone();
                    move || here.resume(()).unwrap()
                });
                (here.suspend(None), sleep(Duration::from_secs(1)))
            });
            yield_now().unwrap(); // the task suspends
            yield_now().unwrap(); // and is resumed, but has not run yet
            task.cancel();
            task.join().unwrap()
        })
        .unwrap();
    assert!(first.is_ok());
    assert!(matches!(second, Err(Interrupt::Cancelled)));
}

#[test]
fn a_task_may_cancel_itself() {
    let scheduler = Rc::new(scheduler());
    let own = Rc::clone(&scheduler);
    let parks = scheduler.block_on(move || {
        own.cancel(current_task().unwrap());
        (sleep(Duration::from_secs(1)), sleep(Duration::from_secs(1)))
    });
    let (first, second) = parks.unwrap();
    assert!(matches!(first, Err(Interrupt::Cancelled)));
    assert!(second.is_ok(), "it is told once");
}

#[test]
fn what_a_cancelled_task_held_may_use_the_scheduler_when_it_is_dropped() {
    struct Spawns(Rc<RefCell<Vec<u32>>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let log = Rc::clone(&self.0);
            spawn(move || log.borrow_mut().push(1));
        }
    }
    let (order, read) = log();
    scheduler()
        .block_on(|| {
            let held = Spawns(order);
            let task = spawn(move || drop(held));
            task.cancel();
            yield_now().unwrap();
        })
        .unwrap();
    assert_eq!(*read.borrow(), [1]);
}

// ------------------------------------------------------------------ tickets

#[test]
fn a_ticket_wakes_from_a_task_and_from_the_loop_outside() {
    let scheduler = scheduler();
    let told = Rc::new(Cell::new(None));
    let tell = Rc::clone(&told);
    let task = scheduler.spawn(move || {
        tell.set(ticket());
        let first = park(None);
        tell.set(ticket());
        (first, park(None))
    });
    scheduler.run_ready();
    assert!(told.get().unwrap().wake(), "outside of every task");
    scheduler.run_ready();
    let second = told.get().unwrap();
    let parks = scheduler
        .block_on(move || {
            assert!(second.interrupt());
            task.join().unwrap()
        })
        .unwrap();
    assert!(matches!(parks, (Ok(()), Err(Interrupt::Interrupted))));
}

#[test]
fn a_ticket_of_a_wait_that_is_over_does_not_end_a_later_one() {
    let scheduler = scheduler();
    let told = Rc::new(Cell::new(None));
    let tell = Rc::clone(&told);
    let task = move || {
        tell.set(ticket());
        drop(sleep(Duration::from_secs(1)));
        drop(park(None));
    };
    scheduler.start(task).unwrap();
    scheduler.advance(scheduler.next_deadline().unwrap());
    scheduler.run_ready();
    assert!(!told.get().unwrap().wake());
    assert_eq!(scheduler.suspended().len(), 1);
}

#[test]
fn a_ticket_of_one_scheduler_is_not_one_of_another() {
    let (ours, theirs) = (scheduler(), scheduler());
    let told = Rc::new(Cell::new(None));
    for scheduler in [&ours, &theirs] {
        let tell = Rc::clone(&told);
        let task = move || {
            tell.set(ticket());
            let _ = park(None);
        };
        scheduler.start(task).unwrap();
    }
    let of_theirs = told.get().unwrap();
    assert!(!ours.cancel(of_theirs_task(&theirs)), "ours has a task in the same slot");
    ours.block_on(move || assert!(of_theirs.wake())).unwrap();
    assert_eq!((ours.suspended().len(), theirs.suspended().len()), (1, 0));
}

fn of_theirs_task(scheduler: &Scheduler) -> TaskId {
    scheduler.suspended()[0].task
}

// ------------------------------------------------------------ in one another

#[test]
fn a_scheduler_runs_inside_a_task_of_another() {
    let outer = scheduler();
    let total = outer.block_on(|| {
        let inner = scheduler();
        let sum = inner.block_on(|| spawn(|| 1).join().unwrap() + 1).unwrap();
        sleep(Duration::from_secs(1)).unwrap();
        sum + spawn(|| 40).join().unwrap()
    });
    assert_eq!(total.unwrap(), 42);
}

#[test]
fn a_scheduler_is_not_run_inside_its_own_task() {
    let scheduler = Rc::new(scheduler());
    let own = Rc::clone(&scheduler);
    let refused = scheduler.block_on(move || {
        let calls: [&dyn Fn() -> bool; 4] =
            [&|| own.run().is_ok(), &|| own.start(|| ()).is_ok(), &|| own.run_ready() > 0, &|| {
                own.shutdown().ended > 0
            }];
        calls.iter().all(|call| catch_unwind(AssertUnwindSafe(call)).is_err())
    });
    assert!(refused.unwrap());
}

#[test]
fn spawn_outside_of_a_task_is_a_mistake_that_says_what_to_do() {
    let payload = catch_unwind(|| spawn(|| ())).err().unwrap();
    let message = payload.downcast_ref::<String>().map_or("", String::as_str);
    let literal = payload.downcast_ref::<&str>().copied().unwrap_or(message);
    assert!(literal.contains("use Scheduler::spawn"), "{literal}");
}

#[test]
fn any_payload_comes_out_of_join() {
    let joined = scheduler().block_on(|| spawn(|| panic_any(7_u8)).join().map(|()| 0));
    let Ok(Err(JoinError::Panicked(payload))) = joined else { panic!("no panic") };
    assert_eq!(payload.downcast_ref(), Some(&7_u8));
}
