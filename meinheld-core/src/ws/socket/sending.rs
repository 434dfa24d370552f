//! Sending to a WebSocket: whole messages, each in its turn, and the replies before them.
//!
//! Not here: receiving.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use meinheld_coro::Interrupt;

use super::{Inner, State};
use crate::ws::message::{Closure, MessageKind};
use crate::ws::protocol::header;
use crate::ws::turns::Turn;

impl Inner {
    pub(super) fn send(
        &self,
        kind: MessageKind,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.check_open()?;
        let turn = self.begin_turn(timeout)?;
        // It may have been closed while others had their turns.
        self.check_open()?;
        let header = header(kind, payload.len());
        self.write_whole(header.as_bytes(), payload, timeout)?;
        while self.protocol.borrow().has_replies() {
            // They came meanwhile, and are no concern of the message's.
            if self.write_whole(&[], &[], timeout).is_err() {
                break;
            }
        }
        drop(turn);
        Ok(())
    }

    /// Waits for those who came before, as long as for the peer.
    fn begin_turn(&self, timeout: Option<Duration>) -> io::Result<Turn<'_>> {
        let timeout = timeout.unwrap_or(self.config.send_timeout);
        self.sending.take(Instant::now().checked_add(timeout)).map_err(|interrupt| {
            if matches!(interrupt, Interrupt::TimedOut) {
                self.give_up("a message could not be sent in time");
                return io::ErrorKind::TimedOut.into();
            }
            io::Error::other(interrupt)
        })
    }

    pub(super) fn check_open(&self) -> io::Result<()> {
        match self.state.get() {
            State::Open if self.stream.is_open() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the WebSocket is closed")),
        }
    }

    pub(super) fn begin_close(&self, closure: &Closure) -> io::Result<()> {
        self.state.set(State::Closing);
        *self.closure.borrow_mut() = Some(closure.clone());
        self.protocol.borrow_mut().close(closure);
        self.stream.interrupt_reader();
        self.send_replies(None)
    }

    /// Sends the replies, in a turn of their own.
    pub(super) fn send_replies(&self, timeout: Option<Duration>) -> io::Result<()> {
        let turn = self.begin_turn(timeout)?;
        while self.protocol.borrow().has_replies() {
            self.write_whole(&[], &[], timeout)?;
        }
        drop(turn);
        Ok(())
    }

    /// Sends what there is room for, if nobody sends; whoever does sends the replies too.
    pub(super) fn try_send_replies(&self) {
        if !self.protocol.borrow().has_replies() {
            return;
        }
        let Some(_turn) = self.sending.try_take() else { return };
        let replies = self.protocol.borrow_mut().take_replies();
        // A failure is seen by whoever reads.
        let sent = self.stream.try_write_vectored(&[IoSlice::new(&replies)]).unwrap_or(0);
        self.protocol.borrow_mut().return_replies(replies[sent..].to_vec());
    }

    /// Sends the replies and then a frame. What is begun must be ended: if it is not, nothing can
    /// follow.
    fn write_whole(
        &self,
        header: &[u8],
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut replies = self.protocol.borrow_mut().take_replies();
        let mut sent = 0;
        let pieces = [replies.as_slice(), header, payload];
        let written = self.write_pieces(&mut pieces.map(IoSlice::new), timeout, &mut sent);
        let Err(error) = written else { return Ok(()) };
        let begun = sent > replies.len();
        let unsent = replies.split_off(sent.min(replies.len()));
        self.protocol.borrow_mut().return_replies(unsent);
        let interrupted =
            error.get_ref().and_then(|inner| inner.downcast_ref::<Interrupt>()).is_some();
        if begun || !interrupted {
            self.give_up("a message could not be sent");
        }
        Err(error)
    }

    fn write_pieces(
        &self,
        mut pieces: &mut [IoSlice<'_>],
        timeout: Option<Duration>,
        sent: &mut usize,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.stream.try_write_vectored(pieces) {
                Ok(count) => {
                    *sent += count;
                    IoSlice::advance_slices(&mut pieces, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let timeout = timeout.unwrap_or(self.config.send_timeout);
                    self.stream.wait_writable(Some(timeout))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
