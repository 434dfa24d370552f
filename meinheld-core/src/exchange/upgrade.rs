//! Answering 101: from then on the connection's bytes are another protocol's.
//!
//! Not here: what those bytes are, and sending them (see upgraded.rs).

use std::fmt;
use std::io;
use std::rc::Rc;

use super::{BeginError, Exchange, RequestBody, Response};
use crate::connection::Phase;
use crate::http::{ResponseBuilder, ResponseError};
use crate::upgraded::{Traffic, Upgraded};

/// Why a connection could not be upgraded.
#[derive(Debug)]
pub enum UpgradeError {
    /// The head of a response has been sent already.
    HeadSent,
    /// Not all of the request's body has been read, and it comes before the new protocol's bytes
    /// (RFC 9110 section 7.8).
    BodyUnread,
    /// A header is not valid, Upgrade is missing, or the request is one of HTTP/1.0.
    Invalid(ResponseError),
    /// The 101 could not be sent.
    Send(io::Error),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpgradeError::HeadSent => BeginError::HeadSent.fmt(f),
            UpgradeError::BodyUnread => f.write_str("the request's body has not been read"),
            UpgradeError::Invalid(error) => error.fmt(f),
            UpgradeError::Send(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UpgradeError {}

impl From<ResponseError> for UpgradeError {
    fn from(error: ResponseError) -> UpgradeError {
        UpgradeError::Invalid(error)
    }
}

impl From<UpgradeError> for io::Error {
    fn from(error: UpgradeError) -> io::Error {
        match error {
            UpgradeError::Send(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidInput, other),
        }
    }
}

impl Exchange {
    /// Answers with a 101 (Switching Protocols, RFC 9110 section 15.2.2) that has these headers, of
    /// which one must be Upgrade, and hands over the connection. May wait for the client.
    ///
    /// What the client has sent behind its request is the new protocol's. The connection ends with
    /// this request.
    ///
    /// # Errors
    /// See [`UpgradeError`]. After any but `Send` the request can still be answered in HTTP.
    pub fn upgrade<'h>(
        &mut self,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<Upgraded, UpgradeError> {
        if self.is_head_sent() {
            return Err(UpgradeError::HeadSent);
        }
        if let RequestBody::Streaming { .. } | RequestBody::Broken = self.state.body {
            return Err(UpgradeError::BodyUnread);
        }
        let mut builder = ResponseBuilder::begin_upgrade(b"Switching Protocols")?;
        for (name, value) in headers {
            builder.header(name, value)?;
        }
        let mut head = Vec::new();
        let fields = self.client.shared.fields.borrow();
        builder.finish(self.facts, None, &fields, &mut head)?;
        drop(fields);
        self.state.status = 101;
        self.send_raw(&head).map_err(UpgradeError::Send)?;
        // Not before the 101 is out: until then it is a request like any other.
        self.drop_arrived();
        self.client.with(|connection| connection.phase = Phase::Upgraded);
        self.state.body = RequestBody::Empty;
        let traffic = Rc::new(Traffic::default());
        self.state.response = Response::Upgraded(Rc::clone(&traffic));
        Ok(Upgraded::new(self.client.clone(), traffic))
    }
}
