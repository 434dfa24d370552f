//! The heads that connections have sent last, with what parsing them said: most clients send the same
//! lines again and again, and what is the same byte for byte need not be parsed twice.
//!
//! Each connection is compared with its own past only, so that no client can find out by the time that
//! an answer takes what another one has sent. A slot is shared by the connections whose numbers fall
//! on it, and belongs to the one that came last; a head is kept from a connection's second request on,
//! so that connections of one request pay nothing. Not here: parsing.

use crate::connection::ConnectionId;
use crate::http::{Changes, Followed, HeadIndex, HeadLimits};

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

    /// If `unread` begins with the last head of this connection, or with one that can be told by it: how
    /// it differs, with `index` made that of it. It is the last head from then on.
    pub(crate) fn recall(
        &mut self,
        id: ConnectionId,
        unread: &[u8],
        limits: &HeadLimits,
        index: &mut HeadIndex,
    ) -> Option<Followed> {
        let slot = &mut self.slots[id.slot() % SLOTS];
        if slot.owner != Some(id) || slot.head.is_empty() {
            return None;
        }
        index.copy_from(&slot.index);
        let head_bytes = slot.head.len();
        if unread.starts_with(&slot.head) {
            return Some(Followed { head_bytes, changes: Changes::default() });
        }
        let short = &unread[..unread.len().min(HEAD_BYTES_MAX)];
        let followed = index.follow(&slot.head, short, limits)?;
        slot.keep(&unread[..followed.head_bytes], index);
        Some(followed)
    }

    /// Keeps a head that was parsed.
    pub(crate) fn keep(&mut self, id: ConnectionId, head: &[u8], index: &HeadIndex) {
        let slot = &mut self.slots[id.slot() % SLOTS];
        if slot.owner == Some(id) {
            slot.keep(head, index);
        } else {
            slot.owner = Some(id);
            slot.head.clear();
        }
    }
}

impl Slot {
    fn keep(&mut self, head: &[u8], index: &HeadIndex) {
        self.head.clear();
        if head.len() <= HEAD_BYTES_MAX {
            self.head.extend_from_slice(head);
            self.index.copy_from(index);
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

    /// What is recalled on a connection: how long the head is, and how it differs.
    fn recall(
        repeats: &mut Repeats,
        id: ConnectionId,
        unread: &[u8],
        index: &mut HeadIndex,
    ) -> Option<(usize, Changes)> {
        let followed = repeats.recall(id, unread, &HeadLimits::default(), index);
        followed.map(|followed| (followed.head_bytes, followed.changes))
    }

    #[test]
    fn the_same_lines_on_the_same_connection_are_known_from_the_third_time_on() {
        let [one, other] = ids(&mut Connections::default());
        let (mut repeats, mut index) = (Repeats::new(), HeadIndex::new());
        let head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n";
        repeats.keep(one, head, &parsed(head));
        assert_eq!(recall(&mut repeats, one, head, &mut index), None, "it may be the only one");
        repeats.keep(one, head, &parsed(head));
        let more = [&head[..], b"GET"].concat();
        let same = Some((head.len(), Changes::default()));
        assert_eq!(recall(&mut repeats, one, &more, &mut index), same);
        let view = index.view(&more);
        assert_eq!((view.target().path(), view.header("x")), (&b"/a"[..], Some(&b"b"[..])));
        assert_eq!(recall(&mut repeats, other, head, &mut index), None, "nobody else's past");
        assert_eq!(recall(&mut repeats, one, &head[..20], &mut index), None);
        assert_eq!(recall(&mut repeats, one, head, &mut index), same, "what was incomplete comes");
        let next = b"GET /bc HTTP/1.1\r\nHost: a\r\nX: d\r\n\r\n";
        let (head_bytes, changes) = recall(&mut repeats, one, next, &mut index).unwrap();
        assert_eq!((head_bytes, changes.target()), (next.len(), true));
        assert_eq!(changes.values().collect::<Vec<_>>(), [1]);
        let view = index.view(next);
        assert_eq!((view.target().path(), view.header("x")), (&b"/bc"[..], Some(&b"d"[..])));
        let same = Some((next.len(), Changes::default()));
        assert_eq!(recall(&mut repeats, one, next, &mut index), same, "it is the last one now");
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
        assert_eq!(recall(&mut repeats, first, head, &mut index), None);
        repeats.keep(first, head, &parsed(head));
        assert_eq!(recall(&mut repeats, first, head, &mut index), None);
    }
}
