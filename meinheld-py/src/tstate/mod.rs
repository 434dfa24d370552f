//! The `CPython` thread state of a coroutine: what makes Python believe that each request has a
//! thread of its own.
//!
//! `CPython` knows one [`PyThreadState`](ffi::PyThreadState) for each OS thread, and all frames,
//! exceptions and contexts hang on it. A coroutine has its own copy of the fields that belong to
//! one line of execution, and both change places around each switch:
//!
//! ```text
//!   the thread's PyThreadState                 a coroutine's PythonState
//!  ┌──────────────────────────┐               ┌──────────────────────────┐
//!  │ frames of the hub        │   exchange    │ frames of the request    │
//!  │ exc_info, context, dict  │ ◄───────────► │ exc_info, context, dict  │
//!  │ data stack, depths, id   │               │ data stack, depths, id   │
//!  ├──────────────────────────┤               └────────────┬─────────────┘
//!  │ trace functions, signals │                            │ lies here
//!  │ GIL, async exceptions:   │                            ▼
//!  │ stay with the thread     │   coroutine's stack ─ C frames ◄─┤ fields, ─► Python frames ─
//!  └──────────────────────────┘                       span.frames   span.reserved
//! ```
//!
//! `enter` exchanges, the coroutine runs with its fields in the thread state, `leave` exchanges
//! again and both are as before. `state.c` draws the fields and exchanges them; its headers know
//! what differs from one `CPython` minor to the next.
//!
//! Not here: what a task is, when it is switched, what Python code it runs. Two promises are asked
//! of whoever uses this module, and every `SAFETY:` comment below leans on them:
//!
//! - **Attached**: every call happens with the GIL held.
//! - **One thread**: the states of one [`PythonStates`] are used on the thread that made it.

mod interpreter;
mod location;
mod refusal;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::NonNull;

use meinheld_coro::{StackSpan, TaskLocal, TaskLocalFactory};
use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;

pub(crate) use interpreter::check_interpreter;
pub(crate) use location::{Location, location};
pub(crate) use refusal::suspend_refusal;

use crate::raising::Saying;

/// How large a coroutine's stack has to be, in bytes, for deep recursion to end in a
/// `RecursionError` and not in the guard. `CPython` 3.11 counts C and Python calls together.
#[cfg(not(Py_3_12))]
pub(crate) const STACK_BYTES: usize = 4 << 20;
/// How large a coroutine's stack has to be, in bytes, for deep recursion to end in a
/// `RecursionError` and not in the guard.
#[cfg(Py_3_12)]
pub(crate) const STACK_BYTES: usize = 1 << 20;

/// What is reserved at the top of each stack: a coroutine's fields while it does not run (about 200
/// bytes), and the first data-stack chunk, with room for the frames of a usual request, so that `CPython`
/// maps no further one. It begins on the page of the first C frames, and leaves them most of that: a
/// request that waits in a small application has 2 to 3 KiB of those, and 150 to 500 bytes of Python's.
const RESERVED_BYTES: usize = 16 * 4096 + 704;

/// The C side's state of one coroutine, of which only its address is known here.
#[repr(C)]
struct Saved {
    _opaque: [u8; 0],
    _thread_bound: PhantomData<(*mut u8, PhantomPinned)>,
}

// All that `state.c` offers. Each of these needs the GIL, and a `PyThreadState` that is the
// current one.
unsafe extern "C" {
    fn meinheld_tstate_built_for() -> u32;
    #[cfg(Py_3_13)]
    fn meinheld_tstate_find_slots(
        event_loop: *mut ffi::PyObject,
        task: *mut ffi::PyObject,
    ) -> c_int;
    #[cfg(Py_3_14)]
    fn meinheld_tstate_c_stack_is_known() -> c_int;
    fn meinheld_tstate_new(
        thread: *mut ffi::PyThreadState,
        low: usize,
        high: usize,
        reserved: *mut c_void,
        size: usize,
    ) -> *mut Saved;
    fn meinheld_tstate_exchange(thread: *mut ffi::PyThreadState, saved: *mut Saved);
    fn meinheld_tstate_task_end(
        thread: *mut ffi::PyThreadState,
        saved: *mut Saved,
    ) -> *const c_char;
    fn meinheld_tstate_is_idle(saved: *const Saved) -> c_int;
    fn meinheld_tstate_free(saved: *mut Saved);
    fn meinheld_tstate_location(instruction: *mut c_int) -> *mut ffi::PyObject;
    fn meinheld_tstate_before_switch() -> c_int;
}

/// Makes the Python state of each coroutine that runs on one thread.
pub(crate) struct PythonStates {
    thread: *mut ffi::PyThreadState,
}

impl PythonStates {
    /// For the coroutines of the thread that calls this.
    pub(crate) fn new(_py: Python<'_>) -> Self {
        Self { thread: current_thread() }
    }

    /// Makes the state of a new coroutine; see [`TaskLocalFactory::create`].
    pub(crate) fn state(&self, stack: &StackSpan) -> PythonState {
        assert_eq!(self.thread, current_thread(), "a coroutine is made on the thread it runs on");
        assert!(
            stack.reserved.len() >= RESERVED_BYTES,
            "the scheduler reserves what it was asked for"
        );
        // SAFETY: attached and on the right thread, as just asserted. The reserved bytes are ours
        // for as long as the coroutine lives, which `StackSpan` promises.
        let saved = unsafe {
            meinheld_tstate_new(
                self.thread,
                stack.frames.start,
                stack.frames.end,
                stack.reserved.start as *mut c_void,
                stack.reserved.len(),
            )
        };
        let saved = NonNull::new(saved).expect("so much is reserved");
        PythonState { saved, thread: self.thread }
    }
}

impl TaskLocalFactory for PythonStates {
    fn reserved_bytes(&self) -> usize {
        RESERVED_BYTES
    }

    fn create(&self, stack: &StackSpan) -> Box<dyn TaskLocal> {
        Box::new(self.state(stack))
    }
}

/// The Python state of one pooled coroutine.
///
/// Its context is fresh for each task; its `threading.local` values live as long as it does, as
/// those of a pool's thread would.
pub(crate) struct PythonState {
    saved: NonNull<Saved>,
    thread: *mut ffi::PyThreadState,
}

impl PythonState {
    fn exchange(&self) {
        debug_assert_eq!(self.thread, current_thread());
        // SAFETY: the scheduler calls `enter` and `leave` in pairs, attached and on the thread
        // asserted above, so that the thread state holds the hub's fields or this coroutine's.
        unsafe { meinheld_tstate_exchange(self.thread, self.saved.as_ptr()) }
    }
}

impl TaskLocal for PythonState {
    fn enter(&self) {
        self.exchange();
    }

    fn leave(&self) {
        self.exchange();
    }

    fn task_end(&self) {
        debug_assert_eq!(self.thread, current_thread());
        // SAFETY: called on the coroutine, between `enter` and `leave`: attached, and the thread
        // state holds this coroutine's fields. The answer is null or a C string constant.
        let left = unsafe {
            let left = meinheld_tstate_task_end(self.thread, self.saved.as_ptr());
            (!left.is_null()).then(|| CStr::from_ptr(left))
        };
        if let Some(left) = left {
            report(left);
        }
    }
}

impl Drop for PythonState {
    /// Releases what an idle coroutine holds; destructors of Python objects may run.
    ///
    /// The state of a parked coroutine is leaked, because its frames still point into it, and so
    /// is any state that is dropped without the GIL or after the interpreter.
    fn drop(&mut self) {
        // SAFETY: these two may be asked at any time.
        let attached = unsafe { ffi::Py_IsInitialized() != 0 && ffi::PyGILState_Check() == 1 };
        // SAFETY: the state is ours, and out of the thread state, since a running coroutine's is
        // borrowed by the switch. It is freed attached, idle, and once.
        unsafe {
            if attached && meinheld_tstate_is_idle(self.saved.as_ptr()) != 0 {
                meinheld_tstate_free(self.saved.as_ptr());
            }
        }
    }
}

/// Tells, as Python tells what it cannot raise, that a task left its coroutine inconsistent.
#[cold]
fn report(left: &CStr) {
    // SAFETY: attached; the only caller is `task_end`.
    let py = unsafe { Python::assume_attached() };
    let text = format!("a request ended and left behind {}", left.to_string_lossy());
    PySystemError::saying(text).write_unraisable(py, None);
}

fn current_thread() -> *mut ffi::PyThreadState {
    // SAFETY: attached, as this module asks; the call aborts with a message if that is not so.
    unsafe { ffi::PyThreadState_Get() }
}
