//! Received bytes that are not used up yet, and the pools of buffers that are received into and sent
//! from.
//!
//! A connection that waits owns no more memory than the bytes it has sent: the large buffers go
//! back to the pool. Not here: receiving or sending.

/// How much is received at once, in bytes. A head that is longer makes its buffer grow.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;

/// How large a buffer to send from is at first, in bytes: a head and a small body.
const OUTPUT_BYTES: usize = 2 * 1024;

/// How many unused buffers are kept.
const SPARE_BUFFERS_MAX: usize = 16;

/// Bytes with a cursor: what lies before it has been consumed.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// The bytes that have not been consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Whether it owns no buffer of the pool's.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes.capacity() < BUFFER_BYTES
    }

    /// Moves the cursor on by `count`, at most to the end.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// The vector to receive into, the consumed part removed, with room for more.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(BUFFER_BYTES);
        }
        &mut self.bytes
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Input {
        Input { bytes, start: 0 }
    }
}

/// Buffers of [`BUFFER_BYTES`], the last one back being the first one out.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// Exchanges a small input for one with a whole buffer behind it, holding the same bytes.
    pub(crate) fn grow(&mut self, input: Input) -> Input {
        if !input.is_small() {
            return input;
        }
        let mut bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        if !input.is_empty() {
            bytes.extend_from_slice(input.unread());
        }
        Input { bytes, start: 0 }
    }

    /// The opposite: takes the buffer back, unless it has grown, and leaves the bytes in a vector of their
    /// length.
    pub(crate) fn shrink(&mut self, mut input: Input) -> Input {
        if input.is_small() {
            return input;
        }
        let kept = if input.is_empty() { Vec::new() } else { input.unread().to_vec() };
        input.bytes.clear();
        let has_grown = input.bytes.capacity() >= 2 * BUFFER_BYTES;
        if self.spare.len() < SPARE_BUFFERS_MAX && !has_grown {
            self.spare.push(input.bytes);
        }
        Input { bytes: kept, start: 0 }
    }
}

/// Buffers that are sent from.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    spare: Vec<Vec<u8>>,
}

impl Outputs {
    /// An empty buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(OUTPUT_BYTES))
    }

    /// Takes a buffer back, to be used again unless it has grown large.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consuming_growing_and_shrinking_keep_the_bytes() {
        let mut buffers = Buffers::default();
        let mut input = buffers.grow(Input::default());
        input.tail().extend_from_slice(b"abcdef");
        input.consume(2);
        let input = buffers.shrink(input);
        assert_eq!(input.unread(), b"cdef");
        assert_eq!(buffers.spare.len(), 1);
        let mut input = buffers.grow(input);
        assert_eq!(buffers.spare.len(), 0, "the buffer is used again");
        assert_eq!(input.unread(), b"cdef");
        assert_eq!(input.tail().capacity(), BUFFER_BYTES);
        input.consume(10);
        assert!(input.is_empty());
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let mut buffers = Buffers::default();
        let mut input = buffers.grow(Input::default());
        input.tail().resize(BUFFER_BYTES, b'x');
        assert!(input.tail().capacity() > BUFFER_BYTES, "there is room for more");
        assert_eq!(buffers.shrink(input).unread().len(), BUFFER_BYTES);
        assert_eq!(buffers.spare.len(), 0);
    }
}
