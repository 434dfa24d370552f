//! Other threads: they resume tasks at any time, early or late, and no wake-up is lost.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use meinheld_coro::{
    Clock, Config, Continuation, Interrupt, ResumeRefusal, Scheduler, park, spawn, ticket,
};

fn here<T>() -> Continuation<T> {
    Continuation::current().expect("this is a task")
}

#[test]
fn a_resume_wakes_a_scheduler_that_sleeps() {
    let got = Scheduler::new(Config::default()).block_on(|| {
        let here = here();
        let there = here.clone();
        let thread = thread::spawn(move || {
            while !there.is_suspended() {
                thread::yield_now();
            }
            there.resume(thread::current().id()).unwrap();
        });
        let expected = thread.thread().id();
        let got = here.suspend(None).unwrap();
        thread.join().unwrap();
        (got, expected)
    });
    let (got, expected) = got.unwrap();
    assert_eq!(got, expected);
}

#[test]
fn a_resume_that_comes_early_is_kept_for_the_next_suspend() {
    let got = Scheduler::new(Config::default()).block_on(|| {
        let here = here();
        let there = here.clone();
        thread::spawn(move || there.resume("early").unwrap()).join().unwrap();
        here.suspend(None)
    });
    assert_eq!(got.unwrap().unwrap(), "early");
}

#[test]
fn an_error_that_is_thrown_early_is_kept_too() {
    let got = Scheduler::new(Config::default()).block_on(|| {
        let here = here::<()>();
        let there = here.clone();
        thread::spawn(move || there.throw("early").unwrap()).join().unwrap();
        here.suspend(None)
    });
    assert_eq!(got.unwrap().unwrap_err().to_string(), "early");
}

#[test]
fn a_second_early_resume_is_refused_and_names_the_place_of_the_first() {
    Scheduler::new(Config::default())
        .block_on(|| {
            let here = here();
            let there = here.clone();
            let thread = thread::spawn(move || {
                let line = line!() + 1;
                there.resume(1).unwrap();
                (line, there.resume(2).unwrap_err())
            });
            let (line, refused) = thread.join().unwrap();
            let ResumeRefusal::AlreadyResumed(place) = refused.reason else { panic!("{refused}") };
            assert_eq!((place.file(), place.line(), refused.undelivered), (file!(), line, 2));
            assert_eq!(here.suspend(None).unwrap(), 1);
        })
        .unwrap();
}

#[test]
fn a_kept_value_is_dropped_when_the_continuation_is_closed() {
    let value = Arc::new(());
    let kept = Arc::downgrade(&value);
    Scheduler::new(Config::default())
        .block_on(move || {
            let here = here();
            let there = here.clone();
            thread::spawn(move || there.resume(value).unwrap()).join().unwrap();
            assert!(kept.upgrade().is_some());
            here.close();
            assert!(kept.upgrade().is_none());
        })
        .unwrap();
}

#[test]
fn the_value_may_be_dropped_on_another_thread() {
    let value = Arc::new(());
    let sent = Arc::clone(&value);
    let continuation = Scheduler::new(Config::default())
        .block_on(|| {
            let here = here();
            let there = here.clone();
            thread::spawn(move || there.resume(sent).unwrap()).join().unwrap();
            here
        })
        .unwrap();
    assert_eq!(Arc::strong_count(&value), 2);
    thread::spawn(move || drop(continuation)).join().unwrap();
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn resumes_of_one_thread_are_served_in_their_order() {
    let scheduler = Scheduler::new(Config::default());
    let (tell, told) = mpsc::channel();
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    for number in 0..100 {
        let (tell, order) = (tell.clone(), Rc::clone(&order));
        let task = move || {
            let here = here();
            tell.send(here.clone()).unwrap();
            here.suspend(None).unwrap();
            order.borrow_mut().push(number);
        };
        scheduler.start(task).unwrap();
    }
    let thread = thread::spawn(move || {
        let all: Vec<Continuation<()>> = told.try_iter().collect();
        for continuation in all.iter().rev() {
            continuation.resume(()).unwrap();
        }
    });
    thread.join().unwrap();
    scheduler.run().unwrap();
    assert_eq!(*order.borrow(), (0..100).rev().collect::<Vec<_>>());
}

#[test]
fn an_event_loop_is_told_through_its_own_waker() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Some(Waker::from(Arc::clone(&count)));
    let scheduler = Scheduler::new(Config { waker, clock: Clock::Virtual, ..Config::default() });
    let (tell, told) = mpsc::channel();
    let task = move || {
        let here = here();
        tell.send(here.clone()).unwrap();
        here.suspend(None).unwrap();
    };
    scheduler.start(task).unwrap();
    let continuation: Continuation<()> = told.recv().unwrap();
    thread::spawn(move || continuation.resume(()).unwrap()).join().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(scheduler.run_ready(), 0, "a wake-up counts from the next turn on");
    scheduler.advance(meinheld_coro::now());
    assert_eq!(scheduler.run_ready(), 1);
}

#[test]
fn a_ticket_is_of_no_use_on_another_thread() {
    let scheduler = Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() });
    let (tell, told) = mpsc::channel();
    let task = move || {
        tell.send(ticket().unwrap()).unwrap();
        park(None).unwrap();
    };
    scheduler.start(task).unwrap();
    let ticket = told.recv().unwrap();
    let woken = thread::spawn(move || {
        // This thread has a scheduler too, with a task in the same slot.
        let own = Scheduler::new(Config::default());
        own.start(|| drop(park(None))).unwrap();
        own.block_on(move || ticket.wake()).unwrap()
    });
    assert!(!woken.join().unwrap());
    assert_eq!(scheduler.suspended().len(), 1);
}

#[test]
fn many_threads_resume_many_tasks_at_once() {
    const THREADS: usize = 8;
    const TASKS: usize = 500;
    let scheduler = Scheduler::new(Config::default());
    let sum = scheduler.block_on(|| {
        let barrier = Arc::new(Barrier::new(THREADS));
        let mut senders = Vec::new();
        for number in 0..THREADS {
            let (sender, receiver) = mpsc::channel::<Continuation<usize>>();
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let mine: Vec<_> = receiver.iter().collect();
                barrier.wait();
                for continuation in mine {
                    continuation.resume(number).unwrap();
                }
            });
            senders.push(sender);
        }
        let tasks: Vec<_> = (0..TASKS * THREADS)
            .map(|index| {
                let sender = senders[index % THREADS].clone();
                spawn(move || {
                    let here = here();
                    sender.send(here.clone()).unwrap();
                    drop(sender);
                    here.suspend(None).unwrap()
                })
            })
            .collect();
        drop(senders);
        tasks.into_iter().map(|task| task.join().unwrap()).sum::<usize>()
    });
    assert_eq!(sum.unwrap(), TASKS * THREADS * (THREADS - 1) / 2);
}

/// A task and a thread answer each other: the answer comes now before the suspend, now after, now
/// while the scheduler goes to sleep. One lost wake-up and this hangs.
#[test]
fn no_wake_up_is_lost_while_a_scheduler_goes_to_sleep() {
    const ROUNDS: u32 = 20_000;
    let scheduler = Scheduler::new(Config::default());
    let last = scheduler.block_on(|| {
        let (ask, asked) = mpsc::channel::<(u32, Continuation<u32>)>();
        let thread = thread::spawn(move || {
            for (round, continuation) in asked {
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                continuation.resume(round).unwrap();
            }
        });
        let here = here();
        for round in 0..ROUNDS {
            ask.send((round, here.clone())).unwrap();
            (0..round % 50).for_each(|_| std::hint::spin_loop());
            assert_eq!(here.suspend(None).unwrap(), round);
        }
        drop(ask);
        thread.join().unwrap();
        ROUNDS
    });
    assert_eq!(last.unwrap(), ROUNDS);
}

/// Time-outs and resumes at the same time: each value that was taken on comes out, once.
#[test]
fn a_time_out_at_the_same_time_loses_no_value() {
    const VALUES: u32 = 5_000;
    let scheduler = Scheduler::new(Config::default());
    let (received, time_outs) = scheduler
        .block_on(|| {
            let here = here::<u32>();
            let there = here.clone();
            let thread = thread::spawn(move || {
                for value in 0..VALUES {
                    while there.resume(value).is_err() {
                        thread::yield_now();
                    }
                }
            });
            let (mut received, mut time_outs) = (Vec::new(), 0_u32);
            while received.len() < VALUES as usize {
                match here.suspend(Some(Duration::from_nanos(500))) {
                    Ok(value) => received.push(value),
                    Err(Interrupt::TimedOut) => time_outs += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            thread.join().unwrap();
            (received, time_outs)
        })
        .unwrap();
    assert_eq!(received, (0..VALUES).collect::<Vec<_>>(), "after {time_outs} time-outs");
}

/// Threads resume while the task closes: each value is received, kept and dropped, or handed back.
#[test]
fn closing_while_others_resume_loses_no_value() {
    const ROUNDS: usize = 500;
    const THREADS: usize = 3;
    let scheduler = Scheduler::new(Config::default());
    for round in 0..ROUNDS {
        let value = Arc::new(());
        let ours = Arc::clone(&value);
        let handed_back = scheduler
            .block_on(move || {
                let here = here();
                let barrier = Arc::new(Barrier::new(THREADS + 1));
                let threads: Vec<_> = (0..THREADS)
                    .map(|_| {
                        let (there, barrier) = (here.clone(), Arc::clone(&barrier));
                        let value = Arc::clone(&ours);
                        thread::spawn(move || {
                            barrier.wait();
                            there.resume(value).err()
                        })
                    })
                    .collect();
                barrier.wait();
                (0..round % 40).for_each(|_| std::hint::spin_loop());
                here.close();
                assert!(here.suspend(None).is_err(), "it is closed");
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
            .unwrap();
        assert!(handed_back.len() >= THREADS - 1, "at most one was taken on");
        drop(handed_back);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
