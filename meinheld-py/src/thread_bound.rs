//! Values of the server's thread inside Python objects, which any thread may hold.
//!
//! Not here: what the values are.

use std::fmt;
use std::mem::ManuallyDrop;
use std::thread::{self, ThreadId};

/// A value that only the thread that made it can reach.
///
/// Python may drop the last reference to an object on any thread. The value is leaked then: it is
/// small, and to drop it there would touch what that thread must not.
pub(crate) struct ThreadBound<T> {
    value: ManuallyDrop<T>,
    owner: ThreadId,
}

// SAFETY: the value is reached and dropped on the owner's thread only, which `get` and `drop` check;
// on any other thread this is a number and some bytes.
unsafe impl<T> Send for ThreadBound<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    pub(crate) fn new(value: T) -> ThreadBound<T> {
        ThreadBound { value: ManuallyDrop::new(value), owner: thread::current().id() }
    }

    /// The value, on its own thread.
    pub(crate) fn get(&self) -> Option<&T> {
        (thread::current().id() == self.owner).then(|| &*self.value)
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        if thread::current().id() == self.owner {
            // SAFETY: the value is dropped once, here, on its own thread.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

impl<T> fmt::Debug for ThreadBound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadBound").field("owner", &self.owner).finish_non_exhaustive()
    }
}
