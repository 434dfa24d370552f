//! Values of the server's thread inside Python objects, which any thread may hold.
//!
//! Not here: what the values are.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::mem::{ManuallyDrop, take};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Names a thread as no other one is or will be. The standard library's own name for it costs two
/// atomic operations each time.
type ThreadNumber = u64;

fn thread_number() -> ThreadNumber {
    thread_local! {
        static NUMBER: Cell<ThreadNumber> = const { Cell::new(0) };
    }
    static LAST: AtomicU64 = AtomicU64::new(0);

    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        number.get()
    })
}

/// A value that only the thread that made it can reach.
///
/// Python may drop the last reference to an object on any thread. The value is an orphan then, and
/// waits for its owner to call [`drop_orphans`].
pub(crate) struct ThreadBound<T: 'static> {
    value: ManuallyDrop<T>,
    owner: ThreadNumber,
}

/// A value whose object another thread than its owner has dropped.
struct Orphan {
    value: Box<dyn Any>,
    owner: ThreadNumber,
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
    let here = thread_number();
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
        ThreadBound { value: ManuallyDrop::new(value), owner: thread_number() }
    }

    /// The value, on its own thread.
    pub(crate) fn get(&self) -> Option<&T> {
        (thread_number() == self.owner).then(|| &*self.value)
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken once, here. On another thread than its own it is only moved.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if thread_number() != self.owner {
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
