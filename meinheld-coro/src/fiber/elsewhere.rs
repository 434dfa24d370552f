//! The switch by corosensei, for every processor but x86-64. `x86_64.rs` is the same, faster.

use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;

use corosensei::Yielder;

use super::Frames;

/// A stack on which a function runs, in turns with the one that enters it.
pub(crate) struct Fiber {
    /// Never dropped: what is on the stack goes with it.
    ///
    /// INVARIANT: used by `enter` only, of which one call is under way at the most.
    coroutine: UnsafeCell<ManuallyDrop<corosensei::Coroutine<(), (), (), Frames>>>,
    /// INVARIANT: null before the fiber is entered first; then what lies at the bottom of its stack.
    yielder: Rc<Cell<*const Yielder<(), ()>>>,
}

impl Fiber {
    /// A fiber that will call `entry(argument)`, with its frames in `frames`.
    pub(crate) fn new(
        frames: Frames,
        entry: extern "C" fn(*const ()) -> !,
        argument: *const (),
    ) -> Fiber {
        let yielder = Rc::new(Cell::new(ptr::null()));
        let place = Rc::clone(&yielder);
        let begin = move |yielder: &Yielder<(), ()>, ()| {
            place.set(yielder);
            drop(place);
            entry(argument)
        };
        let coroutine = corosensei::Coroutine::with_stack(frames, begin);
        Fiber { coroutine: UnsafeCell::new(ManuallyDrop::new(coroutine)), yielder }
    }

    /// Runs the fiber until it leaves.
    ///
    /// # Safety
    /// It is out, and on this thread if it ever was in.
    pub(crate) unsafe fn enter(&self) {
        // SAFETY: the fiber is out (the caller's promise), so that no other call of this is under way,
        // and nothing else looks at it (INVARIANT of the field).
        unsafe { (*self.coroutine.get()).resume(()) };
    }

    /// Goes back to whoever entered the fiber, until it is entered again.
    ///
    /// # Safety
    /// It is what runs.
    pub(crate) unsafe fn leave(&self) {
        // SAFETY: the fiber runs (the caller's promise), so that `begin` has set the yielder, which
        // lives for as long as the stack's frames do, since `entry` never returns.
        unsafe { (*self.yielder.get()).suspend(()) };
    }
}
