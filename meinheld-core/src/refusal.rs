//! Requests that the server refuses itself, before any application has them.
//!
//! Not here: what is wrong with them, which whoever finds it says.

use std::fmt;
use std::rc::Rc;

use crate::connection::{CloseReason, ConnectionId, Phase};
use crate::driver::Driver;
use crate::http::RequestKind;
use crate::service::{Report, Service};

impl<S: Service> Driver<S> {
    /// Handles the time-out of a connection.
    pub(crate) fn expire(&self, id: ConnectionId) {
        let reason = self.shared.with(id, |connection| match &connection.phase {
            Phase::Head if connection.input.is_empty() => Ok(Some(CloseReason::KeepAliveExpired)),
            Phase::Head => {
                Err((RequestKind::Other, first_line(connection.input.unread()).to_vec()))
            }
            Phase::Collecting(collection) => {
                Err((collection.kind, first_line(&collection.head).to_vec()))
            }
            Phase::Discarding(_) | Phase::Lingering(_) => Ok(Some(CloseReason::LingerExpired)),
            Phase::Busy | Phase::Upgraded => Ok(None),
        });
        match reason {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(reason))) => self.shared.close(id, reason),
            // RFC 9110 section 15.5.9.
            Some(Err((kind, line))) => {
                self.refuse(id, 408, kind, &line, &"the request took too long to arrive");
            }
        }
    }

    /// Answers with the server's own error response to a request with this head, as far as it came, and
    /// tells the service.
    pub(crate) fn refuse(
        &self,
        id: ConnectionId,
        status: u16,
        kind: RequestKind,
        head: &[u8],
        reason: &dyn fmt::Display,
    ) {
        let peer = self.shared.with(id, |connection| Rc::clone(&connection.peer));
        if let Some(peer) = peer {
            let (output, bytes) = self.shared.refusal(status, kind);
            let line = first_line(head);
            self.service.report(&Report::Refused { peer: &peer, line, status, bytes, reason });
            self.shared.linger(id, &output);
        }
    }
}

/// The first line of what may be a head, without its end.
fn first_line(head: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let begin = head.iter().position(|byte| !is_end(byte)).unwrap_or(head.len());
    let line = &head[begin..];
    &line[..line.iter().position(is_end).unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_without_its_end_and_empty_lines_before_it() {
        for (head, line) in [
            ("", ""),
            ("\r\n\r\n", ""),
            ("GET / HT", "GET / HT"),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
            ("a\nb", "a"),
        ] {
            assert_eq!(first_line(head.as_bytes()), line.as_bytes(), "{head:?}");
        }
    }
}
