//! The environs of connections: what the next request of each has in common with its last one.
//!
//! ```text
//!   the head is the last one again ──▶ copy the template
//!   the same lines with other values or another target ──▶ change those in the template, copy it
//!   anything else ──▶ build the environ anew, keep a copy as the template
//! ```
//!
//! An application gets copies, and may do with them what it likes; the values are strings, which
//! nothing can change. A template is used for its own connection only. A slot is shared by the
//! connections whose numbers fall on it, and belongs to the one that came last; a template is kept from
//! a connection's second request on, so that connections of one request pay nothing. Not here: what
//! an environ consists of.

use meinheld_core::http::{Changes, Framing, Head};
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
    /// INVARIANT: the environ has the key of each header with its value, which no other header
    /// contributed to.
    keys: Vec<Py<PyString>>,
}

impl Templates {
    pub(crate) fn new() -> Templates {
        Templates { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// Takes out the template of a connection, to be put [back](Self::put_back) when it is of the
    /// connection's next request: if that fails midway it is gone.
    pub(crate) fn take(&mut self, number: u64) -> Option<Template> {
        let slot = &mut self.slots[index(number)];
        if slot.owner == Some(number) { slot.template.take() } else { None }
    }

    /// Puts back what was taken out for the same connection.
    pub(crate) fn put_back(&mut self, number: u64, template: Template) {
        self.slots[index(number)].template = Some(template);
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
        let is_known = slot.owner == Some(number);
        *slot = Slot { owner: Some(number), template: None };
        if is_known && is_plain(head) {
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
        let mut keys = Vec::with_capacity(head.headers().len());
        for (position, (name, _)) in head.headers().enumerate() {
            // Not by identity: the keys of names that are not kept are made anew each time.
            if head.headers().take(position).any(|(earlier, _)| have_one_key(earlier, name)) {
                return Ok(None);
            }
            keys.push(key_at(position, name).unbind());
        }
        Ok(Some(Template { environ: environ.copy()?.unbind(), keys }))
    }

    /// Puts in the values of headers that are not as they were; the environ. The head's names are as
    /// they were.
    pub(crate) fn follow<'py>(
        &self,
        py: Python<'py>,
        head: &Head<'_>,
        changes: Changes,
    ) -> PyResult<&Bound<'py, PyDict>> {
        let environ = self.environ.bind(py);
        for position in changes.values() {
            if let (Some(key), Some((_, value))) = (self.keys.get(position), head.field(position)) {
                environ.set_item(key.bind(py), latin_1(py, value))?;
            }
        }
        Ok(environ)
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
