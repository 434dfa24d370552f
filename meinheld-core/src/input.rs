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

/// Bytes with a cursor: what lies before it has been consumed. One pointer, since most connections have
/// none.
#[derive(Debug, Default)]
pub(crate) struct Input(Option<Box<Buffer>>);

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// The bytes that have not been consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| &buffer.bytes[buffer.start..])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|buffer| buffer.start == buffer.bytes.len())
    }

    /// Whether it owns no buffer of the pool's.
    pub(crate) fn is_small(&self) -> bool {
        self.0.as_ref().is_none_or(|buffer| buffer.bytes.capacity() < BUFFER_BYTES)
    }

    /// Moves the cursor on by `count`, at most to the end.
    pub(crate) fn consume(&mut self, count: usize) {
        let Some(buffer) = &mut self.0 else { return };
        buffer.start = buffer.start.saturating_add(count).min(buffer.bytes.len());
        if buffer.start == buffer.bytes.len() {
            buffer.bytes.clear();
            buffer.start = 0;
        }
    }

    /// The vector to receive into, the consumed part removed, with room for more.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        let buffer = self.0.get_or_insert_default();
        if buffer.start > 0 {
            buffer.bytes.drain(..buffer.start);
            buffer.start = 0;
        }
        if buffer.bytes.len() == buffer.bytes.capacity() {
            buffer.bytes.reserve(BUFFER_BYTES);
        }
        &mut buffer.bytes
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Input {
        Input((!bytes.is_empty()).then(|| Box::new(Buffer { bytes, start: 0 })))
    }
}

/// Buffers of [`BUFFER_BYTES`], the last one back being the first one out.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// INVARIANT: each holds no bytes, and has a whole buffer.
    spare: Vec<Input>,
}

impl Buffers {
    /// Exchanges a small input for one with a whole buffer behind it, holding the same bytes.
    pub(crate) fn grow(&mut self, input: Input) -> Input {
        if !input.is_small() {
            return input;
        }
        let mut grown = self.spare.pop().unwrap_or_else(|| {
            let bytes = Vec::with_capacity(BUFFER_BYTES);
            Input(Some(Box::new(Buffer { bytes, start: 0 })))
        });
        if !input.is_empty() {
            grown.tail().extend_from_slice(input.unread());
        }
        grown
    }

    /// The opposite: takes the buffer back, unless it has grown, and leaves the bytes in a vector of their
    /// length.
    pub(crate) fn shrink(&mut self, mut input: Input) -> Input {
        if input.is_small() {
            return if input.is_empty() { Input::default() } else { input };
        }
        let kept = Input::from(input.unread().to_vec());
        input.consume(usize::MAX);
        let has_grown = input.tail().capacity() >= 2 * BUFFER_BYTES;
        if self.spare.len() < SPARE_BUFFERS_MAX && !has_grown {
            self.spare.push(input);
        }
        kept
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
        assert!(buffers.shrink(input).0.is_none(), "nothing is kept for no bytes");
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
