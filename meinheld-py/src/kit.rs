//! The objects that an application gets with each request, used again when it has kept none of them.
//!
//! ```text
//!   take ──▶ open ──▶ the request ──▶ close ──▶ give ──▶ idle, for any other request
//!                                                 └────▶ left to whoever has one of its objects
//! ```
//!
//! INVARIANT: what an application can still reach never serves another request. A kit is idle only if
//! nobody but the kit has any of its objects, strongly or weakly. One that was left behind is closed
//! for good: its objects refuse, as they do after any request. Not here: what the objects do.

use std::cell::RefCell;
use std::rc::Rc;

use meinheld_core::Exchange;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use crate::continuation::{Made, PyClient, PyContinuation};
use crate::input::Input;
use crate::known_heads::KnownHeads;
use crate::lane::Lane;
use crate::references::{function_has_only, has_only};
use crate::start_response::{EarlyHints, StartResponse};

/// How many are idle at the most; each takes about a kilobyte.
const IDLE_MAX: usize = 64;

/// The kits that wait for a request.
pub(crate) struct Kits {
    idle: RefCell<Vec<Kit>>,
    known_heads: Rc<RefCell<KnownHeads>>,
}

/// The objects of one request at a time, which share a lane.
pub(crate) struct Kit {
    lane: Lane,
    /// What the client makes, beside the continuation here.
    made: Made,
    input: Py<Input>,
    early_hints: Py<EarlyHints>,
    client: Py<PyClient>,
    /// Made when it is asked for.
    continuation: Option<Py<PyContinuation>>,
    starter: Py<StartResponse>,
    /// The starter's method.
    start_response: Py<PyCFunction>,
}

impl Kits {
    pub(crate) fn new() -> Kits {
        let known_heads = Rc::new(RefCell::new(KnownHeads::new()));
        Kits { idle: RefCell::default(), known_heads }
    }

    /// An idle kit, or a new one.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Kit> {
        let idle = self.idle.borrow_mut().pop();
        idle.map_or_else(|| Kit::new(py, Rc::clone(&self.known_heads)), Ok)
    }

    /// Takes a closed kit back, once the request's environ is gone.
    pub(crate) fn give(&self, py: Python<'_>, kit: Kit) {
        if kit.is_let_go(py) && self.idle.borrow().len() < IDLE_MAX {
            kit.input.get().forget();
            self.idle.borrow_mut().push(kit);
        }
    }
}

impl Kit {
    #[inline(never)]
    fn new(py: Python<'_>, known_heads: Rc<RefCell<KnownHeads>>) -> PyResult<Kit> {
        let (lane, made) = (Lane::new(), Made::default());
        let starter = Bound::new(py, StartResponse::new(py, lane.clone(), known_heads)?)?;
        let start_response = starter.getattr(intern!(py, "start_response"))?;
        Ok(Kit {
            input: Py::new(py, Input::new(lane.clone()))?,
            early_hints: Py::new(py, EarlyHints::new(lane.clone()))?,
            client: Py::new(py, PyClient::new(made.clone(), lane.clone()))?,
            continuation: None,
            starter: starter.unbind(),
            start_response: start_response.cast_into::<PyCFunction>()?.unbind(),
            made,
            lane,
        })
    }

    /// Begins a request, whose exchange is in `place`.
    pub(crate) fn open(&self, place: &mut Exchange) {
        self.lane.open(place);
    }

    /// Puts the objects of every request into its environ.
    pub(crate) fn equip(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = environ.py();
        environ.set_item(intern!(py, "wsgi.input"), &self.input)?;
        environ.set_item(intern!(py, "wsgi.early_hints"), &self.early_hints)?;
        environ.set_item(intern!(py, "meinheld.client"), &self.client)
    }

    /// Puts the continuation of the running request into its environ.
    pub(crate) fn equip_continuation(&mut self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = environ.py();
        if let Some(continuation) = &self.continuation {
            continuation.get().renew(py)?;
        } else {
            let continuation = PyContinuation::current(self.lane.clone())?;
            self.continuation = Some(Py::new(py, continuation)?);
        }
        environ.set_item(intern!(py, "meinheld.continuation"), &self.continuation)
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn start_response(&self) -> &Py<PyCFunction> {
        &self.start_response
    }

    /// Ends the request: its objects refuse from now on, and the exchange goes back to its place.
    /// `None` if another request is waiting in it, which will go on with this one's lane.
    pub(crate) fn close(self, py: Python<'_>, place: &mut Exchange) -> Option<Kit> {
        self.made.close();
        if let Some(continuation) = &self.continuation {
            continuation.get().close(py);
        }
        self.lane.close(place).then_some(self)
    }

    /// Whether nobody else has anything of it.
    fn is_let_go(&self, py: Python<'_>) -> bool {
        let client = &self.client;
        has_only(py, &self.input, 1)
            && has_only(py, &self.early_hints, 1)
            && (has_only(py, client, 1) && !client.get().has_own(py))
            && self.continuation.as_ref().is_none_or(|continuation| has_only(py, continuation, 1))
            // Its method has it, too; and it has what the method returns.
            && has_only(py, &self.starter, 2)
            && has_only(py, self.starter.get().write(), 1)
            && function_has_only(py, &self.start_response, 1)
    }
}
