//! WebSockets, RFC 6455, from the server's side: plain blocking code that parks its coroutine.
//!
//! ```text
//!   Handshake   a request's headers ──▶ what to answer, 101 or why not
//!   Protocol    bytes in ──▶ messages, and bytes to send in answer (no I/O, no clock)
//!   WebSocket   both on a connection: waits, turns of the senders, pings, the end
//! ```
//!
//! ```no_run
//! use meinheld_core::handler;
//! use meinheld_core::ws::{Handshake, WebSocketConfig};
//!
//! let echo = handler(|request, exchange| {
//!     let answered = match Handshake::of(&request.method, request.version, request.fields()) {
//!         Ok(Some(handshake)) => exchange
//!             .accept_websocket(&handshake, None, WebSocketConfig::default())
//!             .and_then(|socket| {
//!                 while let Some(message) = socket.receive(None)? {
//!                     socket.send(&message, None)?;
//!                 }
//!                 socket.finish(1000);
//!                 Ok(())
//!             }),
//!         Ok(None) => exchange.respond(200, &[], b"Speak WebSocket to me.\n"),
//!         Err(error) => exchange.refuse_websocket(&error),
//!     };
//!     drop(answered); // the client may have gone
//! });
//! ```
//!
//! Extensions are not negotiated: no well-kept crate gives permessage-deflate to a stream that is not
//! one of an asynchronous runtime's. Not here: what the messages mean.

mod accept;
mod handshake;
mod message;
mod protocol;
mod socket;
mod turns;

pub use handshake::{Handshake, HandshakeError};
pub use message::{Closure, Message, MessageKind, is_sendable_code};
pub use protocol::{Protocol, Step};
pub use socket::{WebSocket, WebSocketConfig};
