//! The switch: pooled coroutines on corosensei, and nothing else that knows it.
//!
//! ```text
//!        hub's stack                         coroutine's stack (see stack.rs)
//!   ┌───────────────────┐              ┌──────────────────────────────────────┐ high
//!   │ Scheduler::run    │              │ reserved for the host's TaskLocal    │
//!   │  Coroutine::enter ─── resume ──▶ │ body: loop { take a job; run it }    │
//!   │                   │              │   job: user code                     │
//!   │                 ◀─── suspend ─── │     Port::leave   (parked)           │
//!   └───────────────────┘              └──────────────────────────────────────┘ low
//! ```
//!
//! Four verbs: the hub *loads* a job, *enters* the coroutine; the coroutine *leaves*; a coroutine
//! that is idle (between two jobs) is *retired* by entering it with no job, so that its body
//! returns like any function.
//!
//! A coroutine that is not idle has foreign frames on its stack — C code, an interpreter's — which
//! cannot be unwound. It is therefore never reset, unwound or freed: dropping one leaks its stack.
//! Not here: which coroutine runs when.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use corosensei::Yielder;
use corosensei::stack::StackPointer;

use crate::local::TaskLocal;
use crate::overflow::Label;
use crate::stack::Stack;

/// What a coroutine runs: one task's function.
pub(crate) enum Job {
    Once(Box<dyn FnOnce()>),
    /// A function for many tasks, so that nothing is allocated for each.
    Shared(Rc<dyn Fn()>),
}

impl Job {
    pub(crate) fn once(function: impl FnOnce() + 'static) -> Job {
        Job::Once(Box::new(function))
    }

    fn call(self) {
        match self {
            Job::Once(function) => function(),
            Job::Shared(function) => function(),
        }
    }
}

/// Told of by value what has become of the coroutine after [`Coroutine::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The job is parked in the middle.
    Parked,
    /// The job has ended; the coroutine is idle.
    Idle,
    /// The job has panicked; the coroutine is idle all the same.
    Panicked,
}

/// A coroutine of the pool, seen from the hub.
pub(crate) struct Coroutine {
    inner: ManuallyDrop<corosensei::Coroutine<(), (), (), SharedStack>>,
    port: Rc<Port>,
}

/// What the hub and the code on the coroutine share.
pub(crate) struct Port {
    /// INVARIANT: null, or the yielder at the base of this coroutine's stack, which lives until the
    /// body returns.
    yielder: Cell<*const Yielder<(), ()>>,
    /// What the task does, in the words of whoever started it. On the stack, where there is room that
    /// costs nothing.
    ///
    /// INVARIANT: null, or in the body's frame, which lives until the body returns. Live frames of an
    /// idle coroutine lie at most a few hundred bytes below it.
    label: Cell<*const RefCell<Label>>,
    job: Cell<Option<Job>>,
    left: Cell<Left>,
    local: RefCell<Option<Box<dyn TaskLocal>>>,
    /// Stands below `local`, so that it is dropped later: the host's `TaskLocal` may still use the
    /// reserved bytes when it is dropped.
    stack: Stack,
}

/// The way out of the coroutine that runs.
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    /// INVARIANT: the port of a coroutine that has been entered, and has not come back for good. It
    /// lives as long, since the coroutine's body owns a share of it, and nothing unwinds that.
    port: *const Port,
}

/// The stack as corosensei sees it.
struct SharedStack(Rc<Port>);

// SAFETY: `base` and `limit` bound a mapped, writable, guarded range that is used by one coroutine
// only and stays mapped while the `Rc` (or its leaked twin) lives: `StackSource` cuts each slot once.
unsafe impl corosensei::stack::Stack for SharedStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0.stack.span().frames.end).expect("a mapping is not at zero")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.stack.span().frames.start).expect("a mapping is not at zero")
    }
}

impl Coroutine {
    /// Makes an idle coroutine on `stack`.
    pub(crate) fn new(stack: Stack, local: Option<Box<dyn TaskLocal>>) -> Coroutine {
        let port = Rc::new(Port {
            yielder: Cell::new(ptr::null()),
            label: Cell::new(ptr::null()),
            job: Cell::new(None),
            left: Cell::new(Left::Idle),
            local: RefCell::new(local),
            stack,
        });
        let shared = Rc::clone(&port);
        let inner =
            corosensei::Coroutine::with_stack(SharedStack(Rc::clone(&port)), move |yielder, ()| {
                body(&shared, yielder);
            });
        Coroutine { inner: ManuallyDrop::new(inner), port }
    }

    /// Gives an idle coroutine its next job.
    pub(crate) fn load(&mut self, job: Job) {
        debug_assert_ne!(self.port.left.get(), Left::Parked, "a job is loaded when idle only");
        self.port.job.set(Some(job));
    }

    /// Runs the coroutine until it parks or its job ends.
    pub(crate) fn enter(&mut self) -> Left {
        self.with_local(|local| local.enter());
        self.inner.resume(());
        self.with_local(|local| local.leave());
        self.port.left.get()
    }

    /// The way out, for the code that runs after [`enter`](Self::enter) and before it comes back.
    pub(crate) fn exit(&self) -> Exit {
        Exit { port: Rc::as_ptr(&self.port) }
    }

    /// Gives the unused pages of an idle coroutine's stack back to the system.
    pub(crate) fn trim(&self) {
        debug_assert_ne!(self.port.left.get(), Left::Parked, "only an idle stack is trimmed");
        let in_use = self.port.label.get() as usize;
        if in_use != 0 {
            // SAFETY: the coroutine is idle, so its innermost frames are the body's `suspend` and
            // corosensei's switch, which lie well within a page below the label (INVARIANT of
            // `Port::label`).
            unsafe { self.port.stack.trim_below(in_use) };
        }
    }

    fn with_local(&self, call: impl FnOnce(&mut dyn TaskLocal)) {
        if let Some(local) = &mut *self.port.local.borrow_mut() {
            call(local.as_mut());
        }
    }
}

impl Drop for Coroutine {
    /// Retires an idle coroutine; leaks one that is parked in the middle of a job.
    fn drop(&mut self) {
        if self.port.left.get() == Left::Parked {
            std::mem::forget(Rc::clone(&self.port));
            return;
        }
        drop(self.port.job.take());
        if self.inner.started() {
            self.inner.resume(());
        }
        // SAFETY: `inner` is not used after this, as the value is being dropped. The body has
        // returned or never begun, so that dropping it unwinds nothing.
        unsafe { ManuallyDrop::drop(&mut self.inner) };
    }
}

impl Exit {
    /// Leaves the coroutine for the hub; returns when the hub enters it again.
    ///
    /// Must be called by the code that runs on this coroutine.
    #[inline]
    pub(crate) fn leave(self) {
        self.with_port(|port| {
            port.left.set(Left::Parked);
            port.switch_out();
        });
    }

    /// Calls `look` with the coroutine's own end of the switch.
    #[inline]
    pub(crate) fn with_port<R>(self, look: impl FnOnce(&Port) -> R) -> R {
        // SAFETY: the hub forgets an exit as soon as the coroutine has come back; until then, and
        // while it is parked in `look`, the port lives (INVARIANT of the field).
        look(unsafe { &*self.port })
    }
}

impl Port {
    /// Labels the task that runs on this coroutine.
    pub(crate) fn describe(&self, pieces: &[&[u8]]) {
        let Some(label) = self.label() else { return };
        let mut label = label.borrow_mut();
        label.clear();
        for piece in pieces {
            label.push(piece);
        }
    }

    /// Calls `look` with the label, empty if there is none.
    pub(crate) fn with_label(&self, look: impl FnOnce(&[u8])) {
        match self.label().and_then(|label| label.try_borrow().ok()) {
            Some(label) => look(label.bytes()),
            None => look(b""),
        }
    }

    fn label(&self) -> Option<&RefCell<Label>> {
        // SAFETY: null, or in the body's frame (INVARIANT of the field). The body returns when the
        // coroutine is retired only, which sets it to null.
        unsafe { self.label.get().as_ref() }
    }

    pub(crate) fn guard(&self) -> Range<usize> {
        self.stack.guard()
    }

    /// The whole length of the stack, with its guard and what is reserved.
    pub(crate) fn stack_bytes(&self) -> usize {
        self.stack.span().reserved.end - self.stack.guard().start
    }

    #[inline]
    fn switch_out(&self) {
        // SAFETY: the caller runs on this coroutine, so its body has set `yielder` and has not
        // returned (INVARIANT of the field), and corosensei's rule that a yielder is used on its
        // own coroutine only holds.
        let yielder = unsafe { &*self.yielder.get() };
        yielder.suspend(());
    }
}

/// The function at the base of each coroutine: one job after the other, until none is loaded.
fn body(port: &Port, yielder: &Yielder<(), ()>) {
    let label = RefCell::new(Label::default());
    port.yielder.set(yielder);
    port.label.set(&raw const label);
    while let Some(job) = port.job.take() {
        label.borrow_mut().clear();
        let left = run(job);
        if let Some(local) = &mut *port.local.borrow_mut() {
            local.task_end();
        }
        port.left.set(left);
        port.switch_out();
    }
    port.label.set(ptr::null());
}

/// Runs a job to its end, and drops the payload of its panic: that is code of the user's too, which
/// may park, or panic in its turn. What the second panic carries is leaked, to end there.
fn run(job: Job) -> Left {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| job.call())) else { return Left::Idle };
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Left::Panicked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Geometry, StackSource};

    /// Uses its reserved bytes until the end.
    struct Host(usize);

    impl TaskLocal for Host {
        fn enter(&mut self) {}
        fn leave(&mut self) {}
        fn task_end(&mut self) {}
    }

    impl Drop for Host {
        fn drop(&mut self) {
            // SAFETY: the address is in the reserved part, which is the host's for as long as the
            // coroutine lives; if it is unmapped already, this test has found a fault.
            unsafe { (self.0 as *mut u8).write(1) };
        }
    }

    /// The last of its arena, so that the mapping goes with it.
    fn coroutine() -> Coroutine {
        let geometry = Geometry { stack_bytes: 0, reserved_bytes: 16, stacks_max: 1 };
        let stack = StackSource::new(geometry).make().unwrap();
        let host = Host(stack.span().reserved.start);
        Coroutine::new(stack, Some(Box::new(host)))
    }

    /// Each coroutine has one; a hundred thousand may wait.
    #[test]
    fn a_port_stays_small() {
        assert!(size_of::<Port>() <= 144, "{}", size_of::<Port>());
    }

    #[test]
    fn the_reserved_bytes_outlive_the_hosts_state() {
        drop(coroutine());
        let mut used = coroutine();
        used.load(Job::once(|| ()));
        assert_eq!(used.enter(), Left::Idle);
        drop(used);
    }

    #[test]
    fn a_job_that_was_loaded_but_never_run_is_dropped() {
        let held = Rc::new(());
        let moved = Rc::clone(&held);
        let mut coroutine = coroutine();
        coroutine.load(Job::once(move || drop(moved)));
        drop(coroutine);
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
