//! The task-local hook: what a host exchanges each time a coroutine is entered and left.
//!
//! A scheduler knows nothing of what its host keeps per thread of execution (an interpreter's
//! frame pointer, a logging context, a floating-point mode). The host supplies a
//! [`TaskLocalFactory`]; the scheduler asks it for one [`TaskLocal`] per pooled coroutine and
//! calls that at every switch. Not here: any knowledge of what is being exchanged.

use std::ops::Range;

/// The state that one pooled coroutine carries for the host.
///
/// It lives as long as the pooled coroutine, which runs many tasks one after the other. None of
/// these may panic: a switch that is half made cannot be undone. `enter` and `leave` are called
/// strictly in pairs, on the hub's stack:
///
/// ```text
///   hub            enter ─┐                   ┌─ leave           enter ─┐   ┌─ leave
///   coroutine             └─ task runs, parks ┘                         └ … ┘
/// ```
pub trait TaskLocal {
    /// Installs this coroutine's state; called on the hub's stack just before control goes to the
    /// coroutine.
    fn enter(&self);

    /// Takes this coroutine's state out again; called on the hub's stack just after control came
    /// back.
    fn leave(&self);

    /// Resets what belongs to one task only; called on the coroutine's stack, between
    /// [`enter`](Self::enter) and [`leave`](Self::leave), when a task has ended.
    fn task_end(&self);
}

/// Makes one [`TaskLocal`] for each pooled coroutine.
pub trait TaskLocalFactory {
    /// How many bytes at the top of every stack to set aside for the host, in bytes. The scheduler
    /// rounds this up to a multiple of 16.
    fn reserved_bytes(&self) -> usize {
        0
    }

    /// Makes the state of a new coroutine; called on the hub's stack.
    fn create(&self, stack: &StackSpan) -> Box<dyn TaskLocal>;
}

/// Where a coroutine's stack lies, told to [`TaskLocalFactory::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackSpan {
    /// The addresses that the coroutine's frames may use, lowest first; the guard lies below.
    pub frames: Range<usize>,
    /// The bytes set aside for the host, just above the frames. Zeroed when fresh, and valid for
    /// as long as the coroutine.
    pub reserved: Range<usize>,
}
