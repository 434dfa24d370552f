//! Many requests that wait at once, woken by one more.
//!
//! It says `parked` when all have been sent, and wakes them when a line comes from standard input,
//! so that whoever runs it can look at the server in between. The connections stay open until there
//! is another line, or the input ends: what closing them costs the server is not what waking does.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::connection::{Connection, Outcome};
use crate::options::Options;
use crate::request::Template;
use crate::tally::Tally;

const BUFFER_BYTES: usize = 64 * 1024;
const TICK: Duration = Duration::from_millis(50);
/// Answers are taken in batches: a client that is woken for each has its waking up measured, which
/// the kernel has the server do.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a connection may take: the kernel holds those that a server does not accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Parks, waits for the word, wakes, and says the line of the wake-up's figures.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut connections = park(options, &poll)?;
    say("parked")?;
    wait_for_line()?;
    let tally = wake(options, poll, &mut connections)?;
    say(&tally.line())?;
    wait_for_line()
}

fn say(line: &str) -> io::Result<()> {
    println!("{line}");
    io::stdout().flush()
}

fn wait_for_line() -> io::Result<()> {
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}

/// Sends the request that wakes them, and receives every answer.
fn wake(
    options: &Options,
    mut poll: Poll,
    connections: &mut [Option<Connection>],
) -> io::Result<Tally> {
    let mut waker = TcpStream::connect(options.address)?;
    let mut tally = Tally::new();
    waker.write_all(&options.wake)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    while tally.answered_count() + tally.failed_count() < options.connections as u64
        && tally.elapsed() < options.time
    {
        thread::sleep(PAUSE);
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
    Ok(tally)
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
