//! Receiving from a WebSocket: steps of the protocol, pings, and the end.
//!
//! Not here: who calls, and what is done with a message.

use std::cell::Cell;
use std::io::{self, Read};
use std::time::Instant;

use meinheld_coro::Interrupt;

use super::{Inner, State};
use crate::ws::message::Closure;
use crate::ws::protocol::Step;

/// How many bytes a coroutine may receive before the others have their turn.
const BURST_BYTES_MAX: usize = 256 * 1024;

/// How many bytes of pongs may wait for room before nothing more is read.
const REPLY_BYTES_MAX: usize = 4096;

/// That somebody receives.
pub(super) struct Receiving<'a>(&'a Cell<bool>);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// What the protocol reads from: the connection, up to the end of a burst.
struct Source<'a>(&'a Inner);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let burst = self.0.burst.get();
        if burst >= BURST_BYTES_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.0.stream.try_read(buffer)?;
        self.0.burst.set(burst + count);
        if count > 0 {
            self.0.heard.set(Instant::now());
        }
        Ok(count)
    }
}

impl Inner {
    pub(super) fn begin_receiving(&self) -> io::Result<Receiving<'_>> {
        if self.receiving.replace(true) {
            let message = "another coroutine waits for this WebSocket's messages";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        Ok(Receiving(&self.receiving))
    }

    /// Reads what is there, and sees to all of it but messages.
    pub(super) fn step(&self) -> io::Result<Step> {
        let step = self.protocol.borrow_mut().read(&mut Source(self));
        match &step {
            Step::Message(_) | Step::Control | Step::Starved => {
                if self.protocol.borrow().reply_bytes() > REPLY_BYTES_MAX {
                    self.send_replies(None)?;
                } else {
                    self.try_send_replies();
                }
            }
            Step::Closed(closure) | Step::Failed(closure) => {
                self.end(closure.clone());
                // If the answer cannot be sent the peer sees the connection end.
                let _ = self.send_replies(None);
            }
            Step::Ended | Step::Broken(_) => self.end(Closure::new(Closure::ABNORMAL, "")),
        }
        Ok(step)
    }

    /// Notes the end, unless it was noted before. A close of the peer's wins over ours.
    fn end(&self, closure: Closure) {
        let ours = self.state.replace(State::Closed) == State::Closing;
        let mut noted = self.closure.borrow_mut();
        if noted.is_none() || (ours && closure.code != Closure::ABNORMAL) {
            *noted = Some(closure);
        }
    }

    /// Waits for input until `deadline`, and pings when it is time to.
    pub(super) fn wait_for_input(&self, deadline: Option<Instant>) -> io::Result<()> {
        let now = Instant::now();
        let ping_at = self.ping_due();
        if ping_at.is_some_and(|at| at <= now) {
            self.ping_or_give_up(now);
            return Ok(());
        }
        let first = [deadline, ping_at].into_iter().flatten().min();
        match self.wait_until(first) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && first != deadline => Ok(()),
            other => other,
        }
    }

    /// Waits for input, or for room if pongs wait for that. An interrupt is no error: what has changed
    /// is seen by looking.
    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> io::Result<()> {
        if self.burst.replace(0) >= BURST_BYTES_MAX {
            return meinheld_coro::yield_now().map_err(io::Error::other);
        }
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let replies = self.protocol.borrow().has_replies() && self.sending.is_free();
        let waited = if replies {
            self.stream.wait_readable_or_writable(timeout)
        } else {
            self.stream.wait_readable(timeout)
        };
        match waited {
            Err(error) if is_interrupted(&error) => Ok(()),
            other => other,
        }
    }

    /// When the peer is to be pinged, or to be given up.
    fn ping_due(&self) -> Option<Instant> {
        let last = self.pinged.get().map_or(self.heard.get(), |at| at.max(self.heard.get()));
        last.checked_add(self.config.ping_interval?)
    }

    fn ping_or_give_up(&self, now: Instant) {
        if self.pinged.get().is_some_and(|at| at > self.heard.get()) {
            return self.give_up("no answer to a ping");
        }
        self.pinged.set(Some(now));
        self.protocol.borrow_mut().ping();
        self.try_send_replies();
    }

    /// Ends it at once: the peer is dead, or something was sent to it in part only.
    pub(super) fn give_up(&self, why: &str) {
        self.end(Closure::new(Closure::ABNORMAL, why));
        self.stream.abandon();
    }
}

fn is_interrupted(error: &io::Error) -> bool {
    let interrupt = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(interrupt, Some(Interrupt::Interrupted))
}
