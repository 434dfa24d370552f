//! Fibers: a second stack for a thread, and the way there and back. What such a stack must be is said
//! by corosensei's [`Stack`]. On x86-64 the switch is our own (`x86_64.rs`); on other processors, and with
//! `RUSTFLAGS='--cfg meinheld_portable'` everywhere, it is corosensei's (`elsewhere.rs`).
//!
//! Not here: what runs on a fiber.

#[cfg(any(not(target_arch = "x86_64"), meinheld_portable))]
mod elsewhere;
#[cfg(all(target_arch = "x86_64", not(meinheld_portable)))]
mod x86_64;

use std::ops::Range;

use corosensei::stack::{Stack, StackPointer};

#[cfg(any(not(target_arch = "x86_64"), meinheld_portable))]
pub(crate) use elsewhere::Fiber;
#[cfg(all(target_arch = "x86_64", not(meinheld_portable)))]
pub(crate) use x86_64::Fiber;

/// Where the frames of one fiber lie.
pub(crate) struct Frames {
    /// INVARIANT: mapped, writable, nobody else's, and with an end that is a multiple of 16.
    range: Range<usize>,
}

impl Frames {
    /// The frames in `range`.
    ///
    /// # Safety
    /// The range is mapped, writable and nobody else's for as long as a fiber with it is entered; its
    /// end is a multiple of 16.
    pub(crate) unsafe fn new(range: Range<usize>) -> Frames {
        debug_assert!(range.end.is_multiple_of(16), "a stack begins aligned");
        Frames { range }
    }
}

// SAFETY: INVARIANT of the field, which the caller of `Frames::new` keeps; the guard below is that of
// stack.rs.
unsafe impl Stack for Frames {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.range.end).expect("a mapping is not at zero")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.range.start).expect("a mapping is not at zero")
    }
}
