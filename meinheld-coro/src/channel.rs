//! Channels between the tasks of one scheduler: unbounded, and bounded with back-pressure.
//!
//! Values come out in the order in which they went in. Not here: other threads; those use a
//! [`Continuation`](crate::Continuation).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Interrupt, Refusal};
use crate::hub::Hub;
use crate::task::Ticket;

/// Makes a channel that holds any number of values: sending never waits.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// Makes a channel that holds `capacity` values, one at the least: a sender waits while it is full.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel(capacity.max(1))
}

fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        capacity,
        values: RefCell::default(),
        receivers: Waiters::default(),
        senders: Waiters::default(),
        sender_count: Cell::new(1),
        receiver_count: Cell::new(1),
    });
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

/// The sending end; clones send into the same channel.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

/// The receiving end; each value reaches one of its clones.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

struct Shared<T> {
    capacity: usize,
    values: RefCell<VecDeque<T>>,
    receivers: Waiters,
    senders: Waiters,
    sender_count: Cell<usize>,
    receiver_count: Cell<usize>,
}

/// Tasks that wait for the same thing, longest first.
#[derive(Default)]
struct Waiters(RefCell<VecDeque<Ticket>>);

/// Why a value was not sent; it comes back with the error.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError<T> {
    /// Every receiver is gone.
    Closed(T),
    /// The channel is full ([`Sender::try_send`] only).
    Full(T),
    /// The wait for room ended early.
    Interrupted(T, Interrupt),
}

/// Why no value was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The channel is empty and every sender is gone.
    Closed,
    /// The channel is empty ([`Receiver::try_receive`] only).
    Empty,
    /// The wait for a value ended early.
    Interrupted(Interrupt),
}

impl<T> Sender<T> {
    /// Sends a value, waiting while the channel is full.
    ///
    /// # Errors
    /// [`SendError::Closed`], and [`SendError::Interrupted`] when the wait ended early.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let location = Location::caller();
        let mut value = value;
        loop {
            match self.try_send(value) {
                Err(SendError::Full(back)) => value = back,
                other => return other,
            }
            if let Err(interrupt) = self.shared.senders.wait(None, location) {
                return Err(SendError::Interrupted(value, interrupt));
            }
        }
    }

    /// Sends a value if there is room.
    ///
    /// # Errors
    /// [`SendError::Closed`] and [`SendError::Full`].
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receiver_count.get() == 0 {
            return Err(SendError::Closed(value));
        }
        if self.shared.values.borrow().len() >= self.shared.capacity {
            return Err(SendError::Full(value));
        }
        self.shared.values.borrow_mut().push_back(value);
        self.shared.receivers.wake_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes the next value, waiting while there is none.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`], and [`ReceiveError::Interrupted`] when the wait ended early.
    #[track_caller]
    pub fn receive(&self) -> Result<T, ReceiveError> {
        self.receive_by(None, Location::caller())
    }

    /// The same, for `timeout` at the most; see [`Interrupt::TimedOut`].
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[track_caller]
    pub fn receive_timeout(&self, timeout: Duration) -> Result<T, ReceiveError> {
        self.receive_by(Some(timeout), Location::caller())
    }

    /// Takes the next value if there is one.
    ///
    /// # Errors
    /// [`ReceiveError::Empty`] and [`ReceiveError::Closed`].
    pub fn try_receive(&self) -> Result<T, ReceiveError> {
        let value = self.shared.values.borrow_mut().pop_front();
        match value {
            Some(value) => {
                self.shared.senders.wake_one();
                Ok(value)
            }
            None if self.shared.sender_count.get() == 0 => Err(ReceiveError::Closed),
            None => Err(ReceiveError::Empty),
        }
    }

    fn receive_by(
        &self,
        timeout: Option<Duration>,
        location: &'static Location<'static>,
    ) -> Result<T, ReceiveError> {
        let deadline = Hub::current().and_then(|hub| hub.deadline_in(timeout?));
        loop {
            match self.try_receive() {
                Err(ReceiveError::Empty) => {}
                other => return other,
            }
            let waited = self.shared.receivers.wait(deadline, location);
            waited.map_err(ReceiveError::Interrupted)?;
        }
    }
}

impl Waiters {
    /// Parks the running task until it is woken as one of these.
    fn wait(
        &self,
        deadline: Option<std::time::Instant>,
        location: &'static Location<'static>,
    ) -> Result<(), Interrupt> {
        let hub = Hub::current().ok_or(Refusal::NoTask)?;
        let ticket = hub.ticket().ok_or(Refusal::NoTask)?;
        self.0.borrow_mut().push_back(ticket);
        let parked = hub.park(deadline, location);
        if parked.is_err() {
            self.0.borrow_mut().retain(|waiter| *waiter != ticket);
        }
        parked
    }

    /// Wakes the one that has waited longest, passing over those whose wait has ended meanwhile.
    fn wake_one(&self) {
        while let Some(ticket) = self.pop() {
            if ticket.wake() {
                return;
            }
        }
    }

    fn wake_all(&self) {
        while let Some(ticket) = self.pop() {
            ticket.wake();
        }
    }

    fn pop(&self) -> Option<Ticket> {
        self.0.borrow_mut().pop_front()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.sender_count.set(self.shared.sender_count.get() + 1);
        Sender { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver_count.set(self.shared.receiver_count.get() + 1);
        Receiver { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender_count.set(self.shared.sender_count.get() - 1);
        if self.shared.sender_count.get() == 0 {
            self.shared.receivers.wake_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_count.set(self.shared.receiver_count.get() - 1);
        if self.shared.receiver_count.get() == 0 {
            self.shared.senders.wake_all();
            // What nobody will receive is dropped now: a value may hold what others wait for.
            let unread = std::mem::take(&mut *self.shared.values.borrow_mut());
            drop(unread);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(_) => f.write_str("every receiver of the channel is gone"),
            SendError::Full(_) => f.write_str("the channel is full"),
            SendError::Interrupted(_, interrupt) => write!(f, "waiting for room: {interrupt}"),
        }
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Closed => f.write_str("every sender of the channel is gone"),
            ReceiveError::Empty => f.write_str("the channel is empty"),
            ReceiveError::Interrupted(interrupt) => write!(f, "waiting for a value: {interrupt}"),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}
impl std::error::Error for ReceiveError {}
