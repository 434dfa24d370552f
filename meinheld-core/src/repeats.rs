//! The heads that connections have sent last, with what parsing them said: most clients send the same
//! lines again and again, and what is the same byte for byte need not be parsed twice.
//!
//! Each connection is compared with its own past only, so that no client can find out by the time that
//! an answer takes what another one has sent. A slot is shared by the connections whose numbers fall
//! on it, and belongs to the one that came last; a head is kept from a connection's second request on,
//! so that connections of one request pay nothing. Not here: parsing.

use crate::connection::ConnectionId;
use crate::http::{Changes, Followed, HeadError, HeadIndex, HeadLimits, Parsed};

/// How many connections are remembered.
const SLOTS: usize = 512;

/// A longer head is not kept, in bytes.
const HEAD_BYTES_MAX: usize = 2 * 1024;

/// The last heads of some connections, and the index of the head at hand.
#[derive(Debug)]
pub(crate) struct Repeats {
    slots: Vec<Slot>,
    /// The slot that has the index of the head at hand; `None` if that is `apart`.
    at_hand: Option<usize>,
    apart: HeadIndex,
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
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Repeats { slots, at_hand: None, apart: HeadIndex::new() }
    }

    /// The index of the head at hand: the last that was recalled, or that was parsed and complete.
    pub(crate) fn index(&self) -> &HeadIndex {
        self.at_hand.map_or(&self.apart, |slot| &self.slots[slot].index)
    }

    /// If `unread` begins with the last head of this connection, or with one that can be told by it: how
    /// it differs. It is the head at hand, and the last one, from then on.
    pub(crate) fn recall(
        &mut self,
        id: ConnectionId,
        unread: &[u8],
        limits: &HeadLimits,
    ) -> Option<Followed> {
        let number = id.slot() % SLOTS;
        let slot = &mut self.slots[number];
        if slot.owner != Some(id) || slot.head.is_empty() {
            return None;
        }
        if unread.starts_with(&slot.head) {
            self.at_hand = Some(number);
            return Some(Followed { head_bytes: slot.head.len(), changes: Changes::default() });
        }
        let short = &unread[..unread.len().min(HEAD_BYTES_MAX)];
        self.apart.copy_from(&slot.index);
        let followed = self.apart.follow(&slot.head, short, limits)?;
        self.keep(number, &unread[..followed.head_bytes]);
        Some(followed)
    }

    /// Parses, as [`HeadIndex::parse`] does, and keeps a complete head from a connection's second one on.
    pub(crate) fn parse(
        &mut self,
        id: ConnectionId,
        unread: &[u8],
        limits: &HeadLimits,
    ) -> Result<Parsed, HeadError> {
        let parsed = self.parse_apart(unread, limits);
        if let Ok(Parsed::Complete { head_bytes }) = parsed {
            let number = id.slot() % SLOTS;
            let slot = &mut self.slots[number];
            if slot.owner == Some(id) && head_bytes <= HEAD_BYTES_MAX {
                self.keep(number, &unread[..head_bytes]);
            } else {
                slot.owner = Some(id);
                slot.head.clear();
            }
        }
        parsed
    }

    /// Parses a head that is kept elsewhere.
    pub(crate) fn parse_apart(
        &mut self,
        head: &[u8],
        limits: &HeadLimits,
    ) -> Result<Parsed, HeadError> {
        self.at_hand = None;
        self.apart.parse(head, limits)
    }

    /// Keeps the head that `apart` is the index of.
    fn keep(&mut self, number: usize, head: &[u8]) {
        let slot = &mut self.slots[number];
        slot.head.clear();
        slot.head.extend_from_slice(head);
        std::mem::swap(&mut slot.index, &mut self.apart);
        self.at_hand = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Connections};
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

    fn parse(repeats: &mut Repeats, id: ConnectionId, head: &[u8]) {
        let complete = Parsed::Complete { head_bytes: head.len() };
        assert_eq!(repeats.parse(id, head, &HeadLimits::default()), Ok(complete));
        assert_eq!(repeats.index().view(head).header("host"), Some(&b"a"[..]));
    }

    /// What is recalled on a connection: how long the head is, and how it differs.
    fn recall(repeats: &mut Repeats, id: ConnectionId, unread: &[u8]) -> Option<(usize, Changes)> {
        let followed = repeats.recall(id, unread, &HeadLimits::default());
        followed.map(|followed| (followed.head_bytes, followed.changes))
    }

    #[test]
    fn the_same_lines_on_the_same_connection_are_known_from_the_third_time_on() {
        let [one, other] = ids(&mut Connections::default());
        let mut repeats = Repeats::new();
        let head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n";
        parse(&mut repeats, one, head);
        assert_eq!(recall(&mut repeats, one, head), None, "it may be the only one");
        parse(&mut repeats, one, head);
        let more = [&head[..], b"GET"].concat();
        let same = Some((head.len(), Changes::default()));
        assert_eq!(recall(&mut repeats, one, &more), same);
        let view = repeats.index().view(&more);
        assert_eq!((view.target().path(), view.header("x")), (&b"/a"[..], Some(&b"b"[..])));
        assert_eq!(recall(&mut repeats, other, head), None, "nobody else's past");
        assert_eq!(recall(&mut repeats, one, &head[..20]), None);
        assert_eq!(recall(&mut repeats, one, head), same, "what was incomplete comes");
        let next = b"GET /bc HTTP/1.1\r\nHost: a\r\nX: d\r\n\r\n";
        let (head_bytes, changes) = recall(&mut repeats, one, next).unwrap();
        assert_eq!((head_bytes, changes.target()), (next.len(), true));
        assert_eq!(changes.values().collect::<Vec<_>>(), [1]);
        let view = repeats.index().view(next);
        assert_eq!((view.target().path(), view.header("x")), (&b"/bc"[..], Some(&b"d"[..])));
        let same = Some((next.len(), Changes::default()));
        assert_eq!(recall(&mut repeats, one, next), same, "it is the last one now");
    }

    #[test]
    fn a_slot_belongs_to_the_last_who_came() {
        let all: [ConnectionId; SLOTS + 1] = ids(&mut Connections::default());
        let [first, .., last] = all;
        let mut repeats = Repeats::new();
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        parse(&mut repeats, first, head);
        parse(&mut repeats, first, head);
        parse(&mut repeats, last, head);
        assert_eq!(recall(&mut repeats, first, head), None);
        parse(&mut repeats, first, head);
        assert_eq!(recall(&mut repeats, first, head), None);
    }
}
