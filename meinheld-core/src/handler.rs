//! The simplest application: a function of a request and its exchange.

use crate::address::Address;
use crate::exchange::Exchange;
use crate::http::{Head, Version};
use crate::service::{ConnectionInfo, Service};

/// A [`Service`] made of a function; see [`handler`].
pub struct Handler<F> {
    function: F,
}

/// Makes a service of a function that is called once for each request, in its coroutine.
pub fn handler<F: Fn(Request, &mut Exchange) + 'static>(function: F) -> Handler<F> {
    Handler { function }
}

/// A request's head, copied out of the connection's input.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The path of the target, percent-encoded as sent.
    pub path: Vec<u8>,
    /// The query of the target, without the question mark; empty if there is none.
    pub query: Vec<u8>,
    /// The version.
    pub version: Version,
    /// Names, as sent, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Where the client is.
    pub peer: Address,
}

impl Request {
    /// Every header: its name, as sent, and its value.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }
}

impl<F: Fn(Request, &mut Exchange) + 'static> Service for Handler<F> {
    type Request = Request;

    fn accept(&self, head: &Head<'_>, connection: &ConnectionInfo<'_>) -> Request {
        let headers = head.headers().map(|(name, value)| (name.to_owned(), value.to_vec()));
        Request {
            method: head.method().to_owned(),
            path: head.target().path().to_vec(),
            query: head.target().query().to_vec(),
            version: head.version(),
            headers: headers.collect(),
            peer: connection.peer.clone(),
        }
    }

    fn call(&self, request: Request, exchange: &mut Exchange) {
        (self.function)(request, exchange);
    }
}
