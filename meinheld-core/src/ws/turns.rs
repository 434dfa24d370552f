//! Whose turn it is: one coroutine at a time, the others in the order in which they came.
//!
//! Not here: what is done in a turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

use meinheld_coro::{Interrupt, Refusal, Ticket, park, ticket};

/// The turns of one thing.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Cell<bool>,
    waiting: RefCell<VecDeque<Ticket>>,
}

/// A turn; dropping it is the next one's beginning, without a switch.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
}

impl Turns {
    /// Begins a turn if nobody has it, nor waits for it.
    pub(super) fn try_take(&self) -> Option<Turn<'_>> {
        // Lazily: a turn that is made is a turn that ends.
        (!self.taken.replace(true)).then(|| Turn { turns: self })
    }

    /// Parks until it is the caller's turn.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Result<Turn<'_>, Interrupt> {
        if let Some(turn) = self.try_take() {
            return Ok(turn);
        }
        let ticket = ticket().ok_or(Refusal::NoTask)?;
        self.waiting.borrow_mut().push_back(ticket);
        // Whoever is woken has been given the turn; no other end of the wait gives it.
        let parked = park(deadline);
        if parked.is_err() {
            self.waiting.borrow_mut().retain(|waiting| *waiting != ticket);
        }
        parked.map(|()| Turn { turns: self })
    }

    /// Whether a turn could begin at once.
    pub(super) fn is_free(&self) -> bool {
        !self.taken.get()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        loop {
            let next = self.turns.waiting.borrow_mut().pop_front();
            match next {
                None => return self.turns.taken.set(false),
                Some(ticket) if ticket.wake() => return,
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meinheld_coro::{Clock, Config, Scheduler, now, sleep, spawn};
    use std::rc::Rc;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn scheduler() -> Scheduler {
        Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() })
    }

    #[test]
    fn turns_come_in_order_and_one_at_a_time() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&order);
        let scheduler = scheduler();
        let turns = Rc::new(Turns::default());
        for number in 0..10 {
            let (turns, seen) = (Rc::clone(&turns), Rc::clone(&seen));
            scheduler.spawn(move || {
                let turn = turns.take(None).unwrap();
                seen.borrow_mut().push(number);
                sleep(SECOND).unwrap();
                seen.borrow_mut().push(number);
                drop(turn);
            });
        }
        scheduler.run().unwrap();
        let expected: Vec<i32> = (0..10).flat_map(|number| [number, number]).collect();
        assert_eq!(*order.borrow(), expected);
        assert!(turns.is_free());
    }

    #[test]
    fn who_gives_up_is_passed_over() {
        let scheduler = scheduler();
        scheduler
            .block_on(|| {
                let turns = Rc::new(Turns::default());
                let first = turns.take(None).unwrap();
                assert!(turns.try_take().is_none());
                let (impatient, patient) = (Rc::clone(&turns), Rc::clone(&turns));
                let given_up = spawn(move || {
                    let ended = impatient.take(Some(now() + SECOND)).map(drop);
                    assert!(matches!(ended, Err(Interrupt::TimedOut)));
                });
                let cancelled = Rc::clone(&turns);
                let cancelled = spawn(move || cancelled.take(None).map(drop).is_err());
                let served = spawn(move || patient.take(None).map(drop).is_ok());
                given_up.join().unwrap();
                cancelled.cancel();
                assert!(cancelled.join().unwrap());
                drop(first);
                assert!(served.join().unwrap());
                assert!(turns.is_free());
            })
            .unwrap();
    }
}
