//! Many requests that wait at once, woken by one more.
//!
//! It says `parked` when all have been sent, and wakes them when a line comes from standard input,
//! so that whoever runs it can look at the server in between.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::connection::{Connection, Outcome};
use crate::options::Options;
use crate::request::Template;
use crate::tally::Tally;

const BUFFER_BYTES: usize = 64 * 1024;
const TICK: Duration = Duration::from_millis(50);
/// How long a connection may take: the kernel holds those that a server does not accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Parks, waits for the word, and wakes; the line of the wake-up's figures.
pub(crate) fn run(options: &Options) -> io::Result<String> {
    let mut poll = Poll::new()?;
    let mut connections = park(options, &poll)?;
    println!("parked");
    io::stdout().flush()?;
    io::stdin().lock().read_line(&mut String::new())?;

    let mut waker = TcpStream::connect(options.address)?;
    let mut tally = Tally::new();
    waker.write_all(&options.wake)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    while tally.answered_count() + tally.failed_count() < options.connections as u64
        && tally.elapsed() < options.time
    {
        poll.poll(&mut events, Some(TICK))?;
        for event in &events {
            let index = event.token().0;
            let Some(connection) = &mut connections[index] else { continue };
            if connection.is_idle() {
                // It has its answer; what the server does with it then is not measured.
                continue;
            }
            match connection.pull(&mut buffer, b"") {
                Outcome::Answered(asked) if asked.is_empty() => {}
                Outcome::Answered(asked) | Outcome::Ended(asked) if asked.len() == 1 => {
                    tally.answered(asked[0], Instant::now());
                }
                Outcome::Answered(_) | Outcome::Ended(_) => {
                    tally.failed("the connection was closed without an answer");
                    connections[index] = None;
                }
                Outcome::Failed(reason) => {
                    tally.failed(&reason);
                    connections[index] = None;
                }
            }
        }
    }
    Ok(tally.line())
}

/// Sends every request on a connection of its own.
fn park(options: &Options, poll: &Poll) -> io::Result<Vec<Option<Connection>>> {
    let mut request = Template::new(options.request.clone());
    let mut body = Template::new(options.body.clone());
    let mut connections = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let stream = TcpStream::connect_timeout(&options.address, PATIENCE)?;
        stream.set_nonblocking(true)?;
        let stream = mio::net::TcpStream::from_std(stream);
        let mut connection = Connection::watched(stream, poll.registry(), Token(index))?;
        let number = index as u64;
        connection.ask(request.numbered(number), Some(body.numbered(number).to_vec()));
        connection.push()?;
        connections.push(Some(connection));
    }
    Ok(connections)
}
