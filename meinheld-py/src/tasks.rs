//! `server.spawn`: a call in a coroutine of its own that is no request, and the handle to it.
//!
//! ```text
//!   spawn ──▶ Queued ──── the loop has taken it ───▶ Running ──── returned, raised ──▶ Ended
//!               │                                       │ kill: raised where it waits   ▲
//!               └──────────────── kill, stop ───────────┴───────────────────────────────┘
//! ```
//!
//! Not here: the queue of those that are ready (see `meinheld_coro`).

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::time::Instant;

use meinheld_coro::{Interrupt, TaskId, Ticket, current_task, park, spawn_detached, ticket};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::blocking::{Lock, may_park};
use crate::call::{Call, described, keywords, positional};
use crate::continuation::exception_of;
use crate::errors::{ContinuationError, Stopped, TaskKilled, from_interrupt, timeout};
use crate::failures::{Failures, note_uncaught};
use crate::fork::{is_child, leave_if_child};
use crate::gil::{Guarded, attached};
use crate::inbox::on_loop;
use crate::raising::Saying;
use crate::seconds::seconds_of;
use crate::text::Text;

/// A call that `spawn` has put into a coroutine of its own.
#[pyclass(frozen, module = "meinheld.server", name = "Task")]
pub(crate) struct PyTask {
    /// Its name among the coroutines, once the loop has it.
    id: Guarded<Option<TaskId>>,
    /// Its function's, for a log.
    name: Option<Py<PyString>>,
    /// No code of Python's runs while it is looked at.
    state: Guarded<State>,
}

struct State {
    phase: Phase,
    /// What `kill` passed last. It is no failure of the task's if that is what ends it.
    killing: Option<Py<PyAny>>,
    coroutines: Vec<Ticket>,
    threads: Vec<Lock>,
}

enum Phase {
    Queued(Call),
    Running,
    /// The value that it returned, or the exception that it raised.
    Ended(Result<Py<PyAny>, Py<PyAny>>),
}

thread_local! {
    /// What is to be raised in tasks that were killed, until they run.
    static KILLED: RefCell<HashMap<TaskId, Py<PyAny>>> = RefCell::default();
}

/// What `kill` has for the running task, if it was that which ended its wait.
pub(crate) fn take_killing(py: Python<'_>) -> Option<PyErr> {
    if KILLED.with_borrow(HashMap::is_empty) {
        return None;
    }
    let exception = KILLED.with_borrow_mut(|killed| killed.remove(&current_task()?))?;
    Some(PyErr::from_value(exception.into_bound(py)))
}

/// Calls `func` in a coroutine of its own, after those that were spawned before, and returns a
/// handle to it at once.
///
/// It may be called anywhere: before `run`, in requests, in other spawned calls, from other threads.
/// `args` is a tuple or a list, `kwargs` a dict. What the call raises and nothing catches is logged.
#[pyfunction]
#[pyo3(signature = (func, args=None, kwargs=None))]
pub(crate) fn spawn(
    py: Python<'_>,
    func: &Bound<'_, PyAny>,
    args: Option<&Bound<'_, PyAny>>,
    kwargs: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyTask>> {
    let call = Call::new(func, positional(py, args)?, keywords(kwargs)?)?;
    let task = Py::new(py, PyTask::queued(py, call))?;
    let job = Job(Some(task.clone_ref(py)));
    let queued = task.clone_ref(py);
    on_loop(py, move |py| {
        let id = spawn_detached(move || job.run());
        queued.get().id.with(py, |its| *its = Some(id));
    });
    Ok(task)
}

/// A task's work in its coroutine. One that is dropped instead was cancelled before it began.
struct Job(Option<Py<PyTask>>);

impl Job {
    fn run(mut self) {
        let py = attached();
        let Some(task) = self.0.take() else { return };
        let Some(call) = task.get().begin(py) else { return };
        let outcome = call.make(py);
        leave_if_child(py, outcome.as_ref().err());
        drop(call);
        // A killing that the task never waited to be told of.
        drop(take_killing(py));
        task.get().end(py, outcome);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let Some(task) = self.0.take() else { return };
        Python::attach(|py| {
            let stopped = Stopped::saying("the server stopped before this task began");
            task.get().end(py, Err(stopped));
        });
    }
}

#[pymethods]
impl PyTask {
    /// Waits until the task has ended, for `timeout` seconds at the most, and returns its value: None
    /// if it raised an exception, which is in `exception`. Raises `timeout` if it has not ended by
    /// then; 0 only looks.
    #[pyo3(signature = (timeout=None))]
    fn join(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let timeout = timeout.filter(|timeout| !timeout.is_none());
        let timeout = timeout.map(|timeout| seconds_of(timeout, "timeout")).transpose()?.flatten();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while !self.done(py) {
            self.wait(py, deadline)?;
        }
        Ok(self.value(py))
    }

    /// Ends the task: raises `exc`, an instance or a class, where it waits or waits next; one that has
    /// not begun never does. `TaskKilled` if left out. Returns at once, False if the task had ended.
    #[pyo3(signature = (exc=None))]
    fn kill(slf: &Bound<'_, Self>, exc: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let py = slf.py();
        let exception = match exc.filter(|exc| !exc.is_none()) {
            Some(exc) => exception_of(exc, "kill")?,
            None => TaskKilled::saying("the task was killed").into_value(py).into_any(),
        };
        let task = slf.get();
        if task.done(py) {
            return Ok(false);
        }
        let replaced = task.lock(py).killing.replace(exception.clone_ref(py));
        drop(replaced);
        if task.is_current(py) {
            return Err(PyErr::from_value(exception.into_bound(py)));
        }
        if task.is_queued(py) {
            task.end(py, Err(PyErr::from_value(exception.bind(py).clone())));
        }
        let task = slf.clone().unbind();
        on_loop(py, move |py| task.get().throw(py, exception));
        Ok(true)
    }

    /// Whether the task has ended.
    #[getter]
    fn done(&self, py: Python<'_>) -> bool {
        matches!(self.lock(py).phase, Phase::Ended(_))
    }

    /// What the task returned; None until then, and if it raised an exception.
    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        match &self.lock(py).phase {
            Phase::Ended(Ok(value)) => value.clone_ref(py),
            _ => py.None(),
        }
    }

    /// The exception that ended the task, or None.
    #[getter]
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &self.lock(py).phase {
            Phase::Ended(Err(exception)) => Some(exception.clone_ref(py)),
            _ => None,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> Text<'_> {
        let phase = match &self.lock(py).phase {
            Phase::Queued(_) => "queued",
            Phase::Running => "running",
            Phase::Ended(Ok(_)) => "ended",
            Phase::Ended(Err(_)) => "ended with an exception",
        };
        Text(format!("<meinheld.Task {}, {phase}>", self.description(py)).into())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.try_lock(attached()) else { return Ok(()) };
        state.killing.as_ref().map_or(Ok(()), |killing| visit.call(killing))?;
        match &state.phase {
            Phase::Queued(call) => call.traverse(&visit),
            Phase::Ended(Ok(object) | Err(object)) => visit.call(object),
            Phase::Running => Ok(()),
        }
    }

    fn __clear__(&self) {
        let py = attached();
        let mut state = self.lock(py);
        let phase = std::mem::replace(&mut state.phase, Phase::Running);
        let killing = state.killing.take();
        drop(state);
        drop((phase, killing));
    }
}

impl PyTask {
    fn queued(py: Python<'_>, call: Call) -> PyTask {
        let name = call.name(py).map(Bound::unbind);
        let phase = Phase::Queued(call);
        let state = State { phase, killing: None, coroutines: Vec::new(), threads: Vec::new() };
        PyTask { id: Guarded::new(None), name, state: Guarded::new(state) }
    }

    /// Marks the task running, and takes its call; `None` if it was killed before.
    fn begin(&self, py: Python<'_>) -> Option<Call> {
        let mut state = self.lock(py);
        if !matches!(state.phase, Phase::Queued(_)) {
            return None;
        }
        match std::mem::replace(&mut state.phase, Phase::Running) {
            Phase::Queued(call) => Some(call),
            _ => None,
        }
    }

    /// Notes the outcome, the first one, and wakes who waits for it.
    fn end(&self, py: Python<'_>, outcome: PyResult<Py<PyAny>>) {
        let uncaught = match &outcome {
            Err(error) if !self.done(py) && !self.is_killed_by(error.value(py)) => {
                Some(error.clone_ref(py))
            }
            _ => None,
        };
        self.note_end(py, outcome);
        if let Some(error) = uncaught {
            let what = format!("spawned {} raised an exception", self.description(py));
            note_uncaught(py, &what, &error);
        }
    }

    fn note_end(&self, py: Python<'_>, outcome: PyResult<Py<PyAny>>) {
        let outcome = outcome.map_err(|error| error.into_value(py).into_any());
        let mut state = self.lock(py);
        if matches!(state.phase, Phase::Ended(_)) {
            return;
        }
        let before = std::mem::replace(&mut state.phase, Phase::Ended(outcome));
        let coroutines = std::mem::take(&mut state.coroutines);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        drop(before);
        for lock in threads {
            lock.release(py);
        }
        if !coroutines.is_empty() {
            on_loop(py, |_| coroutines.into_iter().for_each(|ticket| _ = ticket.wake()));
        }
    }

    fn is_killed_by(&self, exception: &Bound<'_, PyAny>) -> bool {
        let py = exception.py();
        self.lock(py).killing.as_ref().is_some_and(|killing| killing.is(exception))
    }

    /// Waits for the end, or for nothing, until `deadline`.
    fn wait(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<()> {
        if self.is_current(py) {
            return Err(ContinuationError::saying("a task cannot join itself"));
        }
        if may_park(py) {
            return self.wait_parked(py, deadline);
        }
        if is_child() || Failures::current().is_some() {
            let message = "cannot join here: this would block the server, and so the task";
            return Err(ContinuationError::saying(message));
        }
        let lock = Lock::locked(py)?;
        let waits = self.while_it_lasts(py, |state| state.threads.push(lock.clone_ref(py)));
        if !waits || lock.acquire(py, deadline)? {
            return Ok(());
        }
        self.lock(py).threads.retain(|its| !its.is(&lock));
        Err(timed_out())
    }

    fn wait_parked(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<()> {
        let Some(ticket) = ticket() else { return Ok(()) };
        if !self.while_it_lasts(py, |state| state.coroutines.push(ticket)) {
            return Ok(());
        }
        let parked = park(deadline);
        self.lock(py).coroutines.retain(|its| *its != ticket);
        match parked {
            Err(Interrupt::TimedOut) => Err(timed_out()),
            other => other.map_err(from_interrupt),
        }
    }

    /// Calls `add` if the task has not ended; whether it has not.
    fn while_it_lasts(&self, py: Python<'_>, add: impl FnOnce(&mut State)) -> bool {
        let mut state = self.lock(py);
        let lasts = !matches!(state.phase, Phase::Ended(_));
        if lasts {
            add(&mut state);
        }
        lasts
    }

    /// Has `exception` raised in the task, on the loop's thread.
    fn throw(&self, py: Python<'_>, exception: Py<PyAny>) {
        let Some(id) = self.id(py) else { return };
        if !self.done(py) {
            let replaced = KILLED.with_borrow_mut(|killed| killed.insert(id, exception));
            drop(replaced);
        }
        id.cancel();
    }

    fn is_current(&self, py: Python<'_>) -> bool {
        self.id(py).is_some_and(|id| current_task() == Some(id))
    }

    fn is_queued(&self, py: Python<'_>) -> bool {
        matches!(self.lock(py).phase, Phase::Queued(_))
    }

    fn id(&self, py: Python<'_>) -> Option<TaskId> {
        self.id.with(py, |id| *id)
    }

    /// What a log calls it.
    fn description(&self, py: Python<'_>) -> String {
        described(self.name.as_ref().map(|name| name.bind(py)))
    }

    fn lock<'a>(&'a self, py: Python<'a>) -> RefMut<'a, State> {
        self.state.lock(py)
    }
}

fn timed_out() -> PyErr {
    timeout::saying("timed out: the task has not ended in time")
}
