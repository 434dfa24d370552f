//! The client of a request: whether it is still there, and being told when it goes.

use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use meinheld_coro::Ticket;

use crate::address::Address;
use crate::connection::{Connection, ConnectionId};
use crate::shared::Shared;
use crate::sys;

/// The connection of a request. It may be kept for longer than the request; once that has ended it
/// counts as gone, whatever the connection does next.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Rc<Shared>,
    pub(crate) id: ConnectionId,
    /// The request, as the number of those that had ended before it.
    request: u32,
}

impl Client {
    /// The client of a request, before which so many have ended on its connection.
    pub(crate) fn new(shared: Rc<Shared>, id: ConnectionId, request: u32) -> Client {
        Client { shared, id, request }
    }

    /// Whether the client has neither closed its side of the connection nor lost it.
    pub fn is_connected(&self) -> bool {
        let open = self.with(|connection| (!connection.peer_closed).then(|| connection.fd()));
        open.flatten().is_some_and(|fd| !sys::peer_has_closed(fd))
    }

    /// The connection's descriptor, while the request lasts. It belongs to the server.
    pub fn fd(&self) -> Option<RawFd> {
        self.with(|connection| connection.fd())
    }

    /// Has `ticket` interrupted as soon as the client goes: at its FIN, its RST, the request's end,
    /// or now if it has gone already. It takes the place of one that was given before. To be taken
    /// back with [`unwatch`](Self::unwatch) after the wait.
    pub fn watch(&self, ticket: Ticket) {
        let found = self.with(|connection| {
            connection.departure = Some(ticket);
            (connection.peer_closed, connection.is_parked())
        });
        let (gone, parked) = found.unwrap_or((true, false));
        if gone || (!parked && self.shared.park_connection(self.id).is_err()) {
            ticket.interrupt();
        }
    }

    /// Ends what [`watch`](Self::watch) began.
    pub fn unwatch(&self) {
        self.with(|connection| connection.departure = None);
    }

    /// The client's address, while the request lasts.
    pub fn peer(&self) -> Option<Address> {
        self.with(|connection| connection.peer.address())
    }

    /// Calls `use_it` with the connection, if it is open and this request's still.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut Connection) -> R) -> Option<R> {
        let request = self.request;
        let used = self.shared.with(self.id, |connection| {
            (connection.requests_ended == request).then(|| use_it(connection))
        });
        used.flatten()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}
