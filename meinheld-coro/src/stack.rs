//! Stack memory: cut from large lazily backed mappings, guarded, trimmed when idle.
//!
//! ```text
//!  one arena = one mapping of `arena_stacks` slots; a slot is `stack_bytes` long
//!  ┌───────────────────────────── slot ─────────────────────────────┐┌──── slot ── …
//!  │ guard │ ← frames grow this way                     │ reserved  ││ guard │ …
//!  └───────┴────────────────────────────────────────────┴───────────┘└───────┴─── …
//!  low     frames.start                        frames.end    reserved.end
//! ```
//!
//! - The guard makes a stack overflow a fault in this slot instead of a write into the neighbour.
//!   It is a page-table marker (Linux ≥ 6.13), so 100,000 stacks are one mapping of the process;
//!   elsewhere it is `mprotect`, which costs two mappings a stack and so is limited by
//!   `vm.max_map_count` to about 32,000 stacks.
//! - `reserved` belongs to the host's [`TaskLocal`](crate::TaskLocal).
//! - All stacks end at the same offset in a page. Spreading them over the lines of the cache has been
//!   measured, with up to 50,000 tasks woken in turn: it gains nothing that stands out of the noise.
//!
//! A stack is never given back to its arena: the coroutine on it is pooled instead. An arena goes
//! when the last of its stacks does. Not here: what runs on a stack.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use crate::local::StackSpan;
use crate::sys::{self, Mapping};

/// The pages of a guard: more than one, because C code need not touch each page of a large frame.
const GUARD_PAGES: usize = 4;

/// How many stacks an arena has at the most: 1 GiB of address space at 1 MiB a stack.
const ARENA_STACKS_MAX: usize = 1024;

/// How many it has at the least, when the system grants no more (a limited address space, say).
const ARENA_STACKS_MIN: usize = 4;

/// The smallest stack that is of any use, in bytes, the guard included.
const STACK_BYTES_MIN: usize = 64 * 1024;

/// No stack, and no reserved part, is larger: 1 TiB, so that no sum or product overflows.
const STACK_BYTES_MAX: usize = 1 << 40;

/// What a stack consists of, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// The length of a slot in bytes: guard, frames and reserved part.
    pub(crate) stack_bytes: usize,
    /// The bytes at the top that are the host's.
    pub(crate) reserved_bytes: usize,
    /// How many stacks may be made.
    pub(crate) stacks_max: usize,
}

/// Why no stack could be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum StackError {
    /// As many coroutines as [`Config::coroutines_max`](crate::Config) allows are in use.
    LimitReached {
        /// That limit.
        coroutines_max: usize,
    },
    /// The kernel has no cheap guards (it is older than 6.13, or `mlockall(2)` is in force), and
    /// the process has used up its mappings.
    MappingsExhausted {
        /// How many stacks there are.
        stacks: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The system granted no address space.
    NoAddressSpace {
        /// How many bytes were asked for, at the least.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackError::LimitReached { coroutines_max } => {
                write!(f, "all {coroutines_max} coroutines are in use: raise coroutines_max")
            }
            StackError::MappingsExhausted { stacks, source } => write!(
                f,
                "no guard page for stack {}: {source}; this kernel needs two memory mappings a \
                 stack: raise vm.max_map_count (sysctl) or use Linux 6.13 or later",
                stacks + 1
            ),
            StackError::NoAddressSpace { bytes, source } => write!(
                f,
                "no {bytes} bytes of address space for stacks: {source}; raise the limit \
                 (ulimit -v, the container's, or vm.overcommit_memory) or use smaller stacks"
            ),
        }
    }
}

impl std::error::Error for StackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StackError::LimitReached { .. } => None,
            StackError::MappingsExhausted { source, .. }
            | StackError::NoAddressSpace { source, .. } => Some(source),
        }
    }
}

/// Where stacks come from.
pub(crate) struct StackSource {
    geometry: Geometry,
    page_bytes: usize,
    arena: RefCell<Option<Arena>>,
    made: Cell<usize>,
}

/// The mapping that stacks are being cut from.
struct Arena {
    mapping: Rc<Mapping>,
    stacks: usize,
    used: usize,
}

impl StackSource {
    /// `geometry.stack_bytes` is rounded up to whole pages, and to 64 KiB at the least beside what
    /// is reserved.
    pub(crate) fn new(mut geometry: Geometry) -> StackSource {
        let page_bytes = sys::page_bytes();
        let reserved_bytes = geometry.reserved_bytes.min(STACK_BYTES_MAX).next_multiple_of(16);
        let bytes_min = STACK_BYTES_MIN + reserved_bytes;
        let stack_bytes = geometry.stack_bytes.min(STACK_BYTES_MAX).max(bytes_min);
        geometry.reserved_bytes = reserved_bytes;
        geometry.stack_bytes = stack_bytes.next_multiple_of(page_bytes);
        StackSource { geometry, page_bytes, arena: RefCell::new(None), made: Cell::new(0) }
    }

    /// Makes one more stack.
    pub(crate) fn make(&self) -> Result<Stack, StackError> {
        if self.made.get() >= self.geometry.stacks_max {
            return Err(StackError::LimitReached { coroutines_max: self.geometry.stacks_max });
        }
        let mut arena = self.arena.borrow_mut();
        if arena.as_ref().is_none_or(|arena| arena.used == arena.stacks) {
            *arena = Some(self.new_arena()?);
        }
        let arena = arena.as_mut().expect("made just above");
        let stack = self.cut(&arena.mapping, arena.used * self.geometry.stack_bytes)?;
        arena.used += 1;
        self.made.set(self.made.get() + 1);
        Ok(stack)
    }

    /// Reserves the largest arena that the system grants.
    fn new_arena(&self) -> Result<Arena, StackError> {
        let mut stacks = self.geometry.stacks_max.min(ARENA_STACKS_MAX);
        loop {
            let bytes = stacks * self.geometry.stack_bytes;
            match Mapping::reserve(bytes) {
                Ok(mapping) => return Ok(Arena { mapping: Rc::new(mapping), stacks, used: 0 }),
                Err(_) if stacks > ARENA_STACKS_MIN => stacks = (stacks / 4).max(ARENA_STACKS_MIN),
                Err(source) => return Err(StackError::NoAddressSpace { bytes, source }),
            }
        }
    }

    /// Guards and describes the slot at `offset`.
    fn cut(&self, mapping: &Rc<Mapping>, offset: usize) -> Result<Stack, StackError> {
        let guard_bytes = GUARD_PAGES * self.page_bytes;
        mapping
            .guard_in_place(offset, guard_bytes)
            .or_else(|_| mapping.guard_by_protection(offset, guard_bytes))
            .map_err(|source| StackError::MappingsExhausted { stacks: self.made.get(), source })?;
        let low = mapping.base() + offset;
        let top = low + self.geometry.stack_bytes;
        let frames_top = top - self.geometry.reserved_bytes;
        let span = StackSpan { frames: low + guard_bytes..frames_top, reserved: frames_top..top };
        Ok(Stack { mapping: Rc::clone(mapping), span, page_bytes: self.page_bytes })
    }
}

/// One stack; its memory stays mapped for as long as this value lives (or is leaked).
pub(crate) struct Stack {
    mapping: Rc<Mapping>,
    span: StackSpan,
    page_bytes: usize,
}

impl Stack {
    pub(crate) fn span(&self) -> &StackSpan {
        &self.span
    }

    /// The addresses of the guard below the frames.
    pub(crate) fn guard(&self) -> Range<usize> {
        self.span.frames.start - GUARD_PAGES * self.page_bytes..self.span.frames.start
    }

    /// Gives back the pages that lie wholly below `in_use`, but for one page of slack.
    ///
    /// # Safety
    /// No live frame of the coroutine on this stack may lie more than a page below `in_use`.
    pub(crate) unsafe fn trim_below(&self, in_use: usize) {
        let end = (in_use & !(self.page_bytes - 1)).saturating_sub(self.page_bytes);
        let start = self.span.frames.start;
        if end > start {
            // SAFETY: everything below `end` is more than a page below `in_use`, and so holds no
            // live frame (the caller).
            unsafe { self.mapping.discard(start - self.mapping.base(), end - start) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(stacks_max: usize) -> StackSource {
        StackSource::new(Geometry { stack_bytes: 100_000, reserved_bytes: 1000, stacks_max })
    }

    #[test]
    fn stacks_do_not_overlap_and_keep_the_reserved_part_on_top() {
        let source = source(3);
        let mut spans: Vec<StackSpan> =
            (0..3).map(|_| source.make().unwrap().span().clone()).collect();
        spans.sort_by_key(|span| span.frames.start);
        for span in &spans {
            assert_eq!(span.frames.end, span.reserved.start);
            assert_eq!(span.reserved.len(), 1008);
            assert!(span.frames.len() >= STACK_BYTES_MIN - GUARD_PAGES * 4096);
        }
    }

    #[test]
    fn the_limit_is_an_error_that_names_the_setting() {
        let source = source(1);
        let _first = source.make().unwrap();
        let message = source.make().err().unwrap().to_string();
        assert_eq!(message, "all 1 coroutines are in use: raise coroutines_max");
    }

    #[test]
    fn a_tiny_size_is_raised_to_a_usable_one() {
        let source =
            StackSource::new(Geometry { stack_bytes: 1, reserved_bytes: 0, stacks_max: 1 });
        assert!(source.make().unwrap().span().frames.len() >= 32 * 1024);
    }

    #[test]
    fn trimming_zeroes_what_lies_below_and_keeps_the_rest() {
        let stack = source(1).make().unwrap();
        let (low, high) = (stack.span().frames.start, stack.span().frames.end - 8);
        // SAFETY: both addresses are in this test's own stack, on which nothing runs.
        unsafe {
            (low as *mut u8).write(1);
            (high as *mut u8).write(2);
            stack.trim_below(high);
            assert_eq!(((low as *mut u8).read(), (high as *mut u8).read()), (0, 2));
        }
    }
}
