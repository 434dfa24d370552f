//! A closed loop: each connection asks, waits for the whole answer, and asks again.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::connection::{Connection, Outcome};
use crate::options::{Options, Reuse};
use crate::request::Template;
use crate::tally::Tally;

const BUFFER_BYTES: usize = 256 * 1024;
/// A server that fails at everything is not asked for ever.
const FAILURES_MAX: u64 = 10_000;
const TICK: Duration = Duration::from_millis(50);
/// How long what is under way may take to be answered when no more is asked.
const PATIENCE: Duration = Duration::from_secs(5);

struct Load<'a> {
    options: &'a Options,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    request: Template,
    body: Template,
    common: Vec<u8>,
    tally: Tally,
    asked: u64,
    buffer: Vec<u8>,
}

/// Runs the load; the line of its figures.
pub(crate) fn run(options: &Options) -> io::Result<String> {
    let mut load = Load {
        options,
        poll: Poll::new()?,
        connections: (0..options.connections).map(|_| None).collect(),
        request: Template::new(options.request.clone()),
        body: Template::new(options.body.clone()),
        common: options.body.clone(),
        tally: Tally::new(),
        asked: 0,
        buffer: vec![0; BUFFER_BYTES],
    };
    for index in 0..options.connections {
        load.begin(index)?;
    }
    let mut events = Events::with_capacity(1024);
    while !load.is_over() {
        load.poll.poll(&mut events, Some(TICK))?;
        for event in &events {
            load.handle(event.token().0, event.is_writable())?;
        }
    }
    let unanswered = load.unanswered();
    if unanswered > options.stragglers {
        load.tally.failed(&format!("{unanswered} requests had no answer"));
    }
    Ok(load.tally.line())
}

impl Load<'_> {
    fn may_ask(&self) -> bool {
        self.asked < self.options.requests
            && self.tally.elapsed() < self.options.time
            && self.tally.failed_count() < FAILURES_MAX
    }

    fn is_over(&self) -> bool {
        let out_of_patience = self.tally.elapsed() > self.options.time + PATIENCE;
        !self.may_ask() && (out_of_patience || self.unanswered() <= self.options.stragglers)
    }

    fn unanswered(&self) -> usize {
        self.connections.iter().flatten().map(Connection::under_way_count).sum()
    }

    /// Opens a connection and asks on it.
    fn begin(&mut self, index: usize) -> io::Result<()> {
        let opened = Connection::open(self.options.address, self.poll.registry(), Token(index))?;
        self.connections[index] = Some(opened);
        self.ask(index);
        Ok(())
    }

    fn ask(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        for _ in 0..self.options.pipeline {
            self.asked += 1;
            let own = !self.body.is_constant();
            let expected = own.then(|| self.body.numbered(self.asked).to_vec());
            connection.ask(self.request.numbered(self.asked), expected);
        }
        if let Err(error) = connection.push() {
            self.tally.failed(&error.kind().to_string());
            self.connections[index] = None;
        }
    }

    fn handle(&mut self, index: usize, writable: bool) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        if writable {
            // A failed connection tells its reason to the receive below.
            let _ = connection.push();
        }
        let outcome = connection.pull(&mut self.buffer, &self.common);
        let idle = connection.is_idle();
        match outcome {
            Outcome::Answered(asked) => {
                self.note(&asked);
                self.go_on(index, idle)
            }
            Outcome::Ended(asked) => {
                self.note(&asked);
                self.begin_again(index)
            }
            Outcome::Failed(reason) => {
                self.tally.failed(&reason);
                self.begin_again(index)
            }
        }
    }

    fn note(&mut self, asked: &[Instant]) {
        let now = Instant::now();
        for asked in asked {
            self.tally.answered(*asked, now);
        }
    }

    fn go_on(&mut self, index: usize, idle: bool) -> io::Result<()> {
        if idle && self.options.reuse == Reuse::OneRequest {
            return self.begin_again(index);
        }
        if idle && self.may_ask() {
            self.ask(index);
        }
        Ok(())
    }

    fn begin_again(&mut self, index: usize) -> io::Result<()> {
        self.connections[index] = None;
        if self.may_ask() { self.begin(index) } else { Ok(()) }
    }
}
