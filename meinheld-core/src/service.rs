//! What a server serves: the application's side of the contract, and what it is told beside.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

use meinheld_coro::{StackError, TaskLocalFactory};

use crate::address::Address;
use crate::exchange::Exchange;
use crate::http::{Changes, Head};

/// An application: called once for each request, in a coroutine of the request's own.
pub trait Service: 'static {
    /// What [`accept`](Self::accept) keeps of a request's head.
    type Request;

    /// Takes from the head what [`call`](Self::call) will need; the head's bytes are reused as soon
    /// as this returns. Waiting in here is refused.
    fn accept(&self, head: &Head<'_>, connection: &ConnectionInfo<'_>) -> Self::Request;

    /// Answers the request. May wait at any depth: reading the body, sending, sleeping, suspending.
    ///
    /// A response that was not begun when this returns, or panics, becomes a 500; one that was not
    /// ended is ended.
    fn call(&self, request: Self::Request, exchange: &mut Exchange);

    /// Runs `wait`, which blocks until something happens. A host that holds a lock while it runs
    /// gives it up for as long.
    fn blocked(&self, wait: &mut dyn FnMut()) {
        wait();
    }

    /// Called once in each turn of the loop, when no request runs; `Break` ends the loop at once,
    /// as if [`Handle::stop`](crate::Handle::stop) had been called with no time left.
    fn turn(&self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// When [`turn`](Self::turn) is to be called at the latest, though nothing happens before; `None`
    /// leaves it to what happens.
    fn next_turn(&self) -> Option<Instant> {
        None
    }

    /// Told of everything that goes wrong outside of a call. Prints one line to standard error if
    /// not overridden.
    fn report(&self, report: &Report<'_>) {
        eprintln!("meinheld: {report}");
    }

    /// What the host exchanges at each switch between requests.
    fn locals(&self) -> Option<Rc<dyn TaskLocalFactory>> {
        None
    }
}

/// A request's connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo<'a> {
    /// Where the client is.
    pub peer: &'a Address,
    /// Where the server listens.
    pub local: &'a Address,
    /// How long the request's body is, in bytes, once its chunks are decoded.
    pub body_bytes: Option<u64>,
    /// The connection itself, in a number that no other one has. The lower half is small.
    pub number: u64,
    /// How the head differs from the one that was accepted before it on this connection, if that is
    /// known.
    pub changes: Option<Changes>,
}

/// Something that went wrong outside of a call.
#[non_exhaustive]
pub enum Report<'a> {
    /// A request was refused by the server itself.
    Refused {
        /// The client.
        peer: &'a Address,
        /// The first line of its head, as far as it had come; it may be any bytes.
        line: &'a [u8],
        /// The status that it was answered.
        status: u16,
        /// How many bytes the body of that answer has.
        bytes: u64,
        /// What was wrong.
        reason: &'a dyn fmt::Display,
    },
    /// A request was refused for a header whose name holds an underscore, as
    /// [`UnderscoreHeaders::Refuse`](crate::http::UnderscoreHeaders::Refuse) asks for; it is told as
    /// [`Refused`](Self::Refused), too. Told every ten seconds at most.
    RefusedUnderscore {
        /// The client.
        peer: &'a Address,
        /// The name: a token.
        name: &'a str,
    },
    /// No connection could be accepted; accepting pauses for a moment. Told every ten seconds
    /// at most.
    AcceptFailed {
        /// What the system said.
        error: &'a io::Error,
    },
    /// No coroutine could be had for a request, which was answered 503. Told every ten seconds at
    /// most.
    NoCoroutine {
        /// Why.
        error: &'a StackError,
    },
    /// A call panicked; the client was answered 500 if nothing had been sent.
    Panicked {
        /// The client.
        peer: &'a Address,
    },
    /// Waiting for events failed, which ends the server.
    PollFailed {
        /// What the system said.
        error: &'a io::Error,
    },
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Refused { peer, status, reason, .. } => {
                write!(f, "refused a request from {peer} with {status}: {reason}")
            }
            Report::RefusedUnderscore { peer, name } => write!(
                f,
                "answered 400 to {peer}: the name of the header {name:.100} holds an underscore, and such \
                 requests are to be refused (told every ten seconds at most)"
            ),
            Report::AcceptFailed { error } => write!(
                f,
                "cannot accept connections for now: {error} (raise the descriptor limit, ulimit -n, \
                 if there are too many open files)"
            ),
            Report::NoCoroutine { error } => write!(f, "answered 503: {error}"),
            Report::Panicked { peer } => {
                write!(f, "the application panicked on a request from {peer}")
            }
            Report::PollFailed { error } => write!(f, "waiting for events failed: {error}"),
        }
    }
}
