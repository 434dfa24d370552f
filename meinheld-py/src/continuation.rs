//! `environ["meinheld.continuation"]` and `environ["meinheld.client"]`: a request suspends, and any
//! other code resumes it.
//!
//! Here are Python's calls and the watch on the client; what waits and what is handed over is in
//! rendezvous.rs. `suspend` and `resume` are called as `CPython` calls its own methods (fastcall.rs).

use std::ffi::CStr;
use std::time::Duration;

use meinheld_core::Client;
use meinheld_coro::{Interrupt, Refusal, Ticket, current_task, now, park_watched};
use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyTuple, PyType};

use crate::call::{keywords, positional};
use crate::errors::{ContinuationError, from_interrupt};
use crate::fastcall::{Args, FastMethod, add_method};
use crate::fork::is_child;
use crate::inbox::on_loop;
use crate::lane::{Lane, SharedLane, lane_of};
use crate::raising::Saying;
use crate::rendezvous::{Delivery, Found, Parcel, Refused, Rendezvous};
use crate::seconds::seconds_of;
use crate::text::{Number, Text};
use crate::thread_bound::ThreadBound;
use crate::tstate::{location, suspend_refusal};

/// Lets a request wait: `suspend` in the request, `resume` or `throw` from anywhere else.
#[pyclass(frozen, module = "meinheld.server", name = "Continuation")]
pub(crate) struct PyContinuation {
    rendezvous: Rendezvous,
    lane: SharedLane,
}

/// Adds the methods that are no ordinary ones of `PyO3`'s.
pub(crate) fn add_methods(py: Python<'_>) -> PyResult<()> {
    add_method::<PyContinuation, Suspend>(py)?;
    add_method::<PyContinuation, Resume>(py)
}

/// `Continuation.suspend`
struct Suspend;

impl FastMethod<PyContinuation> for Suspend {
    const NAME: &CStr = c"suspend";
    const DOC: &CStr = c"suspend($self, timeout=None)\n--\n\n\
        Parks this request until `resume` or `throw`, for `timeout` seconds at the most; 0 or None\n\
        waits without limit. Returns what `resume` passed.\n\n\
        Raises `timeout`, `ClientDisconnected` as soon as the client is gone, what `throw` passed,\n\
        and `ContinuationError` on misuse.";

    fn call(it: Borrowed<'_, '_, PyContinuation>, args: &Args<'_, '_>) -> PyResult<Py<PyAny>> {
        let timeout = args.at_most_one("suspend", "timeout")?;
        let timeout = timeout.map(|timeout| duration_of(&timeout)).transpose()?.flatten();
        it.get().suspend(it.py(), timeout)
    }
}

/// `Continuation.resume`
struct Resume;

impl FastMethod<PyContinuation> for Resume {
    const NAME: &CStr = c"resume";
    const DOC: &CStr = c"resume($self, /, *args, **kwargs)\n--\n\n\
        Makes the suspended request ready, to return these arguments from its `suspend`; never\n\
        blocks or switches.\n\n\
        From another thread it may come before the suspend, which then returns at once. Raises\n\
        `ContinuationError` if the request is not suspended, or has been resumed before.";

    fn call(it: Borrowed<'_, '_, PyContinuation>, args: &Args<'_, '_>) -> PyResult<Py<PyAny>> {
        let py = it.py();
        let value = if args.is_nameless() && args.positional() == 1 {
            args.item(0).to_owned().unbind()
        } else {
            value_of(py, &args.tuple()?, Some(&args.dict()?))?
        };
        it.get().deliver(py, Delivery::Value(value))?;
        Ok(py.None())
    }
}

#[pymethods]
impl PyContinuation {
    /// The same as `resume`, raising `exc` (an instance or a class) in the suspended request.
    fn throw(&self, py: Python<'_>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        self.deliver(py, Delivery::Exception(exception_of(exc, "throw")?))
    }

    /// Whether the request waits in `suspend` now.
    #[getter]
    fn suspended(&self, py: Python<'_>) -> bool {
        self.rendezvous.is_suspended(py)
    }

    /// Whether the request's client is still there.
    #[getter]
    fn connected(&self) -> bool {
        self.client().is_some_and(|client| client.is_connected())
    }

    fn __repr__(&self, py: Python<'_>) -> Text<'_> {
        let state = if self.suspended(py) { "suspended" } else { "not suspended" };
        Text(format!("<meinheld.Continuation of {}, {state}>", self.rendezvous.task(py)).into())
    }
}

impl PyContinuation {
    /// A continuation of the running request, whose exchange is in this lane.
    ///
    /// # Errors
    /// `ContinuationError` outside of a request.
    pub(crate) fn current(lane: Lane) -> PyResult<PyContinuation> {
        let task = current_task().ok_or_else(outside_of_a_request)?;
        Ok(PyContinuation { rendezvous: Rendezvous::new(task), lane: ThreadBound::new(lane) })
    }

    /// Has it begin anew, in the running request, as if it had just been made. For one that nobody
    /// else has, or has heard of.
    ///
    /// # Errors
    /// As [`current`](Self::current).
    pub(crate) fn renew(&self, py: Python<'_>) -> PyResult<()> {
        let task = current_task().ok_or_else(outside_of_a_request)?;
        self.rendezvous.renew(py, task);
        Ok(())
    }

    /// Ends it: whoever resumes it from now on gets an error.
    pub(crate) fn close(&self, py: Python<'_>) {
        if let Some(ticket) = self.rendezvous.close(py) {
            ticket.interrupt();
        }
    }

    fn client(&self) -> Option<Client> {
        self.lane.get()?.client()
    }

    fn suspend(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Py<PyAny>> {
        let client = self.check_suspend(py)?;
        if let Some(found) = self.rendezvous.look(py) {
            return self.suspend_not(py, found);
        }
        let deadline = timeout.and_then(|timeout| now().checked_add(timeout));
        let mut watched = false;
        let parked = park_watched(self.rendezvous.task(py), deadline, |ticket| {
            self.rendezvous.begin(py, ticket);
            client.watch(ticket);
            watched = true;
        });
        // One that was refused must not end the watch of another wait.
        if watched {
            client.unwatch();
        }
        let Some(delivery) = self.rendezvous.end(py) else {
            return Err(from_interrupt(parked.err().unwrap_or(Interrupt::Interrupted)));
        };
        // What was delivered counts, whatever else ended the wait at the same time.
        if let Err(Interrupt::Cancelled) = parked {
            self.rendezvous.task(py).cancel(); // it is told at its next wait instead
        }
        received(py, delivery)
    }

    /// The client, if the request may suspend here.
    #[inline(never)]
    fn check_suspend(&self, py: Python<'_>) -> PyResult<Client> {
        if is_child() {
            let message = "cannot suspend here: this process was forked by the request";
            return Err(ContinuationError::saying(message));
        }
        if let Some(refusal) = suspend_refusal(py) {
            return Err(ContinuationError::saying(refusal.to_string()));
        }
        let Some(client) = self.client() else {
            let message = "cannot suspend here: this is not the server's thread";
            return Err(ContinuationError::saying(message));
        };
        Ok(client)
    }

    /// What `suspend` does where it does not wait.
    #[cold]
    fn suspend_not(&self, py: Python<'_>, found: Found) -> PyResult<Py<PyAny>> {
        let refusal = match (found, current_task()) {
            (Found::Suspended, _) => return Err(ContinuationError::saying("already suspended")),
            (_, None) => Refusal::NoTask,
            (_, Some(task)) if task != self.rendezvous.task(py) => Refusal::OtherTask,
            (Found::Closed, _) => Refusal::Closed,
            (Found::Kept, _) => match self.rendezvous.end(py) {
                Some(delivery) => return received(py, delivery),
                None => Refusal::Closed,
            },
        };
        Err(from_interrupt(refusal.into()))
    }

    fn deliver(&self, py: Python<'_>, delivery: Delivery) -> PyResult<()> {
        let parcel = Parcel { delivery, place: location(py) };
        match self.rendezvous.leave(py, parcel) {
            Ok(ticket) => {
                if ticket.try_wake().is_none() {
                    wake_from_elsewhere(ticket);
                }
                Ok(())
            }
            Err((reason, parcel)) => self.keep(reason, parcel),
        }
    }

    /// Keeps what came before the wait for it, from another thread; else it is refused.
    #[cold]
    fn keep(&self, reason: Refused, parcel: Parcel) -> PyResult<()> {
        Python::attach(|py| {
            if reason != Refused::NotSuspended || self.lane.get().is_some() {
                return Err(self.refused(py, reason, parcel));
            }
            let kept = self.rendezvous.keep(py, parcel);
            kept.map_err(|(reason, parcel)| self.refused(py, reason, parcel))
        })
    }

    fn refused(&self, py: Python<'_>, reason: Refused, undelivered: Parcel) -> PyErr {
        drop(undelivered);
        let first = self.rendezvous.place(py);
        let first = first.map_or_else(String::new, |it| format!(", first resumed at {it}"));
        ContinuationError::saying(match reason {
            Refused::NotSuspended if self.rendezvous.task(py).is_alive() => {
                format!("not suspended{first}")
            }
            Refused::AlreadyResumed => format!("already resumed{first}"),
            _ => format!("its request has ended{first}"),
        })
    }
}

#[cold]
fn wake_from_elsewhere(ticket: Ticket) {
    Python::attach(|py| on_loop(py, move |_| _ = ticket.wake()));
}

/// What `suspend` returns, or raises.
fn received(py: Python<'_>, delivery: Delivery) -> PyResult<Py<PyAny>> {
    match delivery {
        Delivery::Value(value) => Ok(value),
        Delivery::Exception(value) => Err(PyErr::from_value(value.into_bound(py))),
    }
}

fn outside_of_a_request() -> PyErr {
    ContinuationError::saying("a continuation is made inside a request")
}

/// An exception, from an instance or a class, to be raised elsewhere.
///
/// # Errors
/// `TypeError` for what is neither, and what the class raises when it is called.
pub(crate) fn exception_of(exc: &Bound<'_, PyAny>, caller: &str) -> PyResult<Py<PyAny>> {
    let instance = match exc.cast::<PyType>() {
        Ok(class) if class.is_subclass_of::<PyBaseException>()? => class.call0()?,
        _ => exc.clone(),
    };
    if !instance.is_instance_of::<PyBaseException>() {
        let message = format!("{caller} needs an exception, an instance or a class");
        return Err(PyTypeError::saying(message));
    }
    Ok(instance.unbind())
}

/// What `suspend` returns for the arguments of `resume`.
fn value_of(
    py: Python<'_>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let kwargs = kwargs.filter(|kwargs| !kwargs.is_empty());
    Ok(match (args.len(), kwargs) {
        (1, None) => args.get_item(0)?.unbind(),
        (_, None) => args.clone().into_any().unbind(),
        (0, Some(kwargs)) => kwargs.clone().into_any().unbind(),
        (_, Some(kwargs)) => (args, kwargs).into_pyobject(py)?.into_any().unbind(),
    })
}

/// A time-out in seconds, an int or a float of any size, as a duration; `None` is without limit, and
/// so are 0 and None. A bool is the int that it is.
///
/// # Errors
/// `ValueError` for a negative one and for NaN, `TypeError` for what is no number.
pub(crate) fn duration_of(seconds: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if seconds.is_none() {
        return Ok(None);
    }
    if let Ok(given) = seconds.cast::<PyBool>() {
        return Ok(given.is_true().then_some(Duration::from_secs(1)));
    }
    Ok(seconds_of(seconds, "timeout")?.filter(|timeout| !timeout.is_zero()))
}

/// The client of a request, always in its environ.
#[pyclass(frozen, module = "meinheld.server", name = "Client")]
pub(crate) struct PyClient {
    lane: SharedLane,
    /// The one that `_suspend_client` and `_resume_client` use.
    own: PyOnceLock<Py<PyContinuation>>,
}

impl PyClient {
    pub(crate) fn new(lane: Lane) -> PyClient {
        PyClient { lane: ThreadBound::new(lane), own: PyOnceLock::new() }
    }

    /// Whether it has a continuation of its own, which others may have.
    pub(crate) fn has_own(&self, py: Python<'_>) -> bool {
        self.own.get(py).is_some()
    }

    fn client(&self) -> Option<Client> {
        self.lane.get()?.client()
    }

    /// Where the request's exchange is.
    pub(crate) fn lane(&self) -> &SharedLane {
        &self.lane
    }
}

#[pymethods]
impl PyClient {
    /// A new continuation of the running request.
    fn continuation(&self, py: Python<'_>) -> PyResult<Py<PyContinuation>> {
        let lane = self.lane.get().ok_or_else(outside_of_a_request)?;
        let continuation = Py::new(py, PyContinuation::current(lane.clone())?)?;
        lane.note_made(continuation.clone_ref(py));
        Ok(continuation)
    }

    /// The descriptor of the client's socket, or -1 once it is closed. It belongs to the server.
    fn get_fd<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyInt>> {
        let fd = self.client().and_then(|client| client.fd());
        match fd.and_then(|fd| u64::try_from(fd).ok()) {
            Some(fd) => Number(fd).into_pyobject(py),
            // CPython has this number for ever.
            None => Ok((-1).into_pyobject(py)?),
        }
    }

    /// Says that the response is over, since the application has answered by the descriptor itself:
    /// the server sends nothing more, and closes the connection after the request. A false value
    /// takes that back.
    fn set_closed(&self, closed: &Bound<'_, PyAny>) -> PyResult<()> {
        let closed = closed.is_truthy()?;
        lane_of(&self.lane)?.mute(closed)
    }

    /// Whether the client is still there.
    #[getter]
    fn connected(&self) -> bool {
        self.client().is_some_and(|client| client.is_connected())
    }
}

/// What `Continuation.suspend` does, on the client of the running request.
#[pyfunction]
#[pyo3(name = "_suspend_client", signature = (client, timeout=None))]
pub(crate) fn suspend_client(
    py: Python<'_>,
    client: &Bound<'_, PyClient>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let client = client.get();
    let own = client.own.get_or_try_init(py, || client.continuation(py))?;
    let timeout = timeout.map(duration_of).transpose()?.flatten();
    own.get().suspend(py, timeout)
}

/// What `Continuation.resume` does, on a client whose request waits in `_suspend_client`.
#[pyfunction]
#[pyo3(name = "_resume_client", signature = (client, args=None, kwargs=None))]
pub(crate) fn resume_client(
    py: Python<'_>,
    client: &Bound<'_, PyClient>,
    args: Option<&Bound<'_, PyAny>>,
    kwargs: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let Some(own) = client.get().own.get(py) else {
        return Err(ContinuationError::saying("not suspended"));
    };
    let value = value_of(py, &positional(py, args)?, keywords(kwargs)?)?;
    own.get().deliver(py, Delivery::Value(value))
}
