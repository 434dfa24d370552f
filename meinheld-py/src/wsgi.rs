//! PEP 3333, the server's side: calls the application, iterates what it returns, and closes that,
//! all in the request's coroutine.
//!
//! ```text
//!   accept: head ─▶ environ      call: application(environ, start_response) ─▶ iterable
//!                                      the iterable is sent
//!                                      close() of the iterable, in every ending
//! ```
//!
//! Not here: the objects that the application is given (see the modules of their names), and how what
//! it returns is sent (see returned.rs).

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use meinheld_core::http::Head;
use meinheld_core::{ConnectionInfo, Exchange, LengthMismatch, Report, Service};
use meinheld_coro::TaskLocalFactory;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::access_line::Refused;
use crate::access_log::AccessRecord;
use crate::environ::Environs;
use crate::errors::{ClientDisconnected, Stopped, from_io, timeout};
use crate::failures::Failures;
use crate::fork::leave_if_child;
use crate::gil;
use crate::hooks::{self, Beat, Sign};
use crate::inbox;
use crate::kit::{Kit, Kits};
use crate::lane::Lane;
use crate::log::{Logs, is_exit};
use crate::names::name;
use crate::returned::Returned;
use crate::server;
use crate::templates::Loan;
use crate::thread_bound::drop_orphans;
use crate::tstate::PythonStates;
use crate::unwinding;

/// As what a request is logged whose client went before there was an answer.
const CLIENT_GONE: u16 = 499;

/// What answers a request that is in order, and that the server has failed.
const STATUS_FAILED: u16 = 500;

/// A WSGI application as a service.
pub(crate) struct Wsgi {
    application: Py<PyAny>,
    /// Whether it is our own middleware, whose work is done here.
    wraps: bool,
    environs: Environs,
    kits: Kits,
    failures: Rc<Failures>,
}

/// A request that has been accepted.
pub(crate) enum Accepted {
    Request(Request),
    /// The environ could not be built.
    Failed(PyErr),
}

/// What a request's call needs.
pub(crate) struct Request {
    environ: Py<PyDict>,
    /// What the environ is, if it is lent.
    loan: Option<Loan>,
    access: Option<AccessRecord>,
}

/// A request while it is answered.
struct Call<'a, 'py> {
    py: Python<'py>,
    wsgi: &'a Wsgi,
    lane: Lane,
}

impl Wsgi {
    pub(crate) fn new(py: Python<'_>, application: Py<PyAny>) -> PyResult<Wsgi> {
        let failures = Failures::new(Logs::new(py)?);
        let wraps = is_own_middleware(application.bind(py))?;
        let (environs, kits) = (Environs::new(py)?, Kits::new());
        Ok(Wsgi { application, wraps, environs, kits, failures })
    }

    pub(crate) fn failures(&self) -> &Rc<Failures> {
        &self.failures
    }

    fn logs(&self) -> &Logs {
        self.failures.logs()
    }
}

impl Service for Wsgi {
    type Request = Accepted;

    fn accept(&self, head: &Head<'_>, connection: &ConnectionInfo<'_>) -> Accepted {
        let access = self.logs().access_record(head, connection);
        match self.environs.build(gil::attached(), head, connection) {
            Ok((environ, loan)) => {
                Accepted::Request(Request { environ: environ.unbind(), loan, access })
            }
            Err(error) => Accepted::Failed(error),
        }
    }

    fn call(&self, request: Accepted, exchange: &mut Exchange) {
        let py = gil::attached();
        let Request { environ, mut loan, access } = match request {
            Accepted::Request(request) => request,
            Accepted::Failed(error) => {
                self.logs().exception(py, "cannot build the environ of a request", &error);
                return;
            }
        };
        if access.is_none() || self.logs().writes_access_directly() {
            exchange.end_promptly();
        }
        let environ = environ.into_bound(py);
        let (answered, kit) = match self.kit(py, &mut loan) {
            Ok(kit) => self.answer(&environ, &mut loan, kit, exchange),
            Err(error) => (Ok(Err(error)), None),
        };
        let panic = match answered {
            Ok(answered) => {
                self.finish(&environ, answered, exchange);
                None
            }
            Err(panic) => {
                // If the client is gone there is nobody to tell.
                let _ = exchange.fail(500);
                Some(panic)
            }
        };
        if let Some(access) = access {
            self.log_access(&environ, &access, exchange);
        }
        drop(environ);
        self.take_back(py, loan, kit);
        if let Some(panic) = panic {
            // Whoever called this tells of it.
            resume_unwind(panic);
        }
    }

    fn blocked(&self, wait: &mut dyn FnMut()) {
        gil::released(wait);
    }

    fn turn(&self) -> ControlFlow<()> {
        leave_if_child(gil::attached(), None);
        drop_orphans();
        if let Err(error) = gil::check_signals(gil::attached()) {
            self.failures.end_server(error);
        }
        if let Some(beat) = hooks::due_beat() {
            self.perform(gil::attached(), &beat);
        }
        inbox::take_in(gil::attached());
        self.end_if(self.logs().end_turn(gil::attached()));
        if self.failures.is_fatal() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn next_turn(&self) -> Option<Instant> {
        [hooks::next_beat(), self.logs().retry_at()].into_iter().flatten().min()
    }

    fn report(&self, report: &Report<'_>) {
        let (py, logs) = (gil::attached(), self.logs());
        match *report {
            Report::Refused { peer, line, status, bytes, .. } => {
                let refused = Refused { peer, line, status, bytes };
                self.end_if(logs.access_refused(py, &refused));
                if status == STATUS_FAILED {
                    // A full disk, say: a body could not be stored.
                    logs.error(py, &report.to_string());
                } else {
                    // It is the client's fault, and the log is filled with it only where all is asked for.
                    logs.debug(py, report);
                }
            }
            Report::RefusedUnderscore { .. } => logs.warning(py, &report.to_string()),
            _ => logs.error(py, &report.to_string()),
        }
    }

    fn locals(&self) -> Option<Rc<dyn TaskLocalFactory>> {
        Some(Rc::new(PythonStates::new(gil::attached())))
    }
}

impl Wsgi {
    /// Ends the server if a logger has raised what ends a program.
    fn end_if(&self, exit: Option<PyErr>) {
        if let Some(exit) = exit {
            self.failures.end_server(exit);
        }
    }

    /// A kit for a request: the one whose objects its environ has already, or any.
    #[inline(never)]
    fn kit(&self, py: Python<'_>, loan: &mut Option<Loan>) -> PyResult<Kit> {
        let kit = loan.as_mut().and_then(|loan| loan.kit(py));
        kit.map_or_else(|| self.kits.take(py), Ok)
    }

    /// Takes back what the request had, for others.
    #[inline(never)]
    fn take_back(&self, py: Python<'_>, loan: Option<Loan>, mut kit: Option<Kit>) {
        if let Some(loan) = loan {
            kit = self.environs.take_back(py, loan, kit);
        }
        if let Some(kit) = kit {
            self.kits.give(kit);
        }
    }

    /// Calls the application with this kit, which comes back if it can be used again.
    fn answer(
        &self,
        environ: &Bound<'_, PyDict>,
        loan: &mut Option<Loan>,
        mut kit: Kit,
        exchange: &mut Exchange,
    ) -> (thread::Result<PyResult<()>>, Option<Kit>) {
        let py = environ.py();
        kit.open(exchange);
        let call = Call { py, wsgi: self, lane: kit.lane().clone() };
        let answered = catch_unwind(AssertUnwindSafe(|| call.answer(environ, loan, &mut kit)));
        let kit = kit.close(py, exchange);
        // A panic is to be answered, and the exchange is needed for that.
        (answered, kit)
    }

    /// Does what the watchdog does. An exception of its own is logged, unless it is to end the server.
    fn perform(&self, py: Python<'_>, beat: &Beat) {
        match beat.perform(py) {
            Ok(Sign::Given) => {}
            Ok(Sign::Orphaned(grace)) => {
                self.logs().error(py, "the parent process has changed: stopping");
                hooks::forget_watchdog();
                server::stop_running(grace);
            }
            Err(error) if is_exit(py, &error) => self.failures.end_server(error),
            Err(error) => self.logs().exception(py, "the watchdog raised an exception", &error),
        }
    }

    #[inline(never)]
    fn log_access(
        &self,
        environ: &Bound<'_, PyDict>,
        access: &AccessRecord,
        exchange: &mut Exchange,
    ) {
        let (status, bytes) = (exchange.status(), exchange.body_bytes_sent());
        self.end_if(self.logs().access(environ, access, status, bytes));
    }

    /// Ends the exchange as the call's outcome demands.
    #[inline(never)]
    fn finish(&self, environ: &Bound<'_, PyDict>, answered: PyResult<()>, exchange: &mut Exchange) {
        let failed = match answered {
            Ok(()) => exchange.end().map_err(from_io),
            Err(error) => Err(error),
        };
        match failed {
            Ok(()) => self.note_mismatch(environ, exchange),
            Err(error) => {
                if is_departure(environ.py(), &error, exchange) {
                    exchange.abandon(CLIENT_GONE);
                }
                let status = self.note_failure(environ, error);
                // If the client is gone there is nobody to tell.
                let _ = exchange.fail(status);
            }
        }
    }

    /// Logs what is worth it; the status that tells the client.
    fn note_failure(&self, environ: &Bound<'_, PyDict>, error: PyErr) -> u16 {
        let py = environ.py();
        if error.is_instance_of::<ClientDisconnected>(py) {
            return 500;
        }
        if error.is_instance_of::<Stopped>(py) {
            return 503;
        }
        if error.is_instance_of::<timeout>(py) {
            let message = format!("{} ended with an uncaught {error}", request_line(environ));
            self.logs().error(py, &message);
            return 500;
        }
        let message = format!("{} raised an exception", request_line(environ));
        self.failures.note(py, &message, error);
        500
    }

    fn note_mismatch(&self, environ: &Bound<'_, PyDict>, exchange: &Exchange) {
        let what = match exchange.length_mismatch() {
            None => return,
            Some(LengthMismatch::Excess) => {
                "returned more bytes than its Content-Length; the rest was dropped".to_owned()
            }
            Some(LengthMismatch::Shortage(bytes)) => format!(
                "returned {bytes} bytes fewer than its Content-Length; the connection was closed"
            ),
        };
        self.logs().error(environ.py(), &format!("{} {what}", request_line(environ)));
    }
}

/// Whether what leaves the application is that its client has gone. It may be another one's, of which
/// this client knows nothing.
fn is_departure(py: Python<'_>, error: &PyErr, exchange: &Exchange) -> bool {
    error.is_instance_of::<ClientDisconnected>(py) && !exchange.client().is_connected()
}

/// Whether the application is a `ContinuationMiddleware`, and no subclass of somebody else's.
fn is_own_middleware(application: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = application.py();
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let Some(middleware) = modules.get_item("meinheld.middleware")? else { return Ok(false) };
    let kind = application.get_type();
    let ours = kind.is(&middleware.getattr("ContinuationMiddleware")?)
        || kind.is(&middleware.getattr("SpawnMiddleware")?);
    // Somebody may have replaced what it does.
    let call = kind.getattr("__call__")?.getattr_opt("__module__")?;
    Ok(ours && call.is_some_and(|module| module.eq("meinheld.middleware").unwrap_or(false)))
}

/// The request as a log names it, in one line.
fn request_line(environ: &Bound<'_, PyDict>) -> String {
    let py = environ.py();
    let item = |name: &Bound<'_, PyString>| match environ.get_item(name) {
        Ok(Some(value)) => value.to_string(),
        _ => "?".to_owned(),
    };
    let (method, target) = (item(name!(py, request_method)), item(name!(py, raw_uri)));
    format!("{method} {target}").escape_debug().to_string()
}

/// What is done before the application is called and after it is not inlined: its frames are not on
/// the stack of a request that waits.
impl<'py> Call<'_, 'py> {
    fn answer(
        &self,
        environ: &Bound<'py, PyDict>,
        loan: &mut Option<Loan>,
        kit: &mut Kit,
    ) -> PyResult<()> {
        let application = self.prepare(environ, loan, kit)?;
        let body = unwinding::call(&application, [environ, kit.start_response().bind(self.py)]);
        leave_if_child(self.py, body.as_ref().err());
        self.answer_with(&body?)
    }

    /// Completes the environ; the application to call.
    #[inline(never)]
    fn prepare(
        &self,
        environ: &Bound<'py, PyDict>,
        loan: &mut Option<Loan>,
        kit: &mut Kit,
    ) -> PyResult<Bound<'py, PyAny>> {
        kit.equip(environ)?;
        let application = self.unwrapped(environ, kit)?;
        if let Some(loan) = loan {
            loan.give_out(self.py);
        }
        Ok(application)
    }

    /// Sends what the application has returned, and closes it.
    #[inline(never)]
    fn answer_with(&self, body: &Bound<'py, PyAny>) -> PyResult<()> {
        let returned = Returned { body, lane: &self.lane };
        let sent = catch_unwind(AssertUnwindSafe(|| returned.send()));
        let closed = returned.close();
        leave_if_child(self.py, closed.as_ref().err());
        let sent = sent.unwrap_or_else(|panic| resume_unwind(panic));
        match (sent, closed) {
            (Err(error), Err(closing)) => {
                let message = "close() of a response that had failed raised an exception, too";
                self.wsgi.logs().exception(self.py, message, &closing);
                Err(error)
            }
            (sent, closed) => sent.and(closed),
        }
    }

    /// The application inside of our own middleware, whose work is done; or the application.
    fn unwrapped(
        &self,
        environ: &Bound<'py, PyDict>,
        kit: &mut Kit,
    ) -> PyResult<Bound<'py, PyAny>> {
        let application = self.wsgi.application.bind(self.py);
        if !self.wsgi.wraps {
            return Ok(application.clone());
        }
        kit.equip_continuation(environ)?;
        application.getattr(name!(self.py, app))
    }
}
