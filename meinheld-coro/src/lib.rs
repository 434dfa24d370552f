//! Coroutines.
mod local;
pub use local::{StackSpan, TaskLocal, TaskLocalFactory};
