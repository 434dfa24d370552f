//! `meinheld._meinheld`: the WSGI server as a CPython extension module.
//!
//! ```text
//!   Python     server, middleware (python/meinheld/*.py)
//!   here       server ─▶ wsgi ─▶ environ, input, start_response, file_wrapper, continuation, log
//!              tstate, gil, thread_bound: where this meets the interpreter's insides
//!   below      meinheld_core (the loop), meinheld_coro (the coroutines)
//! ```
//!
//! No system call is made here, and HTTP is known by its names only.

mod access_line;
mod access_log;
mod blocking;
mod call;
mod continuation;
pub mod environ;
mod errors;
mod failures;
#[allow(unsafe_code)] // how CPython calls its own methods
mod fastcall;
mod file_body;
mod file_wrapper;
mod fork;
#[allow(unsafe_code)] // the token of the loop's thread; giving the GIL up around its wait
mod gil;
mod head_line;
mod hooks;
mod inbox;
mod input;
mod kit;
mod known_heads;
mod lane;
mod log;
mod names;
mod raising;
#[allow(unsafe_code)] // whether a built-in function is weakly referenced
mod references;
mod rendezvous;
mod returned;
mod seconds;
mod server;
mod settings;
mod slots;
mod start_response;
mod tasks;
mod templates;
#[allow(unsafe_code)] // str objects made of bytes and text
mod text;
#[allow(unsafe_code)] // values that are reached on their own thread only
mod thread_bound;
mod timers;
mod trampoline;
#[allow(unsafe_code)] // the interpreter's thread state
mod tstate;
#[allow(unsafe_code)] // calls in which CPython may unwind the stack
mod unwinding;
mod websocket;
mod wsgi;

use pyo3::pymodule;

/// The native half of meinheld; use `meinheld.server` and `meinheld.middleware`.
#[pymodule(gil_used = true)]
mod _meinheld {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::continuation::{PyClient, PyContinuation, resume_client, suspend_client};
    #[pymodule_export]
    use crate::errors::{
        ClientDisconnected, ContinuationError, HandshakeRefused, Stopped, TaskKilled,
        WebSocketClosed, timeout,
    };
    #[pymodule_export]
    use crate::file_wrapper::FileWrapper;
    #[pymodule_export]
    use crate::fork::{note_child, note_fork};
    #[pymodule_export]
    use crate::hooks::{set_access_logger, set_error_logger, set_fastwatchdog, set_watchdog};
    #[pymodule_export]
    use crate::server::{addresses, break_off, interrupt, listen, run, stop, terminate};
    #[pymodule_export]
    use crate::settings::{
        get_accepts_max, get_backlog, get_body_timeout, get_client_body_buffer_size,
        get_head_timeout, get_keepalive, get_max_content_length, get_max_head_bytes,
        get_max_header_bytes, get_max_header_count, get_max_target_bytes, get_picoev_max_fd,
        get_send_timeout, get_stack_size, get_stop_idle_timeout, get_underscore_headers,
        set_accepts_max, set_backlog, set_body_timeout, set_client_body_buffer_size,
        set_head_timeout, set_keepalive, set_max_content_length, set_max_head_bytes,
        set_max_header_bytes, set_max_header_count, set_max_target_bytes, set_picoev_max_fd,
        set_send_timeout, set_stack_size, set_stop_idle_timeout, set_underscore_headers,
    };

    #[pymodule_export]
    use crate::tasks::{PyTask, spawn};
    #[pymodule_export]
    use crate::timers::{PyTimer, schedule_call, sleep};
    #[pymodule_export]
    use crate::trampoline::{cancel_wait, get_ident, in_coroutine, trampoline};

    #[pymodule_export]
    use crate::websocket::{PyHandshake, PyWebSocket, websocket_handshake};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::tstate::check_interpreter(module.py())?;
        crate::names::make(module.py())?;
        crate::blocking::remember(module.py())?;
        crate::continuation::add_methods(module.py())?;
        crate::start_response::add_methods(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
