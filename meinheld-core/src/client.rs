//! The client of a request: whether it is still there, and being told when it goes.

use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use meinheld_coro::Ticket;

use crate::address::Address;
use crate::connection::{Connection, ConnectionId, Waiter};
use crate::shared::Shared;
use crate::sys;

/// The connection of a request. It may be kept for longer than the request; once the connection is
/// closed, or serves its next request, it counts as gone.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Rc<Shared>,
    pub(crate) id: ConnectionId,
}

impl Client {
    pub(crate) fn new(shared: Rc<Shared>, id: ConnectionId) -> Client {
        Client { shared, id }
    }

    /// Whether the client has neither closed its side of the connection nor lost it.
    pub fn is_connected(&self) -> bool {
        let open = self.with(|connection| (!connection.peer_closed).then(|| connection.fd()));
        open.flatten().is_some_and(|fd| !sys::peer_has_closed(fd))
    }

    /// The connection's descriptor, while it is open. It belongs to the server.
    pub fn fd(&self) -> Option<RawFd> {
        self.with(|connection| connection.fd())
    }

    /// Has `ticket` interrupted as soon as the client goes: at its FIN, its RST, or now if it has
    /// gone already. To be taken back with [`unwatch`](Self::unwatch) after the wait.
    pub fn watch(&self, ticket: Ticket) {
        let gone = self.with(|connection| connection.peer_closed).unwrap_or(true);
        if gone || self.shared.set_waiter(self.id, Waiter::Departure(ticket)).is_err() {
            ticket.interrupt();
        }
    }

    /// Ends what [`watch`](Self::watch) began.
    pub fn unwatch(&self) {
        self.with(|connection| connection.waiter = None);
    }

    /// The client's address, while the connection is open.
    pub fn peer(&self) -> Option<Rc<Address>> {
        self.with(|connection| Rc::clone(&connection.peer))
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Connection) -> R) -> Option<R> {
        self.shared.with(self.id, use_it)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}
