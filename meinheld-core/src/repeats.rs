//! The heads that connections have sent last, with what parsing them said: most clients send the same
//! bytes again and again, and what is the same byte for byte need not be parsed twice.
//!
//! Each connection is compared with its own past only, so that no client can find out by the time that
//! an answer takes what another one has sent. A slot is shared by the connections whose numbers fall
//! on it, and belongs to the one that came last; a head is kept from a connection's second request on,
//! so that connections of one request pay nothing. Not here: parsing.

use crate::connection::ConnectionId;
use crate::http::HeadIndex;

/// How many connections are remembered.
const SLOTS: usize = 512;

/// A longer head is not kept, in bytes.
const HEAD_BYTES_MAX: usize = 2 * 1024;

/// The last heads of some connections.
#[derive(Debug)]
pub(crate) struct Repeats {
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    owner: Option<ConnectionId>,
    /// INVARIANT: empty, or a whole head of the owner's, which `index` is of.
    head: Vec<u8>,
    index: HeadIndex,
}

impl Repeats {
    pub(crate) fn new() -> Repeats {
        Repeats { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// If `unread` begins with the last head of this connection: its length, with `index` made that
    /// of it.
    pub(crate) fn recall(
        &self,
        id: ConnectionId,
        unread: &[u8],
        index: &mut HeadIndex,
    ) -> Option<usize> {
        let slot = &self.slots[id.slot() % SLOTS];
        let known = slot.owner == Some(id) && !slot.head.is_empty();
        (known && unread.starts_with(&slot.head)).then(|| {
            index.copy_from(&slot.index);
            slot.head.len()
        })
    }

    /// Keeps a head that was parsed.
    pub(crate) fn keep(&mut self, id: ConnectionId, head: &[u8], index: &HeadIndex) {
        let slot = &mut self.slots[id.slot() % SLOTS];
        slot.head.clear();
        if slot.owner != Some(id) {
            slot.owner = Some(id);
        } else if head.len() <= HEAD_BYTES_MAX {
            slot.head.extend_from_slice(head);
            slot.index.copy_from(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Connections};
    use crate::http::{HeadLimits, Parsed};
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Instant;

    fn ids<const N: usize>(connections: &mut Connections) -> [ConnectionId; N] {
        std::array::from_fn(|_| {
            let address = || crate::Address::Unix(PathBuf::new());
            let socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let local = Arc::new(address());
            connections.insert(Connection::new(socket, address(), local, Instant::now()))
        })
    }

    fn parsed(head: &[u8]) -> HeadIndex {
        let mut index = HeadIndex::new();
        let complete = Parsed::Complete { head_bytes: head.len() };
        assert_eq!(index.parse(head, &HeadLimits::default()), Ok(complete));
        index
    }

    #[test]
    fn the_same_bytes_on_the_same_connection_are_known_from_the_third_time_on() {
        let [one, other] = ids(&mut Connections::default());
        let (mut repeats, mut index) = (Repeats::new(), HeadIndex::new());
        let head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n";
        repeats.keep(one, head, &parsed(head));
        assert_eq!(repeats.recall(one, head, &mut index), None, "it may be the only one");
        repeats.keep(one, head, &parsed(head));
        let more = [&head[..], b"GET"].concat();
        assert_eq!(repeats.recall(one, &more, &mut index), Some(head.len()));
        let view = index.view(&more);
        assert_eq!((view.target().path(), view.header("x")), (&b"/a"[..], Some(&b"b"[..])));
        assert_eq!(repeats.recall(other, head, &mut index), None, "nobody else's past counts");
        assert_eq!(repeats.recall(one, &head[..20], &mut index), None);
        let changed = b"GET /b HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n";
        assert_eq!(repeats.recall(one, changed, &mut index), None);
    }

    #[test]
    fn a_slot_belongs_to_the_last_who_came() {
        let all: [ConnectionId; SLOTS + 1] = ids(&mut Connections::default());
        let [first, .., last] = all;
        let (mut repeats, mut index) = (Repeats::new(), HeadIndex::new());
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        repeats.keep(first, head, &parsed(head));
        repeats.keep(first, head, &parsed(head));
        repeats.keep(last, head, &parsed(head));
        assert_eq!(repeats.recall(first, head, &mut index), None);
        repeats.keep(first, head, &parsed(head));
        assert_eq!(repeats.recall(first, head, &mut index), None);
    }
}
