//! The bounds of a request head.

/// The most bytes of head that can be allowed.
const HEAD_BYTES_CEILING: usize = 1 << 20;
/// The length of the parser's array on the stack.
pub(super) const HEADER_COUNT_CEILING: usize = 128;

/// What becomes of a header whose name holds an underscore, such as `X_Forwarded_For`.
///
/// CGI variables cannot tell it from the name with dashes, so that a client could pass one off as
/// the header that only a trusted proxy sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoreHeaders {
    /// It is counted and then forgotten.
    #[default]
    Drop,
    /// It is kept like any other, but for those that would pass for Content-Length, Content-Type and
    /// Transfer-Encoding: they are dropped.
    Keep,
    /// Its request is refused.
    Refuse,
}

/// The bounds of a request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The longest head, in bytes, from its first byte to the empty line that ends it. Default 32
    /// KiB; at most 1 MiB is obeyed.
    pub head_bytes_max: usize,
    /// The longest request target, in bytes. Default 8 KiB.
    pub target_bytes_max: usize,
    /// The most field lines, dropped ones included. Default 100; at most 128 is obeyed.
    pub header_count_max: usize,
    /// The longest field, its name and its value counted together, in bytes. Default: as long as the
    /// head may be.
    pub header_bytes_max: usize,
    /// What to do with names that hold an underscore. Default: drop them.
    pub underscore_headers: UnderscoreHeaders,
}

impl HeadLimits {
    /// The most that is obeyed of [`head_bytes_max`](Self::head_bytes_max), in bytes.
    pub const HEAD_BYTES_CEILING: usize = HEAD_BYTES_CEILING;
    /// The most that is obeyed of [`header_count_max`](Self::header_count_max).
    pub const HEADER_COUNT_CEILING: usize = HEADER_COUNT_CEILING;

    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes_max.min(HEAD_BYTES_CEILING)
    }

    pub(super) fn header_count(&self) -> usize {
        self.header_count_max.min(HEADER_COUNT_CEILING)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            target_bytes_max: 8 * 1024,
            header_count_max: 100,
            header_bytes_max: HEAD_BYTES_CEILING,
            underscore_headers: UnderscoreHeaders::default(),
        }
    }
}
