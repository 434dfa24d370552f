//! How a response goes out: head and small pieces together, and in one call with the answers before
//! it where requests are pipelined.
//!
//! ```text
//!   head, small pieces ──▶ out ──┬── now: send, waiting for the client ──▶ socket
//!                                └── hold: Connection::held ──▶ flushed by Shared: when the request
//!                                                               waits, and in any case when the loop
//!                                                               goes on with something else
//! ```
//!
//! What is held is bounded by `HELD_BYTES_MAX`. Not here: what a response consists of.

use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::{Exchange, Length, LengthMismatch, RequestBody, Response};
use crate::descriptors::Readiness;
use crate::http::{BodyEncoding, CHUNK_END, ChunkHeader, KeepAlive};
use crate::shared::Turn;
use crate::sys;

/// A larger piece of a body is sent from where it is, and not copied.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// No more than this is held before it is sent.
const HELD_BYTES_MAX: usize = 32 * 1024;

/// Pieces that follow each other faster than this may go out together: a piece that comes later than
/// that after the one before it is sent at once. What is held goes out before the request waits and
/// before the loop goes on, but not while the application computes or blocks the thread.
const HOLD_GAP: Duration = Duration::from_micros(500);

/// A piece of a body, encoded.
enum Framed<'a> {
    /// It was copied behind what is to go out before it.
    Copied,
    /// It is to be sent from where it is, with this after it.
    Apart(&'a [u8], &'static [u8]),
}

impl Exchange {
    /// Sends the head if it was not sent yet, together with `piece`.
    pub(super) fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.state.muted {
            return Ok(());
        }
        let mut out = self.take_output()?;
        match self.frame(piece, &mut out) {
            Ok(framed) => self.send_now(out, &framed),
            Err(error) => self.give_up(out, error),
        }
    }

    /// The same for a piece that may be held for the next one.
    pub(super) fn send_soon(&mut self, piece: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        let last = self.state.written.replace(now);
        let follows_soon = last.is_some_and(|last| now.duration_since(last) < HOLD_GAP);
        if self.state.muted || !follows_soon {
            return self.send(piece);
        }
        let mut out = self.take_output()?;
        match self.frame(piece, &mut out) {
            Ok(Framed::Copied) if out.len() < HELD_BYTES_MAX => {
                self.hold(out);
                Ok(())
            }
            Ok(framed) => self.send_now(out, &framed),
            Err(error) => self.give_up(out, error),
        }
    }

    /// Sends the last piece and what ends the body.
    pub(super) fn send_last(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.state.muted {
            return Ok(());
        }
        let mut out = self.take_output()?;
        match self.frame(piece, &mut out) {
            Ok(Framed::Copied) => {
                self.push_end(&mut out);
                self.settle(out)
            }
            Ok(framed) => {
                self.send_now(out, &framed)?;
                self.send_end()
            }
            Err(error) => self.give_up(out, error),
        }
    }

    /// Sends what ends the body, if there is anything to end.
    pub(super) fn send_end(&mut self) -> io::Result<()> {
        let mut out = self.take_output()?;
        self.push_end(&mut out);
        self.settle(out)
    }

    /// Sends bytes that are complete in themselves, behind what is held.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.state.muted {
            return Ok(());
        }
        let out = self.take_output()?;
        self.send_now(out, &Framed::Apart(bytes, b""))
    }

    /// What is held of this connection, or a buffer for it.
    fn take_output(&mut self) -> io::Result<Vec<u8>> {
        match self.client.with(|connection| std::mem::take(&mut connection.held)) {
            Some(held) if held.capacity() > 0 => Ok(held),
            Some(_) => Ok(self.client.shared.outputs.borrow_mut().take()),
            None => {
                self.state.response = Response::Broken;
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Leaves what is held as it was, after `frame` has failed.
    fn give_up(&mut self, out: Vec<u8>, error: io::Error) -> io::Result<()> {
        self.hold(out);
        Err(error)
    }

    fn hold(&self, out: Vec<u8>) {
        let shared = &self.client.shared;
        if out.is_empty() {
            shared.outputs.borrow_mut().give(out);
        } else {
            self.client.with(|connection| connection.held = out);
            shared.note_held(self.client.id);
        }
    }

    /// Sends what is left when a response has ended, unless the next request is there already: its
    /// answer goes out in the same call. Where the connection ends as well, its end goes out with it,
    /// unless the client has had time to send what nobody has looked for: closing would reset the
    /// connection then, and take along what waits for the end.
    fn settle(&mut self, out: Vec<u8>) -> io::Result<()> {
        let keeps = matches!(self.state.response, Response::Ended(KeepAlive::Keep))
            && !matches!(self.state.body, RequestBody::Streaming { .. });
        let body = if let RequestBody::Arrived { left } = self.state.body { left } else { 0 };
        let more = keeps
            && out.len() < HELD_BYTES_MAX
            && self.client.with(|connection| connection.input.unread().len() > body) == Some(true);
        if more || out.is_empty() {
            self.hold(out);
            return Ok(());
        }
        let closes = matches!(self.state.response, Response::Ended(KeepAlive::Close));
        let joins = closes && self.is_prompt();
        let call = if joins { sys::send_before_end } else { sys::send };
        let sent = self.send_bytes(&out, call);
        self.give_back(out);
        sent
    }

    fn is_prompt(&self) -> bool {
        let (shared, since) = (&self.client.shared, self.state.prompt);
        since != Turn::default() && shared.hears(self.client.id, since) && !shared.is_turn_old()
    }

    /// Encodes a piece, with the head before it if that was not sent yet.
    fn frame<'a>(&mut self, piece: &'a [u8], out: &mut Vec<u8>) -> io::Result<Framed<'a>> {
        self.push_head(out)?;
        let Response::Body(plan) = &self.state.response else { return Ok(Framed::Copied) };
        let encoding = plan.encoding;
        let sent_length = match encoding {
            BodyEncoding::None => 0,
            BodyEncoding::Length(total) => self.clip(piece.len() as u64, total),
            BodyEncoding::Chunked | BodyEncoding::UntilClose => piece.len() as u64,
        };
        self.state.body_bytes_sent += sent_length;
        let piece = &piece[..usize::try_from(sent_length).unwrap_or(piece.len())];
        let mut end: &[u8] = b"";
        if let (BodyEncoding::Chunked, Some(size)) = (encoding, NonZeroUsize::new(piece.len())) {
            out.extend_from_slice(ChunkHeader::new(size).as_bytes());
            end = CHUNK_END;
        }
        if piece.len() > COPY_BYTES_MAX {
            return Ok(Framed::Apart(piece, end));
        }
        out.extend_from_slice(piece);
        out.extend_from_slice(end);
        Ok(Framed::Copied)
    }

    fn push_head(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let builder = match &self.state.response {
            Response::Begun(builder) => builder,
            Response::Unbegun => {
                let message = "no response has been begun";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Response::CutOff | Response::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
            Response::Upgraded(_) => {
                let message = "the connection has been upgraded to another protocol";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Response::Body(_) | Response::Ended(_) => return Ok(()),
        };
        let mut facts = self.facts;
        if !self.may_keep_alive() {
            facts.keep_alive = KeepAlive::Close;
        }
        let fields = self.client.shared.fields.borrow();
        let known_length = match self.state.length {
            Length::Announced(bytes) => Some(bytes),
            Length::Unknown | Length::Mismatched(_) => None,
        };
        let finished = builder.finish(facts, known_length, &fields, out);
        drop(fields);
        self.state.response = match finished {
            Ok(plan) => Response::Body(plan),
            Err(error) => {
                self.state.response = Response::Unbegun;
                return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
            }
        };
        Ok(())
    }

    /// How much of `bytes` still belongs to a body of `total` bytes.
    fn clip(&mut self, bytes: u64, total: u64) -> u64 {
        let left = total - self.state.body_bytes_sent.min(total);
        if bytes > left {
            self.state.length = Length::Mismatched(LengthMismatch::Excess);
        }
        bytes.min(left)
    }

    /// Sends `out`, and what stands apart; may wait for the client.
    fn send_now(&mut self, out: Vec<u8>, framed: &Framed<'_>) -> io::Result<()> {
        let sent = match framed {
            Framed::Copied => self.send_bytes(&out, sys::send),
            Framed::Apart(piece, end) => {
                self.send_all(&mut [IoSlice::new(&out), IoSlice::new(piece), IoSlice::new(end)])
            }
        };
        self.give_back(out);
        sent
    }

    fn give_back(&self, mut out: Vec<u8>) {
        out.clear();
        self.client.shared.outputs.borrow_mut().give(out);
    }

    fn send_bytes(
        &mut self,
        mut bytes: &[u8],
        call: fn(RawFd, &[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.state.muted && !bytes.is_empty() {
            let sent = self.retry(|fd| call(fd, bytes))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn send_all(&mut self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut pieces, 0);
        while !self.state.muted && !pieces.is_empty() {
            let sent = self.retry(|fd| sys::send_vectored(fd, pieces))?;
            IoSlice::advance_slices(&mut pieces, sent);
        }
        Ok(())
    }

    /// The connection's descriptor, which is asked for at each use: once the request has ended the
    /// system may have given the number to another connection.
    pub(super) fn fd(&self) -> io::Result<RawFd> {
        self.client.fd().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Calls `send` until the socket takes something, waiting in between, and before if others are to
    /// go on. A failure breaks the response.
    pub(super) fn retry<N>(
        &mut self,
        mut send: impl FnMut(RawFd) -> io::Result<N>,
    ) -> io::Result<N> {
        let mut waited = self.client.shared.give_way(self.client.id, &mut self.state.sent_in);
        loop {
            if let Err(error) = waited {
                self.state.response = Response::Broken;
                return Err(error);
            }
            waited = match self.fd().and_then(&mut send) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let client = &self.client;
                    let timeout = client.shared.config.send_timeout;
                    client.shared.wait(client.id, Readiness::Writable, Some(timeout))
                }
                Err(error) => Err(error),
                Ok(count) => return Ok(count),
            };
        }
    }
}
