//! Answering a request for a WebSocket.

use std::io;

use super::handshake::{Handshake, HandshakeError};
use super::socket::{WebSocket, WebSocketConfig};
use crate::exchange::Exchange;

impl Exchange {
    /// Answers 101, RFC 6455 section 4.2.2, and goes on as a WebSocket until the request ends, which
    /// should be after [`WebSocket::finish`]. `protocol` must be one of those that the client offers.
    ///
    /// # Errors
    /// As [`upgrade`](Exchange::upgrade), and `InvalidInput` for another subprotocol; the request can
    /// still be answered in HTTP then.
    pub fn accept_websocket(
        &mut self,
        handshake: &Handshake,
        protocol: Option<&str>,
        config: WebSocketConfig,
    ) -> io::Result<WebSocket> {
        if let Some(protocol) = protocol
            && !handshake.protocols().any(|offered| offered == protocol)
        {
            let message = format!("the client does not offer the subprotocol '{protocol}'");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let accept = handshake.accept().as_bytes();
        let fields = [(&b"Upgrade"[..], &b"websocket"[..]), (b"Sec-WebSocket-Accept", accept)];
        let chosen = protocol.map(|name| (&b"Sec-WebSocket-Protocol"[..], name.as_bytes()));
        let stream = self.upgrade(fields.into_iter().chain(chosen))?;
        Ok(WebSocket::new(stream, protocol, config))
    }

    /// Answers a request that asks for a WebSocket in a way that must be refused.
    ///
    /// # Errors
    /// As [`respond`](Exchange::respond).
    pub fn refuse_websocket(&mut self, error: &HandshakeError) -> io::Result<()> {
        let text = [("Content-Type", "text/plain")];
        let headers: Vec<_> = text.iter().chain(error.headers()).copied().collect();
        self.respond(error.status(), &headers, format!("{error}\n").as_bytes())
    }
}
