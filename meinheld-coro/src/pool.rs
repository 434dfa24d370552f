//! The pool of idle coroutines: the last one back is the first one out, and those at the bottom,
//! unused for a while, give their stack's memory back.
//!
//! Not here: running a coroutine.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::local::TaskLocalFactory;
use crate::stack::{Geometry, StackError, StackSource};
use crate::switch::Coroutine;

/// How long a coroutine has been idle when its stack is trimmed. A trim costs microseconds, and so
/// do the page faults after it, so that trimming at each use would be felt.
const TRIM_AFTER: Duration = Duration::from_secs(5);

/// Idle coroutines, and the source of new ones.
pub(crate) struct Pool {
    idle: Vec<Idle>,
    /// INVARIANT: `idle[..trimmed]` have been trimmed since they became idle.
    trimmed: usize,
    made: usize,
    stacks: StackSource,
    locals: Option<Rc<dyn TaskLocalFactory>>,
}

struct Idle {
    coroutine: Coroutine,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(geometry: Geometry, locals: Option<Rc<dyn TaskLocalFactory>>) -> Pool {
        let stacks = StackSource::new(geometry);
        Pool { idle: Vec::new(), trimmed: 0, made: 0, stacks, locals }
    }

    /// An idle coroutine, or a new one.
    pub(crate) fn take(&mut self) -> Result<Coroutine, StackError> {
        let Some(Idle { coroutine, .. }) = self.idle.pop() else { return self.make() };
        self.trimmed = self.trimmed.min(self.idle.len());
        Ok(coroutine)
    }

    fn make(&mut self) -> Result<Coroutine, StackError> {
        let stack = self.stacks.make()?;
        let local = self.locals.as_ref().map(|locals| locals.create(stack.span()));
        self.made += 1;
        Ok(Coroutine::new(stack, local))
    }

    /// Takes an idle coroutine back.
    pub(crate) fn put(&mut self, coroutine: Coroutine, now: Instant) {
        self.idle.push(Idle { coroutine, since: now });
    }

    /// Trims what has been idle for long.
    pub(crate) fn trim(&mut self, now: Instant) {
        while self.next_trim().is_some_and(|due| due <= now) {
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
