//! Pooled stackful coroutines with suspend, resume, timers and channels, for Linux.
//!
//! A *task* is plain blocking code on a stack of its own: it can stop anywhere, at any depth, and go
//! on later, while one thread runs all the others. There is no `async`, no `Pin`, no colour.
//!
//! # A tour
//!
//! A [`Scheduler`] runs tasks. A task waits by parking, and other tasks run meanwhile:
//!
//! ```
//! use meinheld_coro::{Config, Scheduler, sleep, spawn};
//! use std::time::Duration;
//!
//! let scheduler = Scheduler::new(Config::default());
//! let total = scheduler.block_on(|| {
//!     let slow = spawn(|| {
//!         sleep(Duration::from_millis(2)).unwrap();
//!         40
//!     });
//!     let fast = spawn(|| 2);
//!     slow.join().unwrap() + fast.join().unwrap()
//! })?;
//! assert_eq!(total, 42);
//! # Ok::<(), meinheld_coro::JoinError>(())
//! ```
//!
//! A [`Continuation`] is the heart of it: one task suspends, any other code resumes it with a value.
//!
//! ```
//! # use meinheld_coro::{Config, Scheduler, spawn};
//! use meinheld_coro::Continuation;
//!
//! # let scheduler = Scheduler::new(Config::default());
//! let answer = scheduler.block_on(|| {
//!     let here = Continuation::current().expect("this is a task");
//!     let there = here.clone();
//!     spawn(move || there.resume("hello"));
//!     here.suspend(None)
//! })?;
//! assert_eq!(answer.unwrap(), "hello");
//! # Ok::<(), meinheld_coro::JoinError>(())
//! ```
//!
//! It is `Send`: another thread can resume the task too, and if it comes too early the value is kept.
//!
//! ```
//! # use meinheld_coro::{Config, Scheduler, Continuation};
//! # let scheduler = Scheduler::new(Config::default());
//! let sum = scheduler.block_on(|| {
//!     let here = Continuation::current().expect("this is a task");
//!     let there = here.clone();
//!     let thread = std::thread::spawn(move || there.resume(6 * 7));
//!     let value = here.suspend(None);
//!     thread.join().unwrap().unwrap();
//!     value
//! })?;
//! assert_eq!(sum.unwrap(), 42);
//! # Ok::<(), meinheld_coro::JoinError>(())
//! ```
//!
//! A wait has an end: a time-out, an error [thrown](Continuation::throw) by another task, or a
//! [cancellation](JoinHandle::cancel). With [`Clock::Virtual`] a test of an hour takes no time:
//!
//! ```
//! # use meinheld_coro::{Scheduler, Continuation, Interrupt};
//! use meinheld_coro::{Clock, Config};
//! use std::time::Duration;
//!
//! let scheduler = Scheduler::new(Config { clock: Clock::Virtual, ..Config::default() });
//! let waited = scheduler.block_on(|| {
//!     let here = Continuation::<()>::current().expect("this is a task");
//!     here.suspend(Some(Duration::from_secs(3600)))
//! })?;
//! assert!(matches!(waited, Err(Interrupt::TimedOut)));
//! # Ok::<(), meinheld_coro::JoinError>(())
//! ```
//!
//! [`channel::bounded`] and [`channel::unbounded`] carry streams of values between tasks:
//!
//! ```
//! # use meinheld_coro::{Config, Scheduler, spawn};
//! use meinheld_coro::channel;
//!
//! # let scheduler = Scheduler::new(Config::default());
//! let received = scheduler.block_on(|| {
//!     let (sender, receiver) = channel::bounded(1);
//!     spawn(move || (1..=3).try_for_each(|number| sender.send(number)));
//!     std::iter::from_fn(|| receiver.receive().ok()).collect::<Vec<i32>>()
//! })?;
//! assert_eq!(received, [1, 2, 3]);
//! # Ok::<(), meinheld_coro::JoinError>(())
//! ```
//!
//! A panic stays in its task, and [`Scheduler::suspended`] lists who waits, where and since when.
//!
//! # Inside another event loop
//!
//! [`Scheduler::start`], [`advance`](Scheduler::advance), [`run_ready`](Scheduler::run_ready) and
//! [`next_deadline`](Scheduler::next_deadline) let a loop of your own turn the scheduler; a
//! [`ticket`] and [`park`] are what a wait for an event of that loop is made of.
//!
//! # What it costs
//!
//! Coroutines are pooled: beginning and ending a task costs a switch there and back, no more. A
//! stack is address space until it is touched; 100,000 of them are one memory mapping (Linux 6.13
//! and later; see [`StackError`] for older kernels).
//!
//! # What it refuses to know
//!
//! File descriptors, and whatever foreign frames stand on a stack. A suspended task is never
//! unwound from outside: it is asked to end, and runs to its own end.

mod api;
pub mod channel;
mod clock;
mod config;
mod continuation;
mod error;
#[allow(unsafe_code)] // the switch itself
mod fiber;
mod hub;
mod join;
mod local;
mod overflow;
mod pool;
mod remote;
mod scheduler;
#[allow(unsafe_code)] // the stack's memory is given back while the coroutine on it is idle
mod stack;
#[allow(unsafe_code)] // goes over to a fiber, and back
mod switch;
#[allow(unsafe_code)] // mmap, madvise, mprotect; the handler of a stack overflow
mod sys;
mod task;
mod timer;

pub use api::{
    current_task, describe_task, now, park, park_watched, sleep, spawn, spawn_at, spawn_detached,
    ticket, without_parking, yield_now,
};
pub use clock::Clock;
pub use config::Config;
pub use continuation::{Continuation, ResumeError, ResumeRefusal};
pub use error::{BoxError, Interrupt, JoinError, Refusal, RunError};
pub use join::JoinHandle;
pub use local::{StackSpan, TaskLocal, TaskLocalFactory};
pub use overflow::OverflowReports;
pub use scheduler::{CoroutineCounts, Scheduler, Shutdown};
pub use stack::StackError;
pub use task::{Suspended, TaskId, Ticket};
pub use timer::{TimerId, Timers};
