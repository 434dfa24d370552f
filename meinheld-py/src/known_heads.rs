//! Responses whose status and headers are the very objects of an earlier one: most applications make
//! them of constants, and what was checked and encoded once need not be again.
//!
//! INVARIANT: a status is a str and a header a tuple of two of them, none of a subclass. None of these
//! can change, and all are kept alive here, so that the same object is the same text. Not here:
//! checking or encoding.

use std::rc::Rc;

use meinheld_core::http::ResponseBuilder;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

/// How many are kept.
const SLOTS: usize = 64;

/// How many headers a response has at the most that is kept.
const HEADERS_MAX: usize = 16;

/// The responses that are kept.
pub(crate) struct KnownHeads {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    known: Option<Known>,
    /// The addresses of what was seen here last and not kept: only what comes again is.
    seen: usize,
}

struct Known {
    status: Py<PyAny>,
    headers: Vec<Py<PyAny>>,
    builder: Rc<ResponseBuilder>,
}

impl KnownHeads {
    pub(crate) fn new() -> KnownHeads {
        KnownHeads { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// The response of these objects, if it is known.
    pub(crate) fn recall(
        &self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
    ) -> Option<Rc<ResponseBuilder>> {
        let headers = headers.cast_exact::<PyList>().ok()?;
        let known = self.slots[signature(status, headers) % SLOTS].known.as_ref()?;
        let same = known.status.is(status)
            && known.headers.len() == headers.len()
            && headers.iter().zip(&known.headers).all(|(header, known)| known.is(&header));
        same.then(|| Rc::clone(&known.builder))
    }

    /// Notes a response; tells whether it is worth keeping.
    #[inline(never)]
    pub(crate) fn is_worth_keeping(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
    ) -> bool {
        let Ok(headers) = headers.cast_exact::<PyList>() else { return false };
        let signature = signature(status, headers);
        let seen = std::mem::replace(&mut self.slots[signature % SLOTS].seen, signature);
        seen == signature && headers.len() <= HEADERS_MAX && is_constant(status, headers)
    }

    /// Keeps a response. What was kept in its place comes back, to be dropped unborrowed.
    #[must_use]
    pub(crate) fn keep(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        builder: Rc<ResponseBuilder>,
    ) -> Option<impl Sized + use<>> {
        let headers = headers.cast_exact::<PyList>().ok()?;
        let slot = &mut self.slots[signature(status, headers) % SLOTS];
        let status = status.clone().unbind();
        let headers = headers.iter().map(Bound::unbind).collect();
        slot.known.replace(Known { status, headers, builder })
    }
}

/// A number that the same objects have again.
fn signature(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyList>) -> usize {
    let first = headers.get_item(0).map_or(0, |header| header.as_ptr().addr());
    // Objects lie at multiples of sixteen.
    (status.as_ptr().addr() >> 4).wrapping_mul(31).wrapping_add(first >> 4)
}

/// Whether nothing of it can change.
fn is_constant(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyList>) -> bool {
    let is_text = |object: &Bound<'_, PyAny>| object.cast_exact::<PyString>().is_ok();
    is_text(status)
        && headers.iter().all(|header| {
            let pair = header.cast_exact::<PyTuple>();
            pair.is_ok_and(|pair| pair.len() == 2 && pair.iter().all(|part| is_text(&part)))
        })
}
