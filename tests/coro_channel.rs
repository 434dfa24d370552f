//! Channels: order, back-pressure, how they close, and that no value and no wake-up is lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use meinheld_coro::channel::{self, ReceiveError, Receiver, SendError, Sender};
use meinheld_coro::{Clock, Config, Interrupt, Refusal, Scheduler, now, sleep, spawn, yield_now};

const SECOND: Duration = Duration::from_secs(1);

fn run<T: 'static>(function: impl FnOnce() -> T + 'static) -> T {
    scheduler().block_on(function).expect("the task ends")
}

fn scheduler() -> Scheduler {
    Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
}

fn drain<T>(receiver: &Receiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.receive().ok()).collect()
}

#[test]
fn values_come_out_in_the_order_in_which_they_went_in() {
    for capacity in [1, 2, 7, usize::MAX] {
        let received = run(move || {
            let (sender, receiver) = channel::bounded(capacity);
            spawn(move || (0..100).try_for_each(|number| sender.send(number)));
            drain(&receiver)
        });
        assert_eq!(received, (0..100).collect::<Vec<_>>(), "capacity {capacity}");
    }
}

#[test]
fn a_sender_waits_while_the_channel_is_full() {
    run(|| {
        let sent = Rc::new(Cell::new(0));
        let (sender, receiver) = channel::bounded(3);
        let count = Rc::clone(&sent);
        spawn(move || {
            for number in 0..10 {
                sender.send(number).unwrap();
                count.set(number + 1);
            }
        });
        sleep(SECOND).unwrap();
        assert_eq!(sent.get(), 3);
        receiver.receive().unwrap();
        sleep(SECOND).unwrap();
        assert_eq!(sent.get(), 4);
        assert_eq!(drain(&receiver).len(), 9);
    });
}

#[test]
fn a_channel_of_no_capacity_holds_one_value() {
    let (sender, receiver) = channel::bounded(0);
    sender.try_send(1).unwrap();
    assert!(matches!(sender.try_send(2), Err(SendError::Full(2))));
    assert_eq!(receiver.try_receive().unwrap(), 1);
    assert!(matches!(receiver.try_receive(), Err(ReceiveError::Empty)));
}

#[test]
fn each_value_reaches_one_receiver_the_longest_waiting_first() {
    let order = run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (sender, receiver) = channel::unbounded();
        for name in ['a', 'b', 'c'] {
            let (order, receiver) = (Rc::clone(&order), receiver.clone());
            spawn(move || {
                let number: u8 = receiver.receive().unwrap();
                order.borrow_mut().push((name, number));
            });
        }
        yield_now().unwrap();
        (1..=3).for_each(|number| sender.send(number).unwrap());
        sleep(SECOND).unwrap();
        order.take()
    });
    assert_eq!(order, [('a', 1), ('b', 2), ('c', 3)]);
}

#[test]
fn what_was_sent_can_be_received_after_the_senders_are_gone() {
    let (sender, receiver) = channel::unbounded();
    let second = sender.clone();
    sender.try_send(1).unwrap();
    drop(sender);
    second.try_send(2).unwrap();
    drop(second);
    assert_eq!((receiver.try_receive().unwrap(), receiver.try_receive().unwrap()), (1, 2));
    assert!(matches!(receiver.try_receive(), Err(ReceiveError::Closed)));
}

#[test]
fn the_last_senders_end_wakes_every_receiver() {
    let closed = run(|| {
        let (sender, receiver) = channel::unbounded::<()>();
        let wait = |receiver: Receiver<()>| spawn(move || receiver.receive());
        let waiting = [wait(receiver.clone()), wait(receiver)];
        yield_now().unwrap();
        drop(sender);
        waiting.map(|task| matches!(task.join().unwrap(), Err(ReceiveError::Closed)))
    });
    assert_eq!(closed, [true, true]);
}

#[test]
fn the_last_receivers_end_wakes_every_sender_and_hands_its_value_back() {
    let back = run(|| {
        let (sender, receiver) = channel::bounded(1);
        sender.send(0).unwrap();
        let send = |sender: Sender<u8>, value| spawn(move || sender.send(value));
        let waiting = [send(sender.clone(), 1), send(sender, 2)];
        yield_now().unwrap();
        drop(receiver);
        waiting.map(|task| match task.join().unwrap() {
            Err(SendError::Closed(value)) => value,
            other => panic!("{other:?}"),
        })
    });
    assert_eq!(back, [1, 2]);
}

#[test]
fn what_nobody_will_receive_is_dropped_with_the_last_receiver() {
    let answered = run(|| {
        let (requests, server) = channel::unbounded::<Sender<()>>();
        let (reply, answer) = channel::unbounded();
        requests.send(reply).unwrap();
        drop(server);
        // `requests` still lives: only the request's own end can tell that no answer will come.
        let answered = answer.receive();
        drop(requests);
        answered
    });
    assert!(matches!(answered, Err(ReceiveError::Closed)));
}

#[test]
fn a_receiver_that_timed_out_takes_nothing_away_from_the_next() {
    let (early, late) = run(|| {
        let (sender, receiver) = channel::unbounded();
        let other = receiver.clone();
        let early = spawn(move || receiver.receive_timeout(SECOND));
        let late = spawn(move || other.receive());
        sleep(SECOND * 2).unwrap();
        sender.send(1).unwrap();
        (early.join().unwrap(), late.join().unwrap())
    });
    assert!(matches!(early, Err(ReceiveError::Interrupted(Interrupt::TimedOut))));
    assert_eq!(late.unwrap(), 1);
}

#[test]
fn a_receivers_time_out_is_counted_from_its_call() {
    let waited = run(|| {
        let (sender, receiver) = channel::unbounded();
        let thief = receiver.clone();
        // Wakes the receiver twice, and takes the value away each time before it runs.
        spawn(move || {
            for _ in 0..2 {
                sleep(SECOND * 2).unwrap();
                sender.send(()).unwrap();
                thief.try_receive().unwrap();
            }
            sleep(SECOND * 3600).unwrap();
            drop(sender);
        });
        let began = now();
        let timed_out = receiver.receive_timeout(SECOND * 5);
        assert!(matches!(timed_out, Err(ReceiveError::Interrupted(Interrupt::TimedOut))));
        now() - began
    });
    assert_eq!(waited, SECOND * 5);
}

#[test]
fn a_value_and_a_cancellation_at_once_lose_neither() {
    // Both orders: whichever comes first, the value reaches somebody.
    for cancel_first in [true, false] {
        let received = run(move || {
            let (sender, receiver) = channel::unbounded();
            let other = receiver.clone();
            let first = spawn(move || receiver.receive());
            let second = spawn(move || other.receive());
            yield_now().unwrap();
            if cancel_first {
                first.cancel();
                sender.send(1).unwrap();
            } else {
                sender.send(1).unwrap();
                first.cancel();
            }
            let first = first.join().unwrap().ok();
            // Nothing but the value itself is to wake the second.
            let second = if first.is_none() { second.join().unwrap().ok() } else { None };
            drop(sender);
            [first, second]
        });
        assert_eq!(received.iter().flatten().count(), 1, "cancel first: {cancel_first}");
    }
}

#[test]
fn a_cancelled_sender_gets_its_value_back_and_leaves_the_queue() {
    let (back, received) = run(|| {
        let (sender, receiver) = channel::bounded(1);
        sender.send(1).unwrap();
        let (second, third) = (sender.clone(), sender);
        let cancelled = spawn(move || second.send(2));
        let patient = spawn(move || third.send(3));
        yield_now().unwrap();
        cancelled.cancel();
        yield_now().unwrap();
        let values = [receiver.receive().unwrap(), receiver.receive().unwrap()];
        patient.join().unwrap().unwrap();
        (cancelled.join().unwrap(), values)
    });
    assert!(matches!(back, Err(SendError::Interrupted(2, Interrupt::Cancelled))));
    assert_eq!(received, [1, 3]);
}

#[test]
fn the_loop_outside_sends_and_receives_and_wakes_who_waits() {
    let scheduler = scheduler();
    let (numbers, from_outside) = channel::unbounded();
    let (doubled, results) = channel::bounded(1);
    scheduler.spawn(move || {
        while let Ok(number) = from_outside.receive() {
            doubled.send(2 * number).expect("the outside receives");
        }
    });
    scheduler.run_ready();
    (1..=3).for_each(|number| numbers.try_send(number).unwrap());
    let mut received = Vec::new();
    while received.len() < 3 {
        assert!(scheduler.run_ready() > 0, "a wake-up was lost after {received:?}");
        received.extend(results.try_receive().ok());
    }
    assert_eq!(received, [2, 4, 6]);
    drop(numbers);
    scheduler.run().unwrap();
}

#[test]
fn waiting_outside_of_a_task_is_refused() {
    let (sender, receiver) = channel::bounded(1);
    let refused = receiver.receive();
    assert!(matches!(refused, Err(ReceiveError::Interrupted(Interrupt::Refused(Refusal::NoTask)))));
    sender.try_send(1).unwrap();
    let full = sender.send(2);
    assert!(matches!(full, Err(SendError::Interrupted(2, Interrupt::Refused(Refusal::NoTask)))));
}

#[test]
fn many_senders_and_receivers_exchange_everything() {
    let sum = run(|| {
        let (sender, receiver) = channel::bounded(3);
        for part in 0..10_u64 {
            let sender = sender.clone();
            spawn(move || {
                for number in 0..100 {
                    sender.send(part * 100 + number).unwrap();
                }
            });
        }
        drop(sender);
        let sums: Vec<_> = (0..7)
            .map(|_| {
                let receiver = receiver.clone();
                spawn(move || drain(&receiver).iter().sum::<u64>())
            })
            .collect();
        sums.into_iter().map(|task| task.join().unwrap()).sum::<u64>()
    });
    assert_eq!(sum, 999 * 1000 / 2);
}
