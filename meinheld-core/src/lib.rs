//! An HTTP/1.1 server on raw epoll that runs each request in a stackful coroutine, for Linux.
//!
//! A handler is plain blocking code. When it waits — for a body, for a client that reads slowly, in
//! a [`Continuation`](meinheld_coro::Continuation) for another request — its coroutine parks, and
//! the one thread serves everything else.
//!
//! ```no_run
//! use meinheld_core::{Config, Listener, Server, handler};
//!
//! let hello = handler(|_request, exchange| {
//!     let _ = exchange.respond(200, &[("Content-Type", "text/plain")], b"Hello\n");
//! });
//! let server = Server::new(Config::default(), hello)?;
//! for listener in Listener::tcp("127.0.0.1", 8000, 2048)? {
//!     server.listen(listener);
//! }
//! server.stop_on_termination()?;
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`wait_ready`] parks a handler, or a task that one has spawned, until any other descriptor is ready:
//! a connection to a database, a pipe.
//!
//! A host that wants to look at a request's head without copying it implements [`Service`] itself.
//!
//! # What it refuses to know
//!
//! What a handler does, and any language but Rust: no interpreter appears in this crate.

mod accept;
mod address;
mod client;
mod config;
mod connection;
mod descriptors;
mod driver;
mod exchange;
mod handler;
mod heartbeat;
pub mod http;
mod input;
mod line_writer;
mod listener;
mod receiving;
mod refusal;
mod repeats;
#[cfg(test)]
mod replay;
mod seldom;
mod serve;
mod server;
mod service;
mod shared;
mod stopping;
#[allow(unsafe_code)] // the system calls
mod sys;
mod upgraded;
pub mod ws;

pub use address::Address;
pub use client::Client;
pub use config::{ChunkedBodies, Config};
pub use connection::CloseReason;
pub use descriptors::{Readiness, WaitError, cancel_waits, wait_ready};
pub use exchange::{BeginError, Exchange, LengthMismatch, UpgradeError, duplicate_file};
pub use handler::{Handler, Request, handler};
pub use heartbeat::Heartbeat;
pub use line_writer::{LineWriter, LogFile};
pub use listener::{ListenError, Listener};
pub use server::{Server, Stopped, descriptor_limit, raise_descriptor_limit};
pub use service::{ConnectionInfo, Report, Service};
pub use stopping::Handle;
pub use sys::SignalPipe;
pub use upgraded::Upgraded;
