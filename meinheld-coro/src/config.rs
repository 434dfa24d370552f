//! How a scheduler is made: sizes, limits, its clock and its host.

use std::rc::Rc;
use std::task::Waker;

use crate::clock::Clock;
use crate::local::TaskLocalFactory;

/// How a scheduler is made.
#[derive(Clone)]
pub struct Config {
    /// The size of each stack in bytes, guard included; default 256 KiB. Only what is touched
    /// costs memory.
    pub stack_bytes: usize,
    /// What to raise when a stack overflows, for the line that tells so (see
    /// [`OverflowReports`](crate::OverflowReports)); default `Config::stack_bytes`.
    pub stack_setting: &'static str,
    /// How many coroutines there may be at once; default 131,072. Tasks beyond wait for their turn.
    pub coroutines_max: usize,
    /// Which time to go by.
    pub clock: Clock,
    /// What is exchanged at each switch, if the host keeps state per thread of execution.
    pub locals: Option<Rc<dyn TaskLocalFactory>>,
    /// What wakes the hub when another thread has resumed a task; the default unparks the thread
    /// that made the scheduler, which is what [`Scheduler::run`](crate::Scheduler::run) waits for.
    pub waker: Option<Waker>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stack_bytes: 256 * 1024,
            stack_setting: "Config::stack_bytes",
            coroutines_max: 131_072,
            clock: Clock::default(),
            locals: None,
            waker: None,
        }
    }
}
