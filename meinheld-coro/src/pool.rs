//! The pool of idle coroutines: the last one back is the first one out, and those at the bottom,
//! unused for a while, give their stack's memory back.
//!
//! Not here: running a coroutine, or making one (that calls the host, which must not meet a borrow).

use std::time::{Duration, Instant};

use crate::stack::{Geometry, Stack, StackError, StackSource};
use crate::switch::Coroutine;

/// How long a coroutine has been idle when its stack is trimmed. A trim costs microseconds, and so
/// do the page faults after it, so that trimming at each use would be felt.
const TRIM_AFTER: Duration = Duration::from_secs(5);

/// How many stacks are trimmed in one turn at the most: after a burst the tasks that run now should
/// not wait until all of its stacks have been.
const TRIM_BATCH: usize = 64;

/// Idle coroutines, and the source of new ones.
pub(crate) struct Pool {
    idle: Vec<Idle>,
    /// INVARIANT: `idle[..trimmed]` have been trimmed since they became idle.
    trimmed: usize,
    made: usize,
    stacks: StackSource,
}

struct Idle {
    coroutine: Coroutine,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(geometry: Geometry) -> Pool {
        let stacks = StackSource::new(geometry);
        Pool { idle: Vec::new(), trimmed: 0, made: 0, stacks }
    }

    /// An idle coroutine, if there is one.
    pub(crate) fn take(&mut self) -> Option<Coroutine> {
        let Idle { coroutine, .. } = self.idle.pop()?;
        self.trimmed = self.trimmed.min(self.idle.len());
        Some(coroutine)
    }

    /// The stack of a new one.
    pub(crate) fn make_stack(&mut self) -> Result<Stack, StackError> {
        let stack = self.stacks.make()?;
        self.made += 1;
        Ok(stack)
    }

    /// Takes an idle coroutine back.
    pub(crate) fn put(&mut self, coroutine: Coroutine, now: Instant) {
        self.idle.push(Idle { coroutine, since: now });
    }

    /// Takes every idle coroutine out, for a scheduler that ends.
    pub(crate) fn drain(&mut self) -> Vec<Coroutine> {
        self.trimmed = 0;
        self.idle.drain(..).map(|idle| idle.coroutine).collect()
    }

    /// Trims a batch of what has been idle for long.
    pub(crate) fn trim(&mut self, now: Instant) {
        for _ in 0..TRIM_BATCH {
            if self.next_trim().is_none_or(|due| due > now) {
                return;
            }
            self.idle[self.trimmed].coroutine.trim();
            self.trimmed += 1;
        }
    }

    /// When the next stack is due to be trimmed.
    pub(crate) fn next_trim(&self) -> Option<Instant> {
        self.idle.get(self.trimmed).map(|idle| idle.since + TRIM_AFTER)
    }

    /// How many coroutines are idle.
    pub(crate) fn idle_count(&self) -> usize {
        self.idle.len()
    }

    /// How many coroutines have been made in all.
    pub(crate) fn made_count(&self) -> usize {
        self.made
    }
}
