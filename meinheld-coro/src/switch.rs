//! The switch: pooled coroutines on fibers (see fiber.rs), and nothing else that knows those.
//!
//! ```text
//!        hub's stack                         coroutine's stack (see stack.rs)
//!   ┌───────────────────┐              ┌──────────────────────────────────────┐ high
//!   │ Scheduler::run    │              │ reserved for the host's TaskLocal    │
//!   │  Coroutine ─────────────────────▶│ Port: what is known of the coroutine │
//!   │  Coroutine::enter ─── enter ───▶ │ body: loop { take a job; run it }    │
//!   │                   │              │   job: user code                     │
//!   │                 ◀──── leave ──── │     Exit::leave   (parked)           │
//!   └───────────────────┘              └──────────────────────────────────────┘ low
//! ```
//!
//! Four verbs: the hub *loads* a job, *enters* the coroutine; the coroutine *leaves*; a coroutine
//! that is idle (between two jobs) is *retired* by entering it with no job, so that its body
//! returns like any function.
//!
//! A coroutine that is not idle has foreign frames on its stack — C code, an interpreter's — which
//! cannot be unwound. It is therefore never reset, unwound or freed: dropping one leaks its stack.
//!
//! What is known of a coroutine lies at the top of its own stack, on a page that is used in any case.
//! Not here: which coroutine runs when.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use crate::fiber::{Fiber, Frames};
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
    /// The body has returned: the coroutine is at its end.
    Retired,
}

/// A coroutine of the pool, seen from the hub.
pub(crate) struct Coroutine {
    /// INVARIANT: lies in the stack that it owns, until it is moved out by `drop`, or for ever.
    port: NonNull<Port>,
}

/// What the hub and the code on the coroutine share, above the frames of the coroutine.
pub(crate) struct Port {
    fiber: Fiber,
    /// What the task does, in the words of whoever started it. On the stack, where there is room that
    /// costs nothing.
    ///
    /// INVARIANT: null, or in the body's frame, which lives until the body returns. Live frames of an
    /// idle coroutine lie at most a few hundred bytes below it.
    label: Cell<*const RefCell<Label>>,
    job: Cell<Option<Job>>,
    left: Cell<Left>,
    /// What the body panicked with, which no job can make it do.
    panic: Cell<Option<Box<dyn Any + Send>>>,
    local: Option<Box<dyn TaskLocal>>,
    /// Stands below `local`, so that it is dropped later: the host's `TaskLocal` may still use the
    /// reserved bytes when it is dropped.
    stack: Stack,
}

/// To what the ends of frames are aligned, as both ends of a stack's are.
const STACK_ALIGNMENT: usize = 16;

/// The way out of the coroutine that runs.
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    /// INVARIANT: the port of a coroutine that has been entered, and has not come back for good. It
    /// lives as long: a coroutine that is dropped while it is parked leaks its stack.
    port: *const Port,
}

impl Coroutine {
    /// Makes an idle coroutine on `stack`.
    pub(crate) fn new(stack: Stack, local: Option<Box<dyn TaskLocal>>) -> Coroutine {
        let frames = stack.span().frames.clone();
        let at = frames.end - size_of::<Port>().next_multiple_of(STACK_ALIGNMENT);
        let port = NonNull::new(at as *mut Port).expect("a mapping is not at zero");
        // SAFETY: a mapped, writable, guarded range, which is used by one coroutine only (`StackSource`
        // cuts each slot once) and ends aligned, without what the port takes. It stays mapped while the
        // port lives, which has the stack, and until the coroutine is retired or for ever.
        let below = unsafe { Frames::new(frames.start..at) };
        let fiber = Fiber::new(below, run_jobs, port.as_ptr().cast());
        let (label, job) = (Cell::new(ptr::null()), Cell::new(None));
        let (left, panic) = (Cell::new(Left::Idle), Cell::new(None));
        // SAFETY: above all that the fiber uses, in the stack that is ours, and aligned as that ends.
        unsafe { port.write(Port { fiber, label, job, left, panic, local, stack }) };
        Coroutine { port }
    }

    fn port(&self) -> &Port {
        // SAFETY: it lives as long as this (INVARIANT of the field); what changes in it is in cells.
        unsafe { self.port.as_ref() }
    }

    /// Gives an idle coroutine its next job.
    pub(crate) fn load(&mut self, job: Job) {
        debug_assert_ne!(self.port().left.get(), Left::Parked, "a job is loaded when idle only");
        self.port().job.set(Some(job));
    }

    /// Runs the coroutine until it parks or its job ends.
    #[expect(clippy::inline_always, reason = "a return between two switches is foretold wrongly")]
    #[inline(always)]
    pub(crate) fn enter(&mut self) -> Left {
        let port = self.port();
        if let Some(local) = &port.local {
            local.enter();
        }
        // SAFETY: a coroutine that is not retired is out whenever it has come back, and stays on the
        // thread that made it, as it is not `Send`.
        unsafe { port.fiber.enter() };
        if let Some(local) = &port.local {
            local.leave();
        }
        let left = port.left.get();
        if left == Left::Retired {
            self.end();
        }
        left
    }

    /// Goes on with the panic that the body ended with.
    #[cold]
    fn end(&self) {
        if let Some(panic) = self.port().panic.take() {
            resume_unwind(panic);
        }
    }

    /// The way out, for the code that runs after [`enter`](Self::enter) and before it comes back.
    pub(crate) fn exit(&self) -> Exit {
        Exit { port: self.port() }
    }

    /// Gives the unused pages of an idle coroutine's stack back to the system.
    pub(crate) fn trim(&self) {
        debug_assert_ne!(self.port().left.get(), Left::Parked, "only an idle stack is trimmed");
        let in_use = self.port().label.get() as usize;
        if in_use != 0 {
            // SAFETY: the coroutine is idle, so its innermost frames are the body's `suspend` and
            // the switch, which lie well within a page below the label (INVARIANT of
            // `Port::label`).
            unsafe { self.port().stack.trim_below(in_use) };
        }
    }
}

impl Drop for Coroutine {
    /// Retires an idle coroutine; leaks one that is parked in the middle of a job.
    fn drop(&mut self) {
        let port = self.port();
        if port.left.get() == Left::Parked {
            return;
        }
        drop(port.job.take());
        if port.label().is_some() {
            // SAFETY: idle, and so out; on its thread, as in `enter`. With no job the body returns, so
            // that nothing is left on the stack when the port goes.
            unsafe { port.fiber.enter() };
        }
        // SAFETY: the port is not used after this, as the value is being dropped, and the coroutine has
        // left for good or never begun. It is moved out of the stack, which it owns.
        drop(unsafe { self.port.read() });
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
            // SAFETY: the caller runs on this coroutine.
            unsafe { port.fiber.leave() };
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
}

/// The function at the base of each coroutine, which leaves it for good when the body has returned.
extern "C" fn run_jobs(port: *const ()) -> ! {
    // SAFETY: `Coroutine::new` passes its port, which lives until the coroutine has left for good.
    let port = unsafe { &*port.cast::<Port>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(port))) {
        port.panic.set(Some(panic));
    }
    port.label.set(ptr::null());
    port.left.set(Left::Retired);
    // SAFETY: this runs on the coroutine.
    unsafe { port.fiber.leave() };
    unreachable!("a retired coroutine is not entered")
}

/// One job after the other, until none is loaded.
fn body(port: &Port) {
    let label = RefCell::new(Label::default());
    port.label.set(&raw const label);
    while let Some(job) = port.job.take() {
        label.borrow_mut().clear();
        let left = run(job);
        if let Some(local) = &port.local {
            local.task_end();
        }
        port.left.set(left);
        // SAFETY: this runs on the coroutine.
        unsafe { port.fiber.leave() };
    }
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
        fn enter(&self) {}
        fn leave(&self) {}
        fn task_end(&self) {}
    }

    impl Drop for Host {
        fn drop(&mut self) {
            // SAFETY: the address is in the reserved part, which is the host's for as long as the
            // coroutine lives; if it is unmapped already, this test has found a fault.
            unsafe { (self.0 as *mut u8).write(1) };
        }
    }

    /// Panics when a task ends.
    struct Careless;

    impl TaskLocal for Careless {
        fn enter(&self) {}
        fn leave(&self) {}
        fn task_end(&self) {
            resume_unwind(Box::new("careless"));
        }
    }

    /// The last of its arena, so that the mapping goes with it.
    fn stack() -> Stack {
        let geometry = Geometry { stack_bytes: 0, reserved_bytes: 16, stacks_max: 1 };
        StackSource::new(geometry).make().unwrap()
    }

    fn coroutine() -> Coroutine {
        let stack = stack();
        let host = Host(stack.span().reserved.start);
        Coroutine::new(stack, Some(Box::new(host)))
    }

    /// Each coroutine has one; a hundred thousand may wait.
    #[test]
    fn a_port_stays_small() {
        let but_for_fiber = size_of::<Port>() - size_of::<Fiber>();
        assert!(but_for_fiber <= 136, "{but_for_fiber}");
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
    fn a_panic_of_the_host_comes_to_the_hub_and_the_coroutine_is_at_its_end() {
        let mut coroutine = Coroutine::new(stack(), Some(Box::new(Careless)));
        coroutine.load(Job::once(|| ()));
        let panic = catch_unwind(AssertUnwindSafe(|| coroutine.enter())).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"careless"));
        drop(coroutine);
    }

    /// A value that the compiler puts where it may suppose that the stack is aligned.
    #[repr(align(16))]
    struct Aligned(u64);

    #[test]
    fn both_sides_find_again_what_they_had_and_the_stack_aligned() {
        let mut coroutine = coroutine();
        let exit = coroutine.exit();
        let sum = Rc::new(Cell::new(0));
        let total = Rc::clone(&sum);
        coroutine.load(Job::once(move || {
            for number in 1..=100 {
                let aligned = std::hint::black_box(Aligned(number));
                assert!((&raw const aligned).addr().is_multiple_of(16));
                exit.leave();
                total.set(total.get() + aligned.0);
            }
        }));
        let mut entered = 0;
        while coroutine.enter() == Left::Parked {
            entered += 1;
        }
        assert_eq!((entered, sum.get()), (100, 5050));
    }

    #[test]
    fn a_stack_walk_in_a_coroutine_ends_at_its_bottom() {
        let walked = Rc::new(RefCell::new(String::new()));
        let kept = Rc::clone(&walked);
        let mut coroutine = coroutine();
        coroutine.load(Job::once(move || {
            *kept.borrow_mut() = std::backtrace::Backtrace::force_capture().to_string();
        }));
        assert_eq!(coroutine.enter(), Left::Idle);
        assert!(walked.borrow().contains("run_jobs"), "{}", walked.borrow());
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
