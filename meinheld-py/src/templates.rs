//! The environs of connections: what the next request of each has in common with its last one.
//!
//! ```text
//!   the head is the last one again ──▶ copy the template
//!   the same header names, other values or another target ──▶ change those in the template, copy it
//!   anything else ──▶ build the environ anew, keep a copy as the template
//! ```
//!
//! An application gets copies, and may do with them what it likes; the values are strings, which
//! nothing can change. A template is used for its own connection only. A slot is shared by the
//! connections whose numbers fall on it, and belongs to the one that came last; a template is kept from
//! a connection's second request on, so that connections of one request pay nothing. Not here: what
//! an environ consists of.

use meinheld_core::http::{Framing, Head};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::environ::have_one_key;
use crate::text::latin_1;

/// How many connections are remembered.
const SLOTS: usize = 512;

/// How many headers a request has at the most whose template is kept, and how long they are in all.
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 2 * 1024;

/// The templates of some connections.
pub(crate) struct Templates {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    owner: Option<u64>,
    template: Option<Template>,
}

/// The environ of a connection's last request, as it was before the application had it.
pub(crate) struct Template {
    environ: Py<PyDict>,
    method: Box<str>,
    target: Vec<u8>,
    /// INVARIANT: the environ has these keys with these values, which no other header contributed to.
    headers: Vec<Header>,
}

struct Header {
    key: Py<PyString>,
    value: Vec<u8>,
}

impl Templates {
    pub(crate) fn new() -> Templates {
        Templates { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// The template of a connection whose head is the last one again.
    pub(crate) fn known<'py>(&self, py: Python<'py>, number: u64) -> Option<Bound<'py, PyDict>> {
        let slot = &self.slots[index(number)];
        let template = slot.template.as_ref().filter(|_| slot.owner == Some(number));
        template.map(|template| template.environ.bind(py).clone())
    }

    /// The template of a connection whose head has the same method, version and header names as the
    /// last. For any other head it is forgotten.
    pub(crate) fn changing<'py>(
        &mut self,
        number: u64,
        head: &Head<'_>,
        key_at: impl Fn(usize, &str) -> Bound<'py, PyString>,
    ) -> Option<&mut Template> {
        let slot = &mut self.slots[index(number)];
        if slot.owner != Some(number) {
            return None;
        }
        let same = slot.template.as_ref().is_some_and(|template| template.has(head, key_at));
        if !same {
            slot.template = None;
            return None;
        }
        // Nobody's until it has been changed: what ended halfway, without memory, is not to be copied.
        slot.owner = None;
        slot.template.as_mut()
    }

    /// What [`changing`](Self::changing) gave follows the head now.
    pub(crate) fn changed(&mut self, number: u64) {
        self.slots[index(number)].owner = Some(number);
    }

    /// Keeps a copy of an environ that was built anew for this head.
    pub(crate) fn keep<'py>(
        &mut self,
        number: u64,
        environ: &Bound<'py, PyDict>,
        head: &Head<'_>,
        key_at: impl Fn(usize, &str) -> Bound<'py, PyString>,
    ) -> PyResult<()> {
        let slot = &mut self.slots[index(number)];
        if slot.owner != Some(number) {
            *slot = Slot { owner: Some(number), template: None };
        } else if is_plain(head) {
            slot.template = Template::of(environ, head, key_at)?;
        }
        Ok(())
    }
}

impl Template {
    /// `None` if several headers have one key.
    fn of<'py>(
        environ: &Bound<'py, PyDict>,
        head: &Head<'_>,
        key_at: impl Fn(usize, &str) -> Bound<'py, PyString>,
    ) -> PyResult<Option<Template>> {
        let mut headers: Vec<Header> = Vec::with_capacity(head.headers().len());
        for (position, (name, value)) in head.headers().enumerate() {
            let key = key_at(position, name);
            // Not by identity: the keys of names that are not kept are made anew each time.
            if head.headers().take(position).any(|(earlier, _)| have_one_key(earlier, name)) {
                return Ok(None);
            }
            headers.push(Header { key: key.unbind(), value: value.to_vec() });
        }
        let environ = environ.copy()?.unbind();
        let (method, target) = (head.method().into(), head.target().raw().to_vec());
        Ok(Some(Template { environ, method, target, headers }))
    }

    /// Whether the head has the same keys in the same order. Two objects may be one key whose name is
    /// not kept, and then the environ is built anew; one object is one key always.
    fn has<'py>(
        &self,
        head: &Head<'_>,
        key_at: impl Fn(usize, &str) -> Bound<'py, PyString>,
    ) -> bool {
        is_plain(head)
            && head.method() == &*self.method
            && head.headers().len() == self.headers.len()
            && head
                .headers()
                .enumerate()
                .zip(&self.headers)
                .all(|((position, (name, _)), known)| known.key.is(key_at(position, name)))
    }

    /// Puts the values in that are not as they were; the environ.
    pub(crate) fn follow<'py>(
        &mut self,
        py: Python<'py>,
        head: &Head<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.environ.bind(py).clone();
        for (known, (_, value)) in self.headers.iter_mut().zip(head.headers()) {
            if known.value != value {
                environ.set_item(known.key.bind(py), latin_1(py, value))?;
                known.value.clear();
                known.value.extend_from_slice(value);
            }
        }
        Ok(environ)
    }

    /// Whether what follows from the target has to be put in, too.
    pub(crate) fn target_differs(&self, head: &Head<'_>) -> bool {
        self.target != head.target().raw()
    }

    /// It has been.
    pub(crate) fn note_target(&mut self, head: &Head<'_>) {
        self.target.clear();
        self.target.extend_from_slice(head.target().raw());
    }
}

/// Whether the environ follows from the head alone, each header standing for itself, and is small.
fn is_plain(head: &Head<'_>) -> bool {
    head.framing() != Framing::Chunked
        && head.target().authority().is_none()
        && head.version() == meinheld_core::http::Version::Http11
        && head.headers().len() <= HEADERS_MAX
        && head.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + head.target().raw().len()
            <= HEADER_BYTES_MAX
}

/// The lower half is small, and used again.
fn index(number: u64) -> usize {
    let low = u32::try_from(number & 0xffff_ffff).expect("half of 64 bits");
    low as usize % SLOTS
}
