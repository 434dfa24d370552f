//! The objects that an application gets with each request, used again when it has kept none of them.
//!
//! ```text
//!   take ──▶ open ──▶ the request ──▶ close ──▶ give ──▶ idle ──▶ take, for any other request
//!                                                          └────▶ left to whoever has one of its objects
//! ```
//!
//! INVARIANT: what an application can still reach never serves another request. A kit is taken only if
//! nobody but the kit has any of its objects, strongly or weakly, or its lane; that is looked at when it
//! is taken, since the collector shows an idle object, too, to who asks it. One that was left behind is
//! closed for good: its objects refuse, as they do after any request. Not here: what the objects do.

use std::cell::RefCell;
use std::rc::Rc;

use meinheld_core::Exchange;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use crate::continuation::{PyClient, PyContinuation};
use crate::input::Input;
use crate::known_heads::KnownHeads;
use crate::lane::Lane;
use crate::names::name;
use crate::references::{function_has_only, has_only};
use crate::start_response::{EarlyHints, StartResponse};

/// How many are idle at the most; each takes about a kilobyte. As many as wait at once, since they are
/// woken together, and to free the objects of each was a quarter of the instructions that it took.
const IDLE_MAX: usize = 16_384;

/// Who has a kit's lane, beside its continuation and `write`: itself, the input, the early hints, the
/// client and the starter. Others are continuations that the client has made.
const LANE_OWNERS: usize = 5;

/// The kits that wait for a request.
pub(crate) struct Kits {
    idle: RefCell<Vec<Kit>>,
    known_heads: Rc<RefCell<KnownHeads>>,
}

/// The objects of one request at a time. Boxed, since it is handed about.
pub(crate) struct Kit(Box<Parts>);

/// They share a lane.
struct Parts {
    lane: Lane,
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
        while let Some(kit) = self.pop() {
            if kit.is_let_go(py, 0) {
                kit.0.lane.set_equipped(false);
                return Ok(kit);
            }
        }
        Kit::new(py, Rc::clone(&self.known_heads))
    }

    /// Not borrowed while what was popped is dropped.
    fn pop(&self) -> Option<Kit> {
        self.idle.borrow_mut().pop()
    }

    /// Takes a closed kit back.
    pub(crate) fn give(&self, kit: Kit) {
        if self.idle.borrow().len() < IDLE_MAX {
            self.idle.borrow_mut().push(kit);
        }
    }
}

impl Kit {
    #[inline(never)]
    fn new(py: Python<'_>, known_heads: Rc<RefCell<KnownHeads>>) -> PyResult<Kit> {
        let lane = Lane::new();
        let starter = Bound::new(py, StartResponse::new(lane.clone(), known_heads))?;
        let start_response = starter.getattr(name!(py, start_response))?;
        Ok(Kit(Box::new(Parts {
            input: Py::new(py, Input::new(lane.clone()))?,
            early_hints: Py::new(py, EarlyHints::new(lane.clone()))?,
            client: Py::new(py, PyClient::new(lane.clone()))?,
            continuation: None,
            starter: starter.unbind(),
            start_response: start_response.cast_into::<PyCFunction>()?.unbind(),
            lane,
        })))
    }

    /// Begins a request, whose exchange is in `place`.
    pub(crate) fn open(&self, place: &mut Exchange) {
        self.0.lane.open(place);
    }

    /// Puts the objects of every request into its environ.
    pub(crate) fn equip(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        if self.0.lane.is_equipped() {
            return Ok(());
        }
        let (py, parts) = (environ.py(), &self.0);
        environ.set_item(name!(py, wsgi_input), &parts.input)?;
        environ.set_item(name!(py, wsgi_early_hints), &parts.early_hints)?;
        environ.set_item(name!(py, meinheld_client), &parts.client)
    }

    /// Puts the continuation of the running request into its environ.
    pub(crate) fn equip_continuation(&mut self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let (py, parts) = (environ.py(), &mut *self.0);
        if let Some(continuation) = &parts.continuation {
            continuation.get().renew(py)?;
            if parts.lane.is_equipped() {
                return Ok(());
            }
        } else {
            let continuation = PyContinuation::current(parts.lane.clone())?;
            parts.continuation = Some(Py::new(py, continuation)?);
        }
        environ.set_item(name!(py, meinheld_continuation), &parts.continuation)
    }

    /// The kit as one whose objects are in the environ that it goes with.
    pub(crate) fn equipped(self) -> Kit {
        self.0.lane.set_equipped(true);
        self
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.0.lane
    }

    pub(crate) fn start_response(&self) -> &Py<PyCFunction> {
        &self.0.start_response
    }

    /// Ends the request: its objects refuse from now on, and the exchange goes back to its place.
    /// `None` if another request is waiting in it, which will go on with this one's lane.
    pub(crate) fn close(self, py: Python<'_>, place: &mut Exchange) -> Option<Kit> {
        let parts = &self.0;
        for continuation in parts.lane.take_made() {
            continuation.get().close(py);
        }
        if let Some(continuation) = &parts.continuation {
            continuation.get().close(py);
        }
        parts.input.get().forget();
        parts.lane.close(place).then_some(self)
    }

    /// Whether nobody else has anything of it, but for as many environs of the server's own.
    pub(crate) fn is_let_go(&self, py: Python<'_>, environs: isize) -> bool {
        let (parts, owners) = (&self.0, 1 + environs);
        let (client, starter) = (&parts.client, &parts.starter);
        let write = starter.get().write();
        let made = [parts.continuation.is_some(), write.is_some()];
        let sharers = LANE_OWNERS + made.into_iter().map(usize::from).sum::<usize>();
        parts.lane.owners() == sharers
            && has_only(py, &parts.input, owners)
            && has_only(py, &parts.early_hints, owners)
            && (has_only(py, client, owners) && !client.get().has_own(py))
            && parts.continuation.as_ref().is_none_or(|it| has_only(py, it, owners))
            // Its method has it, too; and it has what the method returns.
            && has_only(py, starter, 2)
            && write.is_none_or(|it| has_only(py, it, 1))
            && function_has_only(py, &parts.start_response, 1)
    }
}
