//! Values of the server's thread inside Python objects, which any thread may hold.
//!
//! Not here: what the values are.

use std::any::Any;
use std::fmt;
use std::mem::{ManuallyDrop, take};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

/// A value that only the thread that made it can reach.
///
/// Python may drop the last reference to an object on any thread. The value is an orphan then, and
/// waits for its owner to call [`drop_orphans`].
pub(crate) struct ThreadBound<T: 'static> {
    value: ManuallyDrop<T>,
    owner: ThreadId,
}

/// A value whose object another thread than its owner has dropped.
struct Orphan {
    value: Box<dyn Any>,
    owner: ThreadId,
}

// SAFETY: the value is reached and dropped on the owner's thread only, which `drop_orphans` checks.
unsafe impl Send for Orphan {}

static ORPHANS: Mutex<Vec<Orphan>> = Mutex::new(Vec::new());
/// Whether there are orphans that `drop_orphans` has not seen; to be asked often, without the lock.
static ORPHANED: AtomicBool = AtomicBool::new(false);

/// Drops the values of this thread whose objects other threads have dropped. Python code may run.
pub(crate) fn drop_orphans() {
    if !ORPHANED.swap(false, Ordering::Acquire) {
        return;
    }
    let here = thread::current().id();
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, others): (Vec<_>, Vec<_>) =
        take(&mut *orphans).into_iter().partition(|orphan| orphan.owner == here);
    *orphans = others;
    drop(orphans);
    for orphan in ours {
        drop(orphan.value);
    }
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
        // SAFETY: the value is taken once, here. On another thread than its own it is only moved.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if thread::current().id() != self.owner {
            let orphan = Orphan { value: Box::new(value), owner: self.owner };
            ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(orphan);
            ORPHANED.store(true, Ordering::Release);
        }
    }
}

impl<T> fmt::Debug for ThreadBound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadBound").field("owner", &self.owner).finish_non_exhaustive()
    }
}
