//! Why a park ended early, a task gave no result, or a scheduler could not go on.

use std::any::Any;
use std::error::Error;
use std::fmt;

use crate::stack::StackError;
use crate::task::Wake;

/// Any error that can be thrown into a task.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a wait ended without what was waited for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Interrupt {
    /// The deadline has passed.
    TimedOut,
    /// The task is to end: clean up and return. It is told once for each call of `cancel`.
    Cancelled,
    /// Something has happened that makes the wait pointless; who woke the task knows what.
    Interrupted,
    /// Somebody passed this error to [`Continuation::throw`](crate::Continuation::throw).
    Thrown(BoxError),
    /// The task did not park at all.
    Refused(Refusal),
}

/// Why code may not park where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not run in a task.
    NoTask,
    /// It runs in another task than the one that the continuation belongs to.
    OtherTask,
    /// The continuation has been closed.
    Closed,
    /// It runs inside [`without_parking`](crate::without_parking).
    Forbidden,
    /// It runs in a destructor during a panic.
    Panicking,
}

impl Wake {
    /// What a park returns that ended so.
    pub(crate) fn into_result(self) -> Result<(), Interrupt> {
        match self {
            Wake::Resumed => Ok(()),
            Wake::TimedOut => Err(Interrupt::TimedOut),
            Wake::Cancelled => Err(Interrupt::Cancelled),
            Wake::Interrupted => Err(Interrupt::Interrupted),
        }
    }
}

impl From<Refusal> for Interrupt {
    fn from(refusal: Refusal) -> Interrupt {
        Interrupt::Refused(refusal)
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interrupt::TimedOut => f.write_str("the wait timed out"),
            Interrupt::Cancelled => f.write_str("the task was cancelled"),
            Interrupt::Interrupted => f.write_str("the wait was interrupted"),
            Interrupt::Thrown(error) => write!(f, "{error}"),
            Interrupt::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoTask => "not inside a task: only a task can wait",
            Refusal::OtherTask => "not the task that this continuation belongs to",
            Refusal::Closed => "the continuation has been closed",
            Refusal::Forbidden => "waiting is forbidden here",
            Refusal::Panicking => "waiting is not possible while a panic unwinds",
        })
    }
}

impl Error for Interrupt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Interrupt::Thrown(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl Error for Refusal {}

/// Why a task gave no result.
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// The task was cancelled before it began.
    Cancelled,
    /// The wait for it ended early; the task may still run.
    Interrupted(Interrupt),
    /// Its result was taken before.
    Taken,
    /// The scheduler could not go on.
    Run(RunError),
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(payload) => write!(f, "the task panicked: {}", text_of(payload)),
            JoinError::Cancelled => f.write_str("the task was cancelled before it began"),
            JoinError::Interrupted(interrupt) => write!(f, "waiting for the task: {interrupt}"),
            JoinError::Taken => f.write_str("the task's result has been taken before"),
            JoinError::Run(error) => error.fmt(f),
        }
    }
}

impl Error for JoinError {}

fn text_of(payload: &Box<dyn Any + Send>) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Why [`Scheduler::run`](crate::Scheduler::run) gave up.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// Every task is parked without a deadline, and no one holds a handle that could resume one.
    Stalled {
        /// How many tasks wait; [`Scheduler::suspended`](crate::Scheduler::suspended) tells where.
        suspended: usize,
    },
    /// Tasks wait for a coroutine, and none can be made.
    Stack(StackError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Stalled { suspended } => {
                write!(f, "stalled: {suspended} tasks are suspended and nothing can resume them")
            }
            RunError::Stack(error) => error.fmt(f),
        }
    }
}

impl Error for RunError {}
