//! Places for what is remembered of connections, by their numbers (`ConnectionInfo::number`). Connections
//! share them: a place belongs to the one that came last. Not here: what is remembered.

/// How many connections are remembered.
pub(crate) const SLOTS: usize = 512;

/// The place of a connection.
pub(crate) fn slot_of(number: u64) -> usize {
    // The lower half is small, and used again.
    let low = u32::try_from(number & 0xffff_ffff).expect("half of 64 bits");
    low as usize % SLOTS
}
