//! The environs of connections: what the next request of each has in common with its last one.
//!
//! ```text
//!   the head is the last one again ──▶ lend the template, or copy it
//!   the same lines with other values or another target ──▶ change those in the template first
//!   anything else ──▶ build the environ anew, keep a copy as the template
//! ```
//!
//! An application may do with its environ what it likes. Most do not touch it: so the template itself
//! is lent, together with the kit whose objects it has. If it is found changed at the next request, or
//! somebody else has it still, it is left to the application, and for some time everybody gets copies.
//! The values are strings, which nothing can change. A template is used for its own connection only. A
//! slot is shared by the connections whose numbers fall on it, and belongs to the one that came last; a
//! template is kept from a connection's second request on, so that connections of one request pay
//! nothing. Not here: what an environ consists of.

use meinheld_core::http::{Changes, Framing, Head};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::environ::have_one_key;
use crate::kit::Kit;
use crate::references::{DICTS_HAVE_VERSIONS, dict_version, has_only};
use crate::slots::{SLOTS, slot_of};
use crate::text::latin_1;

/// How many headers a request has at the most whose template is kept, and how long they are in all.
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 2 * 1024;

/// How many requests get copies when a template that was lent has been lost.
const COPIES_AFTER_LOSS: u32 = 100;

/// The templates of some connections.
pub(crate) struct Templates {
    slots: Vec<Slot>,
    /// How many requests are to get copies.
    copies_due: u32,
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
    lent: Option<Lent>,
}

/// What a template is that an application has had, or has.
struct Lent {
    /// The environ's version; it differs once the environ has been changed.
    version: u64,
    /// The kit whose objects it has, unless the request has that.
    kit: Option<Kit>,
}

/// A template that an application has as its environ.
pub(crate) struct Loan {
    number: u64,
    template: Template,
}

impl Templates {
    pub(crate) fn new() -> Templates {
        Templates { slots: (0..SLOTS).map(|_| Slot::default()).collect(), copies_due: 0 }
    }

    /// Takes out the template of a connection, to be put [back](Self::put_back) when it is of the
    /// connection's next request: if that fails midway it is gone.
    pub(crate) fn take(&mut self, number: u64) -> Option<Template> {
        let slot = &mut self.slots[slot_of(number)];
        if slot.owner == Some(number) { slot.template.take() } else { None }
    }

    /// Puts back what was taken out for the same connection; what has no place any more is to be dropped
    /// unborrowed.
    #[must_use]
    pub(crate) fn put_back(&mut self, number: u64, template: Template) -> Option<Template> {
        let slot = &mut self.slots[slot_of(number)];
        if slot.owner == Some(number) { slot.template.replace(template) } else { Some(template) }
    }

    /// Whether a template is to be lent, or copied.
    pub(crate) fn may_lend(&mut self, template: &Template) -> bool {
        let may = DICTS_HAVE_VERSIONS && (template.lent.is_some() || self.copies_due == 0);
        self.copies_due = self.copies_due.saturating_sub(1);
        may
    }

    /// Notes that a template that was lent has been lost.
    pub(crate) fn note_loss(&mut self) {
        self.copies_due = COPIES_AFTER_LOSS;
    }

    /// Keeps a copy of an environ that was built anew for this head.
    pub(crate) fn keep<'py>(
        &mut self,
        number: u64,
        environ: &Bound<'py, PyDict>,
        head: &Head<'_>,
        key_at: impl Fn(usize, &str) -> Bound<'py, PyString>,
    ) -> PyResult<()> {
        let slot = &mut self.slots[slot_of(number)];
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
        Ok(Some(Template { environ: environ.copy()?.unbind(), keys, lent: None }))
    }

    /// Whether nobody else has it, and nobody has changed it since it was lent.
    pub(crate) fn is_as_it_was(&self, py: Python<'_>) -> bool {
        self.lent.as_ref().is_none_or(|lent| {
            has_only(py, &self.environ, 1) && dict_version(self.environ.bind(py)) == lent.version
        })
    }

    /// Lends it: as the environ of a request, which is to be [given out](Loan::give_out) when it is
    /// complete.
    pub(crate) fn lend(self, number: u64) -> Loan {
        Loan { number, template: self }
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

impl Loan {
    /// The connection's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The kit whose objects the environ has already, if they can be used again.
    pub(crate) fn kit(&mut self, py: Python<'_>) -> Option<Kit> {
        let kit = self.template.lent.take()?.kit?;
        kit.is_let_go(py, 1).then_some(kit)
    }

    /// Notes what the environ is when the application gets it.
    pub(crate) fn give_out(&mut self, py: Python<'_>) {
        let version = dict_version(self.template.environ.bind(py));
        self.template.lent = Some(Lent { version, kit: None });
    }

    /// The template once the application has let go of it as it was, with the kit whose objects it has.
    ///
    /// # Errors
    /// The kit, if it has not.
    pub(crate) fn take_back(
        mut self,
        py: Python<'_>,
        kit: Option<Kit>,
    ) -> Result<Template, Option<Kit>> {
        if !self.template.is_as_it_was(py) {
            return Err(kit);
        }
        // An environ that was never complete was not given out.
        let Some(lent) = &mut self.template.lent else { return Err(kit) };
        lent.kit = kit.map(Kit::equipped);
        Ok(self.template)
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
