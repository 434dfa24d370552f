//! `environ["meinheld.continuation"]` and `environ["meinheld.client"]`: a request suspends, and any
//! other code resumes it.
//!
//! Built on [`meinheld_coro::Continuation`], which has the states; here are Python's calls, the
//! watch on the client, and the place that is named when a continuation is resumed twice.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use meinheld_core::Client;
use meinheld_coro::{Continuation, ResumeRefusal};
use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyTuple, PyType};

use crate::call::{keywords, positional};
use crate::errors::{ContinuationError, from_interrupt};
use crate::fork::is_child;
use crate::lane::{Lane, SharedLane, lane_of};
use crate::raising::Saying;
use crate::seconds::seconds_of;
use crate::text::Text;
use crate::thread_bound::ThreadBound;
use crate::tstate::{Location, location, suspend_refusal};

/// What a resumer passes.
enum Delivery {
    Value(Py<PyAny>),
    Exception(Py<PyAny>),
}

/// Lets a request wait: `suspend` in the request, `resume` or `throw` from anywhere else.
#[pyclass(frozen, module = "meinheld.server", name = "Continuation")]
pub(crate) struct PyContinuation {
    inner: Continuation<Delivery>,
    client: ThreadBound<Client>,
    /// Where it was resumed since its last suspend.
    resumed_at: Mutex<Option<Location>>,
}

/// The continuations that a request's objects have made, to be closed at its end.
#[derive(Clone, Default)]
pub(crate) struct Made(Rc<RefCell<Vec<Continuation<Delivery>>>>);

impl Made {
    /// Ends them: whoever resumes one from now on gets an error.
    pub(crate) fn close(&self) {
        // Closing may drop a value that was kept, and so run any code: not under the borrow.
        let made = std::mem::take(&mut *self.0.borrow_mut());
        for continuation in made {
            continuation.close();
        }
    }
}

#[pymethods]
impl PyContinuation {
    /// Parks this request until `resume` or `throw`, for `timeout` seconds at the most; 0 or None
    /// waits without limit. Returns what `resume` passed.
    ///
    /// Raises `timeout`, `ClientDisconnected` as soon as the client is gone, what `throw` passed,
    /// and `ContinuationError` on misuse.
    #[pyo3(signature = (timeout=None))]
    fn suspend(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let timeout = timeout.map(duration_of).transpose()?.flatten();
        if is_child() {
            let message = "cannot suspend here: this process was forked by the request";
            return Err(ContinuationError::saying(message));
        }
        if let Some(refusal) = suspend_refusal(py) {
            return Err(ContinuationError::saying(refusal.to_string()));
        }
        let Some(client) = self.client.get() else {
            let message = "cannot suspend here: this is not the server's thread";
            return Err(ContinuationError::saying(message));
        };
        if self.inner.is_suspended() {
            return Err(ContinuationError::saying("already suspended"));
        }
        let watched = Cell::new(false);
        let delivered = self.inner.suspend_watched(timeout, |ticket| {
            watched.set(true);
            client.watch(ticket);
        });
        // One that was refused, or found its value there, must not end the watch of another wait.
        if watched.get() {
            client.unwatch();
        }
        drop(self.note_resumed(None));
        match delivered {
            Ok(Delivery::Value(value)) => Ok(value),
            Ok(Delivery::Exception(value)) => Err(PyErr::from_value(value.into_bound(py))),
            Err(interrupt) => Err(from_interrupt(interrupt)),
        }
    }

    /// Makes the suspended request ready, to return these arguments from its `suspend`; never
    /// blocks or switches.
    ///
    /// From another thread it may come before the suspend, which then returns at once. Raises
    /// `ContinuationError` if the request is not suspended, or has been resumed before.
    #[pyo3(signature = (*args, **kwargs))]
    fn resume(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.deliver(py, Delivery::Value(value_of(py, args, kwargs)?))
    }

    /// The same as `resume`, raising `exc` (an instance or a class) in the suspended request.
    fn throw(&self, py: Python<'_>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        self.deliver(py, Delivery::Exception(exception_of(exc, "throw")?))
    }

    /// Whether the request waits in `suspend` now.
    #[getter]
    fn suspended(&self) -> bool {
        self.inner.is_suspended()
    }

    /// Whether the request's client is still there.
    #[getter]
    fn connected(&self) -> bool {
        self.client.get().is_some_and(Client::is_connected)
    }

    fn __repr__(&self) -> Text<'_> {
        let state = if self.inner.is_suspended() { "suspended" } else { "not suspended" };
        Text(format!("<meinheld.Continuation of {}, {state}>", self.inner.task()).into())
    }
}

impl PyContinuation {
    fn deliver(&self, py: Python<'_>, delivery: Delivery) -> PyResult<()> {
        match self.inner.resume(delivery) {
            Ok(()) => {
                drop(self.note_resumed(location(py)));
                Ok(())
            }
            Err(error) => Err(self.refused(py, error.reason)),
        }
    }

    fn refused(&self, py: Python<'_>, reason: ResumeRefusal) -> PyErr {
        let resumed = self.resumed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let first = resumed.as_ref().map(|location| location.describe(py));
        drop(resumed);
        let first = first.map_or_else(String::new, |first| format!(", first resumed at {first}"));
        ContinuationError::saying(match reason {
            ResumeRefusal::NotSuspended => format!("not suspended{first}"),
            ResumeRefusal::Closed => format!("its request has ended{first}"),
            _ => format!("already resumed{first}"),
        })
    }

    /// Notes where it was resumed; hands back what was noted before, to be dropped unlocked.
    fn note_resumed(&self, location: Option<Location>) -> Option<Location> {
        let mut resumed = self.resumed_at.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *resumed, location)
    }
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
    client: ThreadBound<Client>,
    made: ThreadBound<Made>,
    lane: SharedLane,
    /// The one that `_suspend_client` and `_resume_client` use.
    own: PyOnceLock<Py<PyContinuation>>,
}

impl PyClient {
    /// Continuations are noted in `made`.
    pub(crate) fn new(client: Client, made: Made, lane: Lane) -> PyClient {
        PyClient {
            client: ThreadBound::new(client),
            made: ThreadBound::new(made),
            lane: ThreadBound::new(lane),
            own: PyOnceLock::new(),
        }
    }

    /// Where the request's exchange is.
    pub(crate) fn lane(&self) -> &SharedLane {
        &self.lane
    }
}

#[pymethods]
impl PyClient {
    /// A new continuation of the running request.
    pub(crate) fn continuation(&self) -> PyResult<PyContinuation> {
        let here = self.client.get().zip(self.made.get());
        let here = here.and_then(|here| Some((here, Continuation::current()?)));
        let Some(((client, made), inner)) = here else {
            let message = "a continuation is made inside a request";
            return Err(ContinuationError::saying(message));
        };
        made.0.borrow_mut().push(inner.clone());
        let client = ThreadBound::new(client.clone());
        Ok(PyContinuation { inner, client, resumed_at: Mutex::new(None) })
    }

    /// The descriptor of the client's socket, or -1 once it is closed. It belongs to the server.
    fn get_fd(&self) -> i32 {
        self.client.get().and_then(Client::fd).unwrap_or(-1)
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
        self.client.get().is_some_and(Client::is_connected)
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
    let own = client.own.get_or_try_init(py, || Py::new(py, client.continuation()?))?;
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
    own.get().resume(py, &positional(py, args)?, keywords(kwargs)?)
}
