//! Receiving: one call of the system, and what it tells of the connection.
//!
//! Not here: when to receive, and what the bytes mean.

use std::io;

use crate::connection::ConnectionId;
use crate::input::Input;
use crate::shared::Shared;
use crate::sys;

/// What came of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes, and perhaps there are more.
    Some,
    /// Bytes, and no more for now.
    Drained,
    /// None for now.
    Nothing,
    /// The peer has ended its side.
    End,
}

impl Shared {
    /// Receives once.
    pub(crate) fn receive(&self, id: ConnectionId, input: &mut Input) -> io::Result<Received> {
        let known = self.with(id, |connection| (connection.fd(), connection.peer_closed));
        let (fd, peer_closed) = known.ok_or(io::ErrorKind::NotConnected)?;
        let buffer = input.tail();
        let room = buffer.capacity() - buffer.len();
        let received = match sys::receive_into(fd, buffer) {
            Ok(0) => Received::End,
            // A read that leaves room has taken all there was; the end, if it has been seen, is
            // still to be read.
            Ok(count) if count < room && !peer_closed => Received::Drained,
            Ok(_) => Received::Some,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Some,
            Err(error) => return Err(error),
        };
        self.with(id, |connection| {
            connection.readable = received == Received::Some;
            connection.peer_closed |= received == Received::End;
        });
        Ok(received)
    }
}
