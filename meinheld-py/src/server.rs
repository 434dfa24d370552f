//! The functions of `meinheld.server`: listening, running and stopping.
//!
//! There is one server in a process, as in the API of old: `listen` prepares it, `run` makes it from
//! what was prepared and runs it on the calling thread. Not here: what a request does, and the
//! settings one by one (see settings.rs).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meinheld_core::{
    Address, Config, Handle, Listener, Server, SignalPipe, raise_descriptor_limit,
};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};

use crate::continuation::duration_of;
use crate::errors::{Stopped, from_listen};
use crate::fork;
use crate::gil;
use crate::hooks;
use crate::log::Logs;
use crate::raising::{Saying, panic_text, shown};
use crate::text;
use crate::thread_bound::drop_orphans;
use crate::tstate::STACK_BYTES;
use crate::wsgi::Wsgi;

/// What was prepared, and the handle of the server that runs.
struct State {
    config: Config,
    /// Those of the next run.
    listeners: Vec<Listener>,
    /// Theirs, or those of the run that lasts.
    addresses: Vec<Address>,
    running: Option<Handle>,
    /// A signal's stop that came before the server ran.
    early: Option<Stop>,
}

/// How a signal stops the server.
#[derive(Clone, Copy)]
struct Stop {
    grace: Option<Duration>,
    end_suspended: bool,
}

impl Stop {
    fn apply(self, handle: &Handle) {
        if self.end_suspended {
            handle.end_suspended();
        }
        handle.stop(self.grace);
    }
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Calls `use_it` with the settings of the next run.
pub(crate) fn with_config<R>(use_it: impl FnOnce(&mut Config) -> R) -> R {
    with_state(|state| use_it(&mut state.config))
}

/// The handle of the server that runs in this process. A child's is its parent's.
fn running() -> Option<Handle> {
    if fork::is_child() { None } else { with_state(|state| state.running.clone()) }
}

/// Tells the server that runs that a child has been forked.
pub(crate) fn note_child() {
    if let Some(handle) = running() {
        handle.note_fork();
    }
}

/// Nothing that could panic or call Python runs under the lock.
fn with_state<R>(use_it: impl FnOnce(&mut State) -> R) -> R {
    let mut guard: MutexGuard<'_, Option<State>> =
        STATE.lock().unwrap_or_else(PoisonError::into_inner);
    use_it(guard.get_or_insert_with(|| State {
        config: Config {
            stack_bytes: STACK_BYTES,
            stack_setting: "meinheld.server.set_stack_size (--stack-size)",
            ..Config::default()
        },
        listeners: Vec::new(),
        addresses: Vec::new(),
        running: None,
        early: None,
    }))
}

/// Listens on an address, or on several: a (host, port) tuple, a unix path as str or bytes, or a
/// list of those; and takes over inherited sockets, an int or a list of ints.
#[pyfunction]
#[pyo3(signature = (address=None, socket_fd=None))]
pub(crate) fn listen(
    address: Option<&Bound<'_, PyAny>>,
    socket_fd: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    check_not_forked()?;
    if with_state(|state| !state.listeners.is_empty() || state.running.is_some()) {
        return Err(PyRuntimeError::saying(
            "listen was called before: give it a list of addresses",
        ));
    }
    let backlog = with_state(|state| state.config.backlog);
    let mut listeners = Vec::new();
    for address in each(address) {
        listeners.extend(listen_on(&address, backlog)?);
    }
    for fd in each(socket_fd) {
        let fd = fd.extract().map_err(|_| not_a(&fd, "socket_fd", "an int or a list of ints"))?;
        listeners.push(Listener::inherit(fd).map_err(|error| from_listen(&error))?);
    }
    if listeners.is_empty() {
        return Err(PyTypeError::saying("listen needs an address or a socket_fd"));
    }
    let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
    with_state(|state| (state.listeners, state.addresses) = (listeners, addresses));
    Ok(())
}

/// The items of a list, or of a tuple that is no address itself; or the one thing.
fn each<'py>(items: Option<&Bound<'py, PyAny>>) -> Vec<Bound<'py, PyAny>> {
    let Some(items) = items else { return Vec::new() };
    if let Ok(list) = items.cast::<PyList>() {
        return list.iter().collect();
    }
    match items.cast::<PyTuple>() {
        Ok(tuple) if is_several(tuple) => tuple.iter().collect(),
        _ => vec![items.clone()],
    }
}

/// Whether it is a tuple of addresses or of descriptors, and not a (host, port).
fn is_several(tuple: &Bound<'_, PyTuple>) -> bool {
    tuple
        .get_item(0)
        .is_ok_and(|first| first.is_instance_of::<PyTuple>() || first.is_instance_of::<PyInt>())
}

fn listen_on(address: &Bound<'_, PyAny>, backlog: i32) -> PyResult<Vec<Listener>> {
    let listened = if let Ok((host, port)) = address.extract::<(String, u16)>() {
        let host = if host.is_empty() { "0.0.0.0" } else { &host };
        Listener::tcp(host, port, backlog)
    } else if address.is_instance_of::<PyString>() || address.is_instance_of::<PyBytes>() {
        let path: PathBuf = path_of(address)?;
        Listener::unix(&path, backlog).map(|listener| vec![listener])
    } else {
        return Err(no_address(address));
    };
    listened.map_err(|error| from_listen(&error))
}

/// Says what is wrong with what was to be an address.
fn no_address(found: &Bound<'_, PyAny>) -> PyErr {
    if let Ok((_, port)) = found.extract::<(String, Bound<'_, PyInt>)>() {
        return PyValueError::saying(format!("port is {port} and must be 0 to 65535"));
    }
    not_a(found, "address", "a (host, port) tuple or a unix path")
}

fn path_of(address: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let decoded = address.py().import("os")?.call_method1("fsdecode", (address,))?;
    decoded.extract()
}

fn not_a(found: &Bound<'_, PyAny>, what: &str, wanted: &str) -> PyErr {
    let shown = shown(found);
    PyTypeError::saying(format!("{what} is {shown:.100} and must be {wanted}"))
}

/// The addresses that are listened on, until `run` returns: (host, port) tuples and unix paths.
#[pyfunction]
pub(crate) fn addresses(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let all = with_state(|state| state.addresses.clone());
    let list = text::list(py)?;
    for address in all {
        match address {
            Address::Ip(ip) => {
                list.append(text::host_and_port(py, &ip.ip().to_string(), ip.port())?)?;
            }
            Address::Unix(path) => list.append(path.into_os_string())?,
        }
    }
    Ok(list)
}

/// Serves `app` on what is listened on, until it is stopped.
#[pyfunction]
pub(crate) fn run(py: Python<'_>, app: Py<PyAny>) -> PyResult<()> {
    if !app.bind(py).is_callable() {
        return Err(not_a(app.bind(py), "app", "a WSGI application, which is a callable"));
    }
    check_not_forked()?;
    let (config, listeners) = take_prepared()?;
    fork::forget();
    let _over = Over;
    serve(py, app, config, listeners)
}

/// Whether this process was not forked while a server ran, whose state would be in the way.
///
/// # Errors
/// `RuntimeError`.
fn check_not_forked() -> PyResult<()> {
    if fork::is_child() && with_state(|state| state.running.is_some()) {
        return Err(PyRuntimeError::saying(
            "this process was forked by a running server and cannot serve: start a new interpreter \
             (multiprocessing's spawn, subprocess)",
        ));
    }
    Ok(())
}

/// Notes, however a run ends, that it has.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        with_state(|state| {
            (state.running, state.early) = (None, None);
            state.addresses.clear();
        });
        hooks::forget_watchdog();
    }
}

fn take_prepared() -> PyResult<(Config, Vec<Listener>)> {
    with_state(|state| {
        if state.running.is_some() {
            return Err(PyRuntimeError::saying("the server runs already"));
        }
        if state.listeners.is_empty() {
            return Err(PyRuntimeError::saying("nothing to serve on: call listen() before run()"));
        }
        Ok((state.config.clone(), std::mem::take(&mut state.listeners)))
    })
}

fn serve(py: Python<'_>, app: Py<PyAny>, config: Config, listeners: Vec<Listener>) -> PyResult<()> {
    raise_descriptor_limit()?;
    let server = Server::new(config, Wsgi::new(py, app)?)?;
    for listener in listeners {
        server.listen(listener);
    }
    let early = with_state(|state| {
        state.running = Some(server.handle());
        state.early.take()
    });
    if let Some(stop) = early {
        stop.apply(&server.handle());
    }
    // What waits in the inbox is taken in before the loop waits for anything.
    server.handle().wake();
    let wakeup = WakeupDescriptor::install(py, &server)?;
    let failures = Rc::clone(server.service().failures());
    let run = || failures.with_current(|| server.run());
    let stopped = catch_unwind(AssertUnwindSafe(run));
    drop_orphans();
    if let Some(exit) = failures.logs().end(py) {
        failures.end_server(exit);
    }
    wakeup.restore(py)?;
    let stopped = stopped.unwrap_or_else(|panic| fail(py, failures.logs(), panic));
    if let Some(fatal) = failures.take_fatal() {
        return Err(fatal);
    }
    let abandoned = stopped?.abandoned;
    if abandoned > 0 {
        let message = match abandoned {
            1 => "1 coroutine could not be ended and was abandoned".to_owned(),
            count => format!("{count} coroutines could not be ended and were abandoned"),
        };
        failures.logs().error(py, &message);
    }
    Ok(())
}

/// Says that the server itself has panicked, and goes on with that: Python gets it as an exception
/// that `except Exception` does not catch. What is suspended is left as it is, as nothing of the
/// server can be relied on.
fn fail(py: Python<'_>, logs: &Logs, panic: Box<dyn Any + Send>) -> ! {
    let text = panic_text(&*panic);
    let message = format!("the server has failed and cannot go on, please report it: {text}");
    logs.error(py, &message.escape_debug().to_string());
    resume_unwind(panic)
}

/// Python's `signal.set_wakeup_fd`: it makes a signal wake the loop, whose turn runs the handler.
struct WakeupDescriptor {
    /// The function that sets it, and what was set before; `None` where signals are not handled: on
    /// any but the main thread.
    previous: Option<(Py<PyAny>, Py<PyAny>)>,
}

impl WakeupDescriptor {
    fn install(py: Python<'_>, server: &Server<Wsgi>) -> PyResult<WakeupDescriptor> {
        let threading = py.import("threading")?;
        let current = threading.call_method0("current_thread")?;
        if !current.is(&threading.call_method0("main_thread")?) {
            return Ok(WakeupDescriptor { previous: None });
        }
        let pipe = SignalPipe::new()?;
        let set = py.import("signal")?.getattr("set_wakeup_fd")?;
        let previous = set.call1((pipe.writer(),))?;
        server.wake_on(pipe)?;
        Ok(WakeupDescriptor { previous: Some((set.unbind(), previous.unbind())) })
    }

    fn restore(self, py: Python<'_>) -> PyResult<()> {
        if let Some((set, previous)) = self.previous {
            set.bind(py).call1((previous,))?;
        }
        Ok(())
    }
}

/// Stops the server gracefully: it stops listening and lets requests finish, for `timeout` seconds
/// at the most (0 or None: without limit), then raises `Stopped` in those that are left. Any thread
/// may call it; it does nothing if the server does not run.
#[pyfunction]
#[pyo3(signature = (timeout=None))]
pub(crate) fn stop(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    stop_running(timeout.map(duration_of).transpose()?.flatten());
    Ok(())
}

/// Stops the server that runs, if one does; `None` is without limit.
pub(crate) fn stop_running(grace: Option<Duration>) {
    if let Some(handle) = running() {
        handle.stop(grace);
    }
}

/// Has the loop go round once, if a server runs.
pub(crate) fn wake() {
    if let Some(handle) = running() {
        handle.wake();
    }
}

/// What SIGTERM does: requests have this time to end, even if it is none.
#[pyfunction]
pub(crate) fn terminate(seconds: f64) {
    end(Stop { grace: grace(seconds), end_suspended: false });
}

/// What SIGINT does: requests that are suspended end at once, others have this time.
#[pyfunction]
pub(crate) fn interrupt(seconds: f64) {
    end(Stop { grace: grace(seconds), end_suspended: true });
}

/// What the end of the program does to a request that computes, on a thread of this number, instead of
/// ending: `Stopped` is raised where it is.
#[pyfunction]
pub(crate) fn break_off(py: Python<'_>, thread: i64) {
    gil::raise_in(thread, &py.get_type::<Stopped>());
}

/// More seconds than a duration can hold are without limit.
fn grace(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

fn end(stop: Stop) {
    if fork::is_child() {
        return;
    }
    let running = with_state(|state| {
        if state.running.is_none() {
            state.early = Some(stop);
        }
        state.running.clone()
    });
    if let Some(handle) = running {
        stop.apply(&handle);
    }
}
