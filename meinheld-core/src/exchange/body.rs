//! The body of a request, as its application reads it.
//!
//! Not here: how a body that is collected came in (see driver.rs), and the response.

use std::convert::Infallible;
use std::io::{self, Read, Seek};

use meinheld_coro::Interrupt;
use tempfile::SpooledTempFile;

use super::Exchange;
use crate::descriptors::Readiness;
use crate::http::CONTINUE;
use crate::sys;

/// Whether the client waits for a `100 Continue` (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    None,
    Waiting,
}

/// Where a request's body is.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    /// So many bytes of the connection's input are what is left of it.
    Arrived {
        left: usize,
    },
    Collected {
        spool: Box<SpooledTempFile>,
        bytes: u64,
    },
    Streaming {
        left: u64,
    },
    Broken,
}

impl RequestBody {
    /// How long it is, in bytes, as far as that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            RequestBody::Empty => Some(0),
            RequestBody::Arrived { left } => Some(*left as u64),
            RequestBody::Collected { bytes, .. } => Some(*bytes),
            RequestBody::Streaming { left } => Some(*left),
            RequestBody::Broken => None,
        }
    }
}

impl Exchange {
    /// How many bytes of the request's body have not been read, if that is known.
    pub fn body_bytes_left(&mut self) -> Option<u64> {
        match &mut self.state.body {
            RequestBody::Empty => Some(0),
            RequestBody::Arrived { left } => Some(*left as u64),
            RequestBody::Collected { spool, bytes } => {
                spool.stream_position().ok().map(|position| bytes.saturating_sub(position))
            }
            RequestBody::Streaming { left } => Some(*left),
            RequestBody::Broken => None,
        }
    }

    /// Reads the request's body into `buffer`, waiting for the client if need be; zero is its end.
    /// The first read of a body that the client holds back asks for it with `100 Continue`.
    ///
    /// # Errors
    /// `TimedOut` when the client sends nothing for the body time-out; `UnexpectedEof` when it ends
    /// before the body does, and at each call after a failure; what the socket says.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.state.body {
            RequestBody::Empty => Ok(0),
            RequestBody::Arrived { .. } => {
                let read = self.take_arrived(buffer.len(), |bytes| {
                    buffer[..bytes.len()].copy_from_slice(bytes);
                    Ok(bytes.len())
                });
                read.unwrap_or(Err(io::ErrorKind::NotConnected.into()))
            }
            RequestBody::Collected { spool, .. } => spool.read(buffer),
            RequestBody::Streaming { left } => {
                let left = *left;
                self.read_streaming(buffer, left)
            }
            RequestBody::Broken => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Calls `use_it` with the next `limit` bytes of the request's body, with fewer if that many are not
    /// left. They have been read then, unless it fails. `None` for a body that had not come whole when
    /// the request began: that is [read](Self::read_body).
    pub fn take_arrived<R, E>(
        &mut self,
        limit: usize,
        use_it: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Option<Result<R, E>> {
        let RequestBody::Arrived { left } = self.state.body else { return None };
        let mut input = self.client.with(|connection| std::mem::take(&mut connection.input))?;
        let count = limit.min(left);
        // Should it panic, the input is lost.
        self.state.body = RequestBody::Broken;
        let used = use_it(&input.unread()[..count]);
        let taken = if used.is_ok() { count } else { 0 };
        self.state.body = RequestBody::Arrived { left: left - taken };
        input.consume(taken);
        if input.is_empty() {
            self.client.shared.buffers.borrow_mut().shrink(std::mem::take(&mut input));
        }
        self.client.with(|connection| connection.input = input);
        Some(used)
    }

    /// Drops what has arrived of the request's body and was not read, so that the connection's input
    /// begins with what is behind it.
    pub(super) fn drop_arrived(&mut self) {
        if let RequestBody::Arrived { left: 1.. } = self.state.body {
            let _ = self.take_arrived(usize::MAX, |_| Ok::<(), Infallible>(()));
        }
    }

    fn read_streaming(&mut self, buffer: &mut [u8], left: u64) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let read = self.receive(&mut buffer[..room]).and_then(|count| match count {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            count => Ok(count),
        });
        self.state.body = match read {
            Ok(count) if count as u64 == left => RequestBody::Empty,
            Ok(count) => RequestBody::Streaming { left: left - count as u64 },
            Err(ref error) if is_interrupt(error) => RequestBody::Streaming { left },
            Err(_) => RequestBody::Broken,
        };
        read
    }

    /// Takes bytes from the connection's input first, then from the socket.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let kept = self.client.with(|connection| {
            let count = connection.input.unread().len().min(buffer.len());
            buffer[..count].copy_from_slice(&connection.input.unread()[..count]);
            connection.input.consume(count);
            count
        });
        match kept {
            Some(0) => {}
            Some(count) => return Ok(count),
            None => return Err(io::ErrorKind::NotConnected.into()),
        }
        self.ask_for_body()?;
        self.client.shared.give_way(self.client.id, &mut self.state.received_in)?;
        loop {
            match sys::receive(self.fd()?, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let client = &self.client;
                    client.with(|connection| connection.readable = false);
                    let timeout = client.shared.config.body_timeout;
                    client.shared.wait(client.id, Readiness::Readable, Some(timeout))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// RFC 9110 section 10.1.1: asked once, and never after the response has begun to go out.
    fn ask_for_body(&mut self) -> io::Result<()> {
        if self.state.expectation == Expectation::None || self.is_head_sent() {
            return Ok(());
        }
        self.state.expectation = Expectation::None;
        self.send_raw(CONTINUE)
    }
}

/// Whether it is the wait that failed, and not the client: the body is as it was.
fn is_interrupt(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Interrupt>)
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_body(buffer)
    }
}
