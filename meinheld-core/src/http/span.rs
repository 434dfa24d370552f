//! A part of a buffer by position, for buffers that move between parsing and use.

/// A half-open range of byte offsets into a buffer that the holder of the span knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span from `start` up to, not including, `end`.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: offset(start), end: offset(end) }
    }

    /// Where `part` lies in `whole`, of which it must be a subslice.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Self::new(start, start + part.len())
    }

    /// The bytes that this span names in `whole`.
    pub(super) fn slice(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }

    /// The offset of the first byte.
    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    /// The offset behind the last byte.
    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    /// The same length, as far from `to` as this is from `from`.
    pub(super) fn moved(self, from: usize, to: usize) -> Self {
        let moved = |at: u32| at.wrapping_add(offset(to)).wrapping_sub(offset(from));
        Self { start: moved(self.start), end: moved(self.end) }
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a head is bounded by HEAD_BYTES_CEILING, far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn a_span_names_the_same_bytes_after_the_buffer_has_moved() {
        let buffer = b"GET /path HTTP/1.1".to_vec();
        let span = Span::of(&buffer[4..9], &buffer);
        let moved = buffer.clone();
        drop(buffer);
        assert_eq!(span.slice(&moved), b"/path");
        assert_eq!(span, Span::new(4, 9));
    }
}
