//! Requests that the server refuses itself, before any application has them.
//!
//! Not here: what is wrong with them, which whoever finds it says.

use std::fmt;

use crate::connection::{CloseReason, ConnectionId, Phase};
use crate::driver::Driver;
use crate::http::{HeadError, RequestKind};
use crate::service::{Report, Service};

impl<S: Service> Driver<S> {
    /// Handles the time-out of a connection.
    pub(crate) fn expire(&self, id: ConnectionId) {
        let reason = self.shared.with(id, |connection| match &connection.phase {
            Phase::Head { .. } if connection.input.is_empty() => {
                Ok(Some(CloseReason::KeepAliveExpired))
            }
            Phase::Head { .. } => {
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

    /// Refuses a request for its head.
    pub(crate) fn refuse_head(&self, id: ConnectionId, error: HeadError, head: &[u8]) {
        // Nobody could tell why: the client is in order, and what asks for this is a setting.
        if error == HeadError::HeaderUnderscore
            && let Some(name) = underscored(head)
            && self.underscores.is_due(self.shared.now.get())
            && let Some(peer) = self.shared.with(id, |connection| connection.peer.address())
        {
            self.service.report(&Report::RefusedUnderscore { peer: &peer, name });
        }
        self.refuse(id, error.status(), RequestKind::Other, head, &error);
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
        let peer = self.shared.with(id, |connection| connection.peer.address());
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

/// The first header name with an underscore in a head whose names are tokens.
fn underscored(head: &[u8]) -> Option<&str> {
    let fields = head.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let names = fields.skip(1).filter_map(|field| field.split(|byte| *byte == b':').next());
    str::from_utf8(names.into_iter().find(|name| name.contains(&b'_'))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_with_an_underscore_is_found() {
        for (head, name) in [
            ("GET /a_b HTTP/1.1\r\nA: b_c\r\nX_User: a_b\r\nY_Z: 1\r\n\r\nc_d: e", Some("X_User")),
            ("\r\n\r\nGET /a_b:c HTTP/1.1\r\nX_User: a\r\n\r\n", Some("X_User")),
            ("GET /a_b HTTP/1.1\r\nA: b_c\r\n\r\n", None),
        ] {
            assert_eq!(underscored(head.as_bytes()), name, "{head:?}");
        }
    }

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
