//! Continuations: what a suspend returns, and what a resume may and may not do.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Continuation, Interrupt, Refusal, ResumeRefusal, Scheduler, current_task, sleep,
    spawn, without_parking, yield_now,
};

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

fn here<T>() -> Continuation<T> {
    Continuation::current().expect("this is a task")
}

/// Where a task leaves what its suspend returned.
type Left<T> = Rc<RefCell<Option<Result<T, Interrupt>>>>;

/// Starts a task that suspends once; tells its continuation, and where its result will be.
fn suspended<T: 'static>(
    scheduler: &Scheduler,
    timeout: Option<Duration>,
) -> (Continuation<T>, Left<T>) {
    let (told, result) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None)));
    let (tell, leave) = (Rc::clone(&told), Rc::clone(&result));
    let task = move || {
        let here = here();
        tell.replace(Some(here.clone()));
        leave.replace(Some(here.suspend(timeout)));
    };
    scheduler.start(task).expect("a stack can be had");
    let continuation = told.take().expect("the task has told it");
    (continuation, result)
}

#[test]
fn resume_makes_suspend_return_the_value() {
    let got = scheduler().block_on(|| {
        let (first, second) = (here::<String>(), here::<u32>());
        let (there, later) = (first.clone(), second.clone());
        spawn(move || {
            there.resume("one".to_owned()).unwrap();
            yield_now().unwrap();
            later.resume(2).unwrap();
        });
        (first.suspend(None).unwrap(), second.suspend(None).unwrap())
    });
    assert_eq!(got.unwrap(), ("one".to_owned(), 2));
}

#[test]
fn throw_makes_suspend_return_the_error() {
    let scheduler = scheduler();
    let (continuation, result) = suspended::<()>(&scheduler, None);
    continuation.throw("out of luck").unwrap();
    scheduler.run_ready();
    let thrown = result.take().unwrap().unwrap_err();
    assert!(matches!(thrown, Interrupt::Thrown(_)));
    assert_eq!(thrown.to_string(), "out of luck");
    assert_eq!(thrown.source().unwrap().to_string(), "out of luck");
}

#[test]
fn resume_does_not_switch() {
    let scheduler = scheduler();
    let (continuation, result) = suspended(&scheduler, None);
    assert!(continuation.is_suspended());
    continuation.resume(1).unwrap();
    assert!(result.borrow().is_none(), "the task runs at the next turn, not inside of resume");
    assert!(!continuation.is_suspended());
    assert!(scheduler.has_ready());
    scheduler.run_ready();
    assert_eq!(result.take().unwrap().unwrap(), 1);
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_resumed() {
    let scheduler = scheduler();
    let order = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::new(RefCell::new(Vec::new()));
    for number in 0..5 {
        let (order, all) = (Rc::clone(&order), Rc::clone(&all));
        let task = move || {
            let here = here();
            all.borrow_mut().push(here.clone());
            here.suspend(None).unwrap();
            order.borrow_mut().push(number);
        };
        scheduler.start(task).unwrap();
    }
    for number in [3, 0, 4, 1, 2] {
        all.borrow()[number].resume(()).unwrap();
    }
    scheduler.run_ready();
    assert_eq!(*order.borrow(), [3, 0, 4, 1, 2]);
}

#[test]
fn a_task_suspends_at_any_depth_and_keeps_its_frames() {
    fn descend(depth: u64, here: &Continuation<u64>) -> u64 {
        let kept = depth * 3;
        let below = match depth {
            0 => here.suspend(None).unwrap(),
            _ => descend(depth - 1, here),
        };
        kept + below
    }
    let sum = scheduler().block_on(|| {
        let here = here();
        let there = here.clone();
        spawn(move || there.resume(1000).unwrap());
        descend(100, &here)
    });
    assert_eq!(sum.unwrap(), 3 * (100 * 101 / 2) + 1000);
}

#[test]
fn a_resume_that_nobody_waits_for_is_refused_and_hands_the_value_back() {
    let refused = scheduler().block_on(|| here().resume("early")).unwrap().unwrap_err();
    assert_eq!(refused.reason, ResumeRefusal::NotSuspended);
    assert_eq!(refused.undelivered, "early");
}

#[test]
fn the_loop_around_the_scheduler_is_refused_like_a_task() {
    let scheduler = scheduler();
    let (first, second) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(false)));
    let (told, ended) = (Rc::clone(&first), Rc::clone(&second));
    let task = move || {
        told.replace(Some(here::<()>()));
        sleep(Duration::from_secs(1)).unwrap();
        ended.set(true);
    };
    scheduler.start(task).unwrap();
    let continuation = first.take().unwrap();
    assert_eq!(continuation.resume(()).unwrap_err().reason, ResumeRefusal::NotSuspended);
    scheduler.run().unwrap();
    assert!(second.get());
    assert_eq!(continuation.resume(()).unwrap_err().reason, ResumeRefusal::Closed);
}

#[test]
fn a_second_resume_is_refused_and_names_the_place_of_the_first() {
    let scheduler = scheduler();
    let (continuation, result) = suspended(&scheduler, None);
    let line = line!() + 1;
    continuation.resume('a').unwrap();
    let refused = continuation.resume('b').unwrap_err();
    let ResumeRefusal::AlreadyResumed(place) = refused.reason else { panic!("{refused}") };
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert!(continuation.throw("late").is_err());
    scheduler.run_ready();
    assert_eq!(result.take().unwrap().unwrap(), 'a');
}

#[test]
fn a_resume_after_the_end_of_the_task_is_refused() {
    let scheduler = scheduler();
    let (continuation, _) = suspended(&scheduler, None);
    continuation.resume(()).unwrap();
    scheduler.run().unwrap();
    assert_eq!(continuation.resume(()).unwrap_err().reason, ResumeRefusal::Closed);
    assert_eq!(continuation.throw("late").unwrap_err().reason, ResumeRefusal::Closed);
}

#[test]
fn suspend_times_out_and_a_late_resume_is_refused() {
    let scheduler = scheduler();
    let (late, ended) = scheduler
        .block_on(|| {
            let here = here::<()>();
            let ended = here.suspend(Some(Duration::from_secs(60)));
            (here.resume(()), ended)
        })
        .unwrap();
    assert!(matches!(ended, Err(Interrupt::TimedOut)));
    assert_eq!(late.unwrap_err().reason, ResumeRefusal::NotSuspended);
}

#[test]
fn a_value_counts_that_comes_between_the_time_out_and_the_tasks_turn() {
    let scheduler = scheduler();
    let (continuation, result) = suspended(&scheduler, Some(Duration::from_secs(1)));
    scheduler.advance(scheduler.next_deadline().unwrap());
    continuation.resume("just in time").unwrap();
    scheduler.run_ready();
    assert_eq!(result.take().unwrap().unwrap(), "just in time");
}

#[test]
fn a_value_that_overtakes_a_cancellation_does_not_swallow_it() {
    let scheduler = scheduler();
    let waits = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::new(RefCell::new(None));
    let (log, tell) = (Rc::clone(&waits), Rc::clone(&told));
    let task = move || {
        let here = here();
        tell.replace(Some(here.clone()));
        log.borrow_mut().push(here.suspend(None).map_err(|error| error.to_string()));
        log.borrow_mut().push(here.suspend(None).map_err(|error| error.to_string()));
    };
    scheduler.start(task).unwrap();
    let continuation: Continuation<u8> = told.take().unwrap();
    assert!(scheduler.cancel(continuation.task()));
    continuation.resume(7).unwrap();
    scheduler.run().unwrap();
    assert_eq!(*waits.borrow(), [Ok(7), Err("the task was cancelled".to_owned())]);
}

#[test]
fn only_its_own_task_may_suspend_it() {
    let scheduler = scheduler();
    let (continuation, _) = suspended::<()>(&scheduler, None);
    let outside = continuation.suspend(None);
    assert!(matches!(outside, Err(Interrupt::Refused(Refusal::NoTask))));
    let other = continuation.clone();
    let inside = scheduler.block_on(move || other.suspend(None)).unwrap();
    assert!(matches!(inside, Err(Interrupt::Refused(Refusal::OtherTask))));
    assert!(continuation.is_suspended(), "the refused ones have not touched it");
}

#[test]
fn there_is_no_continuation_outside_of_a_task() {
    assert!(Continuation::<()>::current().is_none());
    assert!(current_task().is_none());
}

#[test]
fn a_suspend_where_parking_is_forbidden_is_refused() {
    let (inside, after) = scheduler()
        .block_on(|| {
            let inside = without_parking(|| here::<()>().suspend(None));
            (inside, sleep(Duration::ZERO))
        })
        .unwrap();
    assert!(matches!(inside, Err(Interrupt::Refused(Refusal::Forbidden))));
    assert!(after.is_ok());
}

#[test]
fn parking_is_allowed_again_after_a_panic_where_it_was_forbidden() {
    let scheduler = scheduler();
    let task = scheduler.block_on(|| without_parking(|| resume_unwind(Box::new("inside"))));
    assert!(task.is_err());
    assert!(scheduler.block_on(|| sleep(Duration::ZERO)).unwrap().is_ok());
}

#[test]
fn a_suspend_in_a_destructor_during_a_panic_is_refused() {
    struct Suspends(Rc<Cell<Option<Interrupt>>>);
    impl Drop for Suspends {
        fn drop(&mut self) {
            self.0.set(here::<()>().suspend(None).err());
        }
    }
    let refused = Rc::new(Cell::new(None));
    let suspends = Suspends(Rc::clone(&refused));
    let task = scheduler().block_on(move || {
        let _suspends = suspends;
        resume_unwind(Box::new("unwinding"))
    });
    assert!(task.is_err());
    assert!(matches!(refused.take(), Some(Interrupt::Refused(Refusal::Panicking))));
}

#[test]
fn a_watcher_ends_the_wait_with_the_ticket_it_was_told() {
    let scheduler = scheduler();
    let told = Rc::new(Cell::new(None));
    let tell = Rc::clone(&told);
    let task = scheduler.spawn(move || here::<()>().suspend_watched(None, |t| tell.set(Some(t))));
    scheduler.run_ready();
    let ticket = told.take().expect("the watcher was told before the wait began");
    assert!(ticket.interrupt());
    assert!(!ticket.interrupt(), "that wait is over");
    let ended = scheduler.block_on(move || task.join().unwrap()).unwrap();
    assert!(matches!(ended, Err(Interrupt::Interrupted)));
}

#[test]
fn a_watcher_may_end_the_wait_before_it_begins() {
    let ended = scheduler()
        .block_on(|| here::<()>().suspend_watched(None, |ticket| assert!(ticket.interrupt())));
    assert!(matches!(ended.unwrap(), Err(Interrupt::Interrupted)));
}

#[test]
fn a_watcher_may_not_park() {
    let refused = scheduler().block_on(|| {
        let mut refused = None;
        let here = here::<()>();
        let _ = here.suspend_watched(Some(Duration::from_secs(1)), |_| refused = yield_now().err());
        refused
    });
    assert!(matches!(refused.unwrap(), Some(Interrupt::Refused(Refusal::Forbidden))));
}

#[test]
fn close_ends_the_wait_and_refuses_all_that_comes_later() {
    let scheduler = scheduler();
    let (continuation, result) = suspended::<()>(&scheduler, None);
    continuation.close();
    assert_eq!(continuation.resume(()).unwrap_err().reason, ResumeRefusal::Closed);
    scheduler.run().unwrap();
    assert!(matches!(result.take(), Some(Err(Interrupt::Interrupted))));
    assert_eq!(continuation.resume(()).unwrap_err().reason, ResumeRefusal::Closed);
}

#[test]
fn a_closed_continuation_does_not_suspend() {
    let refused = scheduler().block_on(|| {
        let here = here::<()>();
        here.close();
        (here.suspend(None), here.resume(()))
    });
    let (suspend, resume) = refused.unwrap();
    assert!(matches!(suspend, Err(Interrupt::Refused(Refusal::Closed))));
    assert_eq!(resume.unwrap_err().reason, ResumeRefusal::Closed);
}

#[test]
fn a_task_of_one_scheduler_resumes_a_task_of_another() {
    let (ours, theirs) = (scheduler(), scheduler());
    let (continuation, result) = suspended(&ours, None);
    // A task with the same index, waiting in the other scheduler, is not to be hit.
    let (_decoy, untouched) = suspended::<u8>(&theirs, None);
    theirs.spawn(move || continuation.resume(5_u8).unwrap());
    theirs.run_ready();
    assert_eq!(theirs.run_ready(), 0);
    ours.run().unwrap();
    assert_eq!(result.take().unwrap().unwrap(), 5);
    assert!(untouched.borrow().is_none());
}

#[test]
fn a_value_is_dropped_where_it_may_use_the_continuation_again() {
    struct Resumes(Option<Continuation<Resumes>>);
    impl Drop for Resumes {
        fn drop(&mut self) {
            if let Some(continuation) = self.0.take() {
                assert!(continuation.resume(Resumes(None)).is_err());
            }
        }
    }
    let scheduler = scheduler();
    let (continuation, result) = suspended(&scheduler, None);
    assert!(continuation.resume(Resumes(Some(continuation.clone()))).is_ok());
    continuation.close();
    scheduler.run().unwrap();
    assert!(matches!(result.take(), Some(Err(Interrupt::Interrupted))));
}
