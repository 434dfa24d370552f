//! The handler of SIGSEGV: says which stack has overflowed, on a stack of its own, and hands over.
//!
//! ```text
//!   fault on a coroutine's stack ─▶ alternate stack: explain, write(2) one line
//!                                     └─ the action from before is back: the instruction faults
//!                                        again, and that action (faulthandler's, the default) ends it
//! ```
//!
//! Everything that the handler runs is async-signal-safe: it neither allocates nor locks. On threads
//! that run no scheduler it only hands over. Not here: what is said (see overflow.rs).

use std::io;
use std::marker::PhantomData;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Mapping, check};
use crate::overflow::explain;

/// Enough for this handler and for one before it that was written for a small stack.
const ALTERNATE_BYTES: usize = 64 * 1024;

/// The threads whose faults are explained, by their kernel ids; 0 is free. Further ones die unexplained.
static THREADS: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

/// INVARIANT: null, or an action that is never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());

/// Whether the handler is installed, and for how many values of [`FaultHandler`].
static INSTALLED: Mutex<(bool, usize)> = Mutex::new((false, 0));

/// Explains the faults of the thread that made it for as long as it lives.
pub(crate) struct FaultHandler {
    slot: Option<usize>,
    alternate: Option<Mapping>,
    _this_thread: PhantomData<*const ()>,
}

impl FaultHandler {
    pub(crate) fn install() -> io::Result<FaultHandler> {
        let alternate = alternate_stack()?;
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !installed.0 {
            // Before its memory goes, which only a whole value would see to.
            replace_action().inspect_err(|_| alternate.iter().for_each(leave_alternate))?;
            installed.0 = true;
        }
        installed.1 += 1;
        let this = thread_id();
        let slot = THREADS.iter().position(|slot| {
            slot.compare_exchange(0, this, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        Ok(FaultHandler { slot, alternate, _this_thread: PhantomData })
    }
}

impl Drop for FaultHandler {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            THREADS[slot].store(0, Ordering::Release);
        }
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        installed.1 -= 1;
        // A handler that came later may hand over to ours, which then stays.
        if installed.1 == 0 && action().is_some_and(|action| action.sa_sigaction == address()) {
            // SAFETY: a plain value of the system's own, set back as it was read.
            unsafe { libc::sigaction(libc::SIGSEGV, PREVIOUS.load(Ordering::Acquire), null_mut()) };
            installed.0 = false;
        }
        if let Some(alternate) = &self.alternate {
            leave_alternate(alternate);
        }
    }
}

fn address() -> libc::sighandler_t {
    on_fault as *const () as libc::sighandler_t
}

fn thread_id() -> libc::pid_t {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}

/// What is done on SIGSEGV now.
fn action() -> Option<libc::sigaction> {
    // SAFETY: an all-zero sigaction is a valid value, which the call fills.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGSEGV, null(), &raw mut now) == 0).then_some(now)
    }
}

fn replace_action() -> io::Result<()> {
    let previous = action().ok_or_else(io::Error::last_os_error)?;
    keep(previous);
    // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask. The handler has the
    // signature that SA_SIGINFO asks for.
    check(unsafe {
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = address();
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const ours, null_mut())
    })
}

/// Keeps the action that ours hands over to. One that is kept already is not kept a second time, so
/// that what is never freed does not grow with each install.
fn keep(previous: libc::sigaction) {
    // SAFETY: what was kept is never freed (INVARIANT of `PREVIOUS`).
    let kept = unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() };
    if !kept.is_some_and(|kept| is_same(kept, &previous)) {
        PREVIOUS.store(Box::into_raw(Box::new(previous)), Ordering::Release);
    }
}

fn is_same(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    // SAFETY: both are whole sets, and the number is a signal's.
    let blocks = |action: &libc::sigaction, number| unsafe {
        libc::sigismember(&raw const action.sa_mask, number) == 1
    };
    one.sa_sigaction == other.sa_sigaction
        && one.sa_flags == other.sa_flags
        && (1..=libc::SIGRTMAX()).all(|number| blocks(one, number) == blocks(other, number))
}

/// Gives this thread an alternate stack, unless it has one.
fn alternate_stack() -> io::Result<Option<Mapping>> {
    // SAFETY: an all-zero stack_t is a valid value, which the first call fills. The mapping of the
    // second outlives its use: `FaultHandler` takes it off the thread before it is dropped.
    unsafe {
        let mut now: libc::stack_t = std::mem::zeroed();
        check(libc::sigaltstack(null(), &raw mut now))?;
        if now.ss_flags & libc::SS_DISABLE == 0 {
            return Ok(None);
        }
        let mapping = Mapping::reserve(ALTERNATE_BYTES)?;
        now.ss_sp = mapping.base() as *mut libc::c_void;
        now.ss_size = ALTERNATE_BYTES;
        now.ss_flags = 0;
        check(libc::sigaltstack(&raw const now, null_mut()))?;
        Ok(Some(mapping))
    }
}

/// Takes ours off the thread, if nobody has put another one in its place.
fn leave_alternate(ours: &Mapping) {
    // SAFETY: as above; the type is `!Send`, so that this is the thread that it was put on.
    unsafe {
        let mut now: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(null(), &raw mut now) == 0 && now.ss_sp as usize == ours.base() {
            now.ss_flags = libc::SS_DISABLE;
            libc::sigaltstack(&raw const now, null_mut());
        }
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands over a valid siginfo_t, as SA_SIGINFO asks it to; write(2) is
    // async-signal-safe and reads live bytes. PREVIOUS is valid (its INVARIANT).
    unsafe {
        let errno = *libc::__errno_location();
        // Zero and less: it was sent, by kill(2) or raise(3), and tells no address.
        if (*info).si_code <= 0 {
            pass_on(signal, info, context);
        } else {
            let this = thread_id();
            if THREADS.iter().any(|thread| thread.load(Ordering::Acquire) == this)
                && let Some(line) = explain((*info).si_addr() as usize)
            {
                libc::write(2, line.bytes().as_ptr().cast(), line.bytes().len());
            }
            libc::sigaction(signal, PREVIOUS.load(Ordering::Acquire), null_mut());
        }
        *libc::__errno_location() = errno;
    }
}

/// Does with a signal that was sent what was done with it before.
///
/// # Safety
/// To be called by the handler, with what it was given.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: PREVIOUS is valid (its INVARIANT), and its function has the signature that its flags
    // tell. After the default action is back, the signal is pending until this handler returns.
    unsafe {
        let previous = &*PREVIOUS.load(Ordering::Acquire);
        match previous.sa_sigaction {
            libc::SIG_IGN => {}
            libc::SIG_DFL => {
                libc::sigaction(signal, previous, null_mut());
                libc::raise(signal);
            }
            function if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, WithInfo>(function)(signal, info, context);
            }
            function => {
                std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(function)(signal);
            }
        }
    }
}
