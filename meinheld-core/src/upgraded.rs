//! A connection whose bytes are no HTTP any more: a byte stream that parks instead of blocking.
//!
//! One coroutine may wait for input while another waits for room. The `try_*` calls never wait, so
//! that a protocol's state can be borrowed over them; the `wait_*` calls are for when it is not.
//! Not here: any protocol.

use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use crate::client::Client;
use crate::connection::Connection;
use crate::descriptors::Readiness;
use crate::input::Input;
use crate::receiving::Received;
use crate::sys;

/// What an exchange has to know of the bytes that it does not send itself.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: Cell<u64>,
    cut: Cell<bool>,
}

impl Traffic {
    /// How many bytes have been sent.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether something was sent in part only, so that nothing may follow it.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }
}

/// A connection after a 101, until the request that upgraded it ends; see
/// [`Exchange::upgrade`](crate::Exchange::upgrade).
///
/// Every call is one of a coroutine of the server's. [`Read`] and [`Write`] park it, and are there
/// for shared references too.
#[derive(Debug)]
pub struct Upgraded {
    client: Client,
    traffic: Rc<Traffic>,
}

impl Upgraded {
    pub(crate) fn new(client: Client, traffic: Rc<Traffic>) -> Upgraded {
        Upgraded { client, traffic }
    }

    /// The client at the other end.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server stops, and this protocol should come to an end. Whoever waits for input
    /// then is interrupted once, with an error of [`Interrupt`](meinheld_coro::Interrupt).
    pub fn is_stopping(&self) -> bool {
        self.client.shared.stopping.get()
    }

    /// Whether the connection still belongs to the request that upgraded it.
    pub fn is_open(&self) -> bool {
        self.client.with(|_| ()).is_some()
    }

    /// Receives what is there into `buffer`; zero is the end of the input. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing now, `NotConnected` after the request's end, what the socket
    /// says.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let count @ 1.. = self.take_input(buffer)? {
                return Ok(count);
            }
            match self.fill()? {
                Received::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
                Received::End => return Ok(0),
                // A signal may have come instead of bytes.
                Received::Some | Received::Drained => {}
            }
        }
    }

    /// Moves bytes that have been received already; tells how many. The last ones give the large
    /// buffer back.
    fn take_input(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.client.with(|connection| {
            let unread = connection.input.unread();
            let count = unread.len().min(buffer.len());
            buffer[..count].copy_from_slice(&unread[..count]);
            connection.input.consume(count);
            let emptied = count > 0 && connection.input.is_empty();
            (count, emptied.then(|| std::mem::take(&mut connection.input)))
        });
        let (count, emptied) = taken.ok_or(io::ErrorKind::NotConnected)?;
        if let Some(input) = emptied {
            self.client.shared.buffers.borrow_mut().shrink(input);
        }
        Ok(count)
    }

    /// Receives into the connection's input, which must be empty, as much as the system gives at
    /// once.
    fn fill(&self) -> io::Result<Received> {
        let known = self.client.with(|connection| match connection {
            Connection { readable: true, .. } => None,
            Connection { peer_closed: true, .. } => Some(Received::End),
            // If there is more to come an event will tell.
            Connection { watched, .. } => watched.then_some(Received::Nothing),
        });
        if let Some(received) = known.ok_or(io::ErrorKind::NotConnected)? {
            return Ok(received);
        }
        let (shared, id) = (&self.client.shared, self.client.id);
        let mut input = shared.buffers.borrow_mut().grow(Input::default());
        let received = shared.receive(id, &mut input);
        if input.is_empty() {
            input = shared.buffers.borrow_mut().shrink(input);
        }
        shared.with(id, |connection| connection.input = input);
        received
    }

    /// Sends what the socket takes of several pieces, in one call. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now, `NotConnected` after the request's end, what the socket
    /// says.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = self.client.fd().ok_or(io::ErrorKind::NotConnected)?;
        let sent = sys::send_vectored(fd, pieces)?;
        self.traffic.sent.set(self.traffic.sent.get() + sent as u64);
        Ok(sent)
    }

    /// Parks until there is input, or its end; for `timeout` at the most, without limit if there is
    /// none. To be called when [`try_read`](Self::try_read) would block.
    ///
    /// # Errors
    /// `TimedOut`; `ResourceBusy` while another coroutine waits for input; `NotConnected` after the
    /// request's end; an [`Interrupt`](meinheld_coro::Interrupt) when the wait was ended otherwise:
    /// the server stops, the request ends, the coroutine is cancelled or may not park.
    pub fn wait_readable(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.wait(Readiness::Readable, timeout)
    }

    /// The same for room to send, when [`try_write_vectored`](Self::try_write_vectored) would block.
    ///
    /// # Errors
    /// As [`wait_readable`](Self::wait_readable).
    pub fn wait_writable(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.wait(Readiness::Writable, timeout)
    }

    /// The same for either. If another coroutine comes to wait for room, that one alone is told of
    /// it.
    ///
    /// # Errors
    /// As [`wait_readable`](Self::wait_readable).
    pub fn wait_readable_or_writable(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.wait(Readiness::Either, timeout)
    }

    fn wait(&self, readiness: Readiness, timeout: Option<Duration>) -> io::Result<()> {
        match self.client.with(|connection| connection.is_taken(readiness)) {
            None => Err(io::ErrorKind::NotConnected.into()),
            Some(true) => Err(io::ErrorKind::ResourceBusy.into()),
            Some(false) => self.client.shared.wait(self.client.id, readiness, timeout),
        }
    }

    /// Ends a wait for input, if a coroutine is in one, as a stop of the server would.
    pub fn interrupt_reader(&self) {
        if let Some(Some(ticket)) = self.client.with(|connection| connection.reader) {
            ticket.interrupt();
        }
    }

    /// Gives the client up: it is dead, or something was sent to it in part only. Whoever waits for
    /// it is interrupted, and the connection is closed at the request's end without waiting for the
    /// client to read.
    pub fn abandon(&self) {
        self.traffic.cut.set(true);
        let waiting = self.client.with(|connection| {
            connection.peer_closed = true;
            [connection.reader, connection.writer, connection.departure]
        });
        for ticket in waiting.into_iter().flatten().flatten() {
            ticket.interrupt();
        }
    }

    fn read_parking(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_readable(None)?;
                }
                other => return other,
            }
        }
    }

    fn write_parking(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let timeout = self.client.shared.config.send_timeout;
        loop {
            match self.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_writable(Some(timeout))?;
                }
                other => return other,
            }
        }
    }
}

impl Connection {
    /// Whether another coroutine waits for the same. One that waits for either gives way to one that
    /// waits for room.
    fn is_taken(&self, readiness: Readiness) -> bool {
        match readiness {
            Readiness::Readable => self.reader.is_some(),
            Readiness::Writable => self.writer.is_some_and(|writer| self.reader != Some(writer)),
            Readiness::Either => self.reader.is_some() || self.writer.is_some(),
        }
    }
}

impl Read for &Upgraded {
    /// Waits without limit.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_parking(buffer)
    }
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_parking(buffer)
    }
}

impl Write for &Upgraded {
    /// Waits as long as a response does, `Config::send_timeout`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_parking(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_parking(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_parking(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_parking(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
