//! The head of a connection's next request, told by the one before it: clients send the same lines again
//! and again, and the ones that are the same to the byte need not be read again.
//!
//! ```text
//!   the head before   GET /a HTTP/1.1␍␊  Host: x␍␊  Cookie: 1␍␊   Accept: */*␍␊  ␍␊
//!   the bytes         GET /bc HTTP/1.1␍␊ Host: x␍␊  Cookie: 22␍␊  Accept: */*␍␊  ␍␊
//!                         └┬┘            └──┬───┘           └┬┘   └─────┬──────┘
//!                        read             moved            read       moved
//! ```
//!
//! A line that is not the same is read under the rules of the full parser, as far as it is the same line
//! with another target or another value. Anything else, and all that could be a fault, is left to the full
//! parser, which alone refuses. Not here: whose head came before (see repeats.rs).

use super::super::grammar::{is_field_value, trim_ows};
use super::super::span::Span;
use super::super::target::TargetLayout;
use super::facts::{Facts, Known};
use super::{HeadError, HeadIndex, HeadLimits};

/// How many fields are followed at the most: as many as [`Changes`] tells apart.
const FIELDS_MAX: usize = 64;

/// What is different in a head from the one before it on its connection. Method, version, and the number,
/// the names and the order of the fields are the same, to the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    target: bool,
    /// A bit for each position.
    values: u64,
}

/// A head that [`HeadIndex::follow`] has made an index of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its length in bytes, as in [`Parsed::Complete`](super::Parsed::Complete).
    pub head_bytes: usize,
    /// How it differs.
    pub changes: Changes,
}

impl Changes {
    /// Whether the head is the same, to the byte.
    pub fn is_none(&self) -> bool {
        *self == Changes::default()
    }

    /// Whether the target may be another one.
    pub fn target(&self) -> bool {
        self.target
    }

    /// The positions in [`Head::headers`](super::Head::headers) of the headers whose values may be other
    /// ones, in order.
    pub fn values(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.values;
        std::iter::from_fn(move || {
            let position = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(position as usize)
        })
    }
}

impl HeadIndex {
    /// From the index of the head `before`, makes the one of the head at the start of `bytes`, which may
    /// hold more behind it: the same as [`parse`](Self::parse) with the same `limits` would make. `before`
    /// is that head and nothing else.
    ///
    /// `None` if too much is different, or if the head is incomplete or faulty: then it is to be parsed,
    /// and this is the index of nothing.
    pub fn follow(&mut self, before: &[u8], bytes: &[u8], limits: &HeadLimits) -> Option<Followed> {
        let window = &bytes[..bytes.len().min(limits.head_bytes())];
        let followed = self.can_be_followed().then(|| self.try_follow(before, window, limits));
        if followed.flatten().is_none() {
            self.clear();
        }
        followed.flatten()
    }

    /// Whether each line behind the first begins with the name of a field.
    fn can_be_followed(&self) -> bool {
        !self.has_gaps && (1..=FIELDS_MAX).contains(&self.fields.len())
    }

    fn try_follow(&mut self, before: &[u8], bytes: &[u8], limits: &HeadLimits) -> Option<Followed> {
        let mut changes = Changes::default();
        let mut known_changed = false;
        let first = self.fields[0].name.start();
        // Up to here the head before has been compared, and is found again in `bytes` from `at` on.
        let (mut before_at, mut at, mut next) = (first, first, 0);
        let same = common_prefix(before, bytes);
        if same < first {
            at = self.follow_request_line(before, bytes, same, limits)?;
            changes.target = true;
        }
        loop {
            let same = common_prefix(&before[before_at..], &bytes[at..]);
            let differs = before_at + same;
            if differs == before.len() {
                self.move_fields(next..self.fields.len(), before_at, at);
                break;
            }
            // In the empty line at the end nothing may differ.
            let position =
                (next..self.fields.len()).find(|&i| differs < self.line_end(i, before))?;
            let line_end = self.line_end(position, before);
            self.move_fields(next..position + 1, before_at, at);
            at = self.follow_field(position, bytes, at + same, limits)?;
            changes.values |= 1 << position;
            known_changed |= Known::of(self.fields[position].name.slice(bytes)).is_some();
            (before_at, next) = (line_end, position + 1);
        }
        if known_changed {
            self.note_again(bytes).ok()?;
        }
        Some(Followed { head_bytes: at + before.len() - before_at, changes })
    }

    /// Where the line ends of a field that has not been moved yet.
    fn line_end(&self, position: usize, before: &[u8]) -> usize {
        let next = self.fields.get(position + 1);
        next.map_or(before.len() - b"\r\n".len(), |next| next.name.start())
    }

    fn move_fields(&mut self, fields: std::ops::Range<usize>, from: usize, to: usize) {
        for field in &mut self.fields[fields] {
            field.name = field.name.moved(from, to);
            field.value = field.value.moved(from, to);
        }
    }

    /// Reads a request line that is another one from `differs` on, RFC 9112 section 3; where it ends.
    fn follow_request_line(
        &mut self,
        before: &[u8],
        bytes: &[u8],
        differs: usize,
        limits: &HeadLimits,
    ) -> Option<usize> {
        let start = self.target.start();
        let behind_target = &before[self.target.end()..self.fields[0].name.start()];
        let line = &bytes[..line_end(bytes, differs)?];
        let target = line.get(start..)?.strip_suffix(behind_target)?;
        if differs < start
            || target.len() > limits.target_bytes_max
            || str::from_utf8(target).is_err()
        {
            return None;
        }
        self.target_layout = TargetLayout::parse(self.method.slice(bytes), target)?;
        self.target = Span::of(target, bytes);
        Some(line.len())
    }

    /// Reads a field line of `bytes` that is another one from `differs` on, RFC 9112 section 5; where it
    /// ends. The spans are those that its parts would have if the value were the same.
    fn follow_field(
        &mut self,
        position: usize,
        bytes: &[u8],
        differs: usize,
        limits: &HeadLimits,
    ) -> Option<usize> {
        let field = &mut self.fields[position];
        let value_start = field.name.end() + b":".len();
        if differs < value_start {
            return None;
        }
        let end = line_end(bytes, differs)?;
        let value = bytes[value_start..end].strip_suffix(b"\r\n")?;
        if !is_field_value(value) {
            return None;
        }
        let value = trim_ows(value);
        if field.name.end() - field.name.start() + value.len() > limits.header_bytes_max {
            return None;
        }
        field.value = Span::of(value, bytes);
        Some(end)
    }

    /// Gathers anew what the fields say about the message.
    fn note_again(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        self.facts = Facts::default();
        for (position, field) in self.fields.iter().enumerate() {
            if let Some(known) = Known::of(field.name.slice(bytes)) {
                self.facts.note(known, field.value.slice(bytes), position)?;
            }
        }
        self.framing = self.facts.conclude(self.version)?;
        Ok(())
    }
}

/// Where the line ends, behind its LF, of which the bytes before `from` hold none.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// How many bytes are the same at the start of both.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut same = equal_pieces::<32>(a, b);
    same += equal_pieces::<8>(&a[same..], &b[same..]);
    same + equal_pieces::<1>(&a[same..], &b[same..])
}

/// The same, rounded down to pieces of `N` bytes, which are compared at once.
fn equal_pieces<const N: usize>(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0);
    pairs.take_while(|(a, b)| a == b).count() * N
}
