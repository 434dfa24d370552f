//! One connection of the generator: what is still to be sent, and what is expected next.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::reply::{Fault, Reply};

/// A connection, and the requests that are under way on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    sent: usize,
    under_way: VecDeque<UnderWay>,
    reply: Reply,
}

#[derive(Debug)]
struct UnderWay {
    asked: Instant,
    /// The body of its own, where not every request has the same.
    expected: Option<Vec<u8>>,
}

/// What came of an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// These requests have been answered; each as it was asked.
    Answered(Vec<Instant>),
    /// The peer has ended a connection on which nothing was under way, or the last response.
    Ended(Vec<Instant>),
    Failed(String),
}

impl Connection {
    /// Connects, and has `registry` watch it.
    pub(crate) fn open(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        Connection::watched(TcpStream::connect(address)?, registry, token)
    }

    /// The same with a stream that is connected.
    pub(crate) fn watched(
        mut stream: TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let (output, under_way) = (Vec::new(), VecDeque::new());
        Ok(Connection { stream, output, sent: 0, under_way, reply: Reply::default() })
    }

    /// Puts a request behind those that are under way; [`push`](Self::push) sends it.
    pub(crate) fn ask(&mut self, request: &[u8], expected: Option<Vec<u8>>) {
        self.output.extend_from_slice(request);
        self.under_way.push_back(UnderWay { asked: Instant::now(), expected });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(crate) fn under_way_count(&self) -> usize {
        self.under_way.len()
    }

    /// Sends as much as the socket takes.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if waits(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Receives all there is; `common` is the body of every response that has none of its own.
    pub(crate) fn pull(&mut self, buffer: &mut [u8], common: &[u8]) -> Outcome {
        let mut answered = Vec::new();
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return self.ended(answered, common),
                Ok(count) => {
                    if let Err(fault) = self.take(&buffer[..count], common, &mut answered) {
                        return Outcome::Failed(fault.to_string());
                    }
                    // What only the end of the connection ends is read up to that end.
                    if count < buffer.len() && !self.reply.lasts_to_end() {
                        return Outcome::Answered(answered);
                    }
                }
                Err(error) if waits(&error) => return Outcome::Answered(answered),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Outcome::Failed(error.kind().to_string()),
            }
        }
    }

    fn take(
        &mut self,
        mut input: &[u8],
        common: &[u8],
        answered: &mut Vec<Instant>,
    ) -> Result<(), Fault> {
        while !input.is_empty() {
            let front = self.under_way.front().ok_or(Fault::Framing)?;
            let expected = front.expected.as_deref().unwrap_or(common);
            let (taken, done) = self.reply.take(input, expected)?;
            input = &input[taken..];
            if done {
                self.reply = Reply::default();
                answered.extend(self.under_way.pop_front().map(|request| request.asked));
            }
        }
        Ok(())
    }

    fn ended(&mut self, mut answered: Vec<Instant>, common: &[u8]) -> Outcome {
        if let Some(front) = self.under_way.pop_front() {
            let expected = front.expected.as_deref().unwrap_or(common);
            if let Err(fault) = self.reply.end(expected) {
                return Outcome::Failed(fault.to_string());
            }
            answered.push(front.asked);
        }
        Outcome::Ended(answered)
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
