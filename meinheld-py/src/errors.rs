//! The exceptions of `meinheld.server`, and the one place where errors of the crates below become
//! Python's.

use std::io;

use meinheld_core::ListenError;
use meinheld_coro::{Interrupt, Refusal};
use pyo3::create_exception;
use pyo3::exceptions::{
    PyBaseException, PyConnectionError, PyOSError, PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;

use crate::gil::attached;
use crate::raising::{Saying, os_error};
use crate::tasks::take_killing;

#[expect(non_camel_case_types, reason = "the name is Python's, as that of socket.timeout is")]
mod python_named {
    use pyo3::create_exception;
    use pyo3::exceptions::PyTimeoutError;

    create_exception!(
        meinheld.server,
        timeout,
        PyTimeoutError,
        "A suspended request was not resumed in time, or its client did not read or send in time."
    );
}
pub(crate) use python_named::timeout;

create_exception!(
    meinheld.server,
    ClientDisconnected,
    PyConnectionError,
    "The client of this request has closed its connection."
);
create_exception!(
    meinheld.websocket,
    WebSocketClosed,
    ClientDisconnected,
    "The WebSocket is closed, by the client, by the application, or since its request has ended."
);
create_exception!(
    meinheld.websocket,
    HandshakeRefused,
    PyValueError,
    "A request asks for a WebSocket in a way that must be refused: status and headers answer it."
);
create_exception!(
    meinheld.server,
    ContinuationError,
    PyOSError,
    "A continuation was used in a way that has no meaning; the message says which."
);
create_exception!(
    meinheld.server,
    Stopped,
    PyBaseException,
    "The server stops, and ends this request or task: clean up and let it pass."
);

create_exception!(
    meinheld.server,
    TaskKilled,
    PyBaseException,
    "This spawned task was killed: clean up and let it pass."
);

/// What ended a wait for something else than the client.
pub(crate) fn from_interrupt(interrupt: Interrupt) -> PyErr {
    match interrupt {
        Interrupt::TimedOut => timeout::saying("timed out: not resumed in time"),
        Interrupt::Interrupted => ClientDisconnected::saying("the client has disconnected"),
        Interrupt::Cancelled => {
            take_killing(attached()).unwrap_or_else(|| Stopped::saying("the server is stopping"))
        }
        Interrupt::Refused(refusal) => from_refusal(refusal),
        other => PyRuntimeError::saying(other.to_string()),
    }
}

fn from_refusal(refusal: Refusal) -> PyErr {
    ContinuationError::saying(match refusal {
        Refusal::NoTask => "cannot suspend here: this code does not run inside a request",
        Refusal::OtherTask => "cannot suspend here: this continuation belongs to another request",
        Refusal::Forbidden => {
            "cannot wait here: inside a callback from a C library or a child greenlet, or while the \
             request is being set up"
        }
        _ => "cannot suspend here",
    })
}

/// What ended an exchange with the client.
pub(crate) fn from_io(error: io::Error) -> PyErr {
    match error.kind() {
        io::ErrorKind::TimedOut => timeout::saying("timed out: the client did not read or send"),
        io::ErrorKind::UnexpectedEof => ClientDisconnected::saying(
            "the client disconnected before the request body was complete",
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => ClientDisconnected::saying("the client has disconnected"),
        io::ErrorKind::InvalidInput => PyValueError::saying(error.to_string()),
        _ => match error.downcast::<Interrupt>() {
            Ok(interrupt) => from_interrupt(interrupt),
            Err(error) => error.into(),
        },
    }
}

/// What the system said, with its number, so that `errno` and the subclass are right.
pub(crate) fn from_system(error: io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else { return error.into() };
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned();
    os_error(number, text)
}

/// Linux's numbers of what a wait for a descriptor may end with.
pub(crate) const EBADF: i32 = 9;
pub(crate) const ECANCELED: i32 = 125;

/// Linux's numbers of two causes that the server finds before the system does.
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

/// An `OSError` with the number of the cause, so that `errno` and the subclass are right. A host
/// that is not known has none.
pub(crate) fn from_listen(error: &ListenError) -> PyErr {
    let number = error.source.raw_os_error().or(match error.source.kind() {
        io::ErrorKind::AlreadyExists => Some(EEXIST),
        io::ErrorKind::InvalidInput => Some(EINVAL),
        _ => None,
    });
    match number {
        Some(number) => os_error(number, error.to_string()),
        None => PyOSError::saying(error.to_string()),
    }
}
