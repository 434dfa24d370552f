//! The environ of a request. PEP 3333, "environ Variables".
//!
//! What is the same for every request is copied from a template, and what is the same for the requests
//! of a connection from one of its own (see templates.rs); the keys of common headers are made once
//! and kept, and requests that are alike share strings.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use meinheld_core::http::{Changes, Framing, Head, TargetForm, Version, percent_decode_path};
use meinheld_core::{Address, ConnectionInfo};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::file_wrapper::FileWrapper;
use crate::kit::Kit;
use crate::names::name;
use crate::templates::{Loan, Template, Templates};
use crate::text::{self, latin_1};

/// How many header names are kept, and how long one is at the most; more would let clients fill the
/// memory.
const NAMES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 128;

/// How many headers of a request are expected where the last one had them.
const POSITIONS_MAX: usize = 32;

/// A value up to this many bytes is shared by the requests that have it, as long as none has another.
const VALUE_BYTES_MAX: usize = 1024;

/// What every environ has of its own. The template has it empty, so that its copies have the room.
const OWN_KEYS: [&str; 11] = [
    "REQUEST_METHOD",
    "PATH_INFO",
    "RAW_URI",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.input",
    "wsgi.early_hints",
    "meinheld.client",
];

/// Builds environs.
pub struct Environs {
    template: Py<PyDict>,
    /// The environ key of each header name that was seen, as it was sent.
    keys: RefCell<HashMap<Box<str>, Py<PyString>>>,
    /// The header that was last seen in each position: clients, and the proxies before them, send the
    /// same headers in the same order again and again.
    positions: RefCell<Vec<Position>>,
    decoded: RefCell<Vec<u8>>,
    path: RefCell<Recent>,
    templates: RefCell<Templates>,
    peer: Shown<IpAddr>,
    local: Shown<IpAddr>,
    local_port: Shown<u16>,
}

/// A header's name, its key, and the value that it had.
struct Position {
    name: Box<str>,
    key: Py<PyString>,
    value: Recent,
}

/// A text that was made, and the bytes that it was made of. Requests that wait with the same text share
/// it: a string cannot be changed.
#[derive(Default)]
struct Recent {
    bytes: Vec<u8>,
    text: Option<Py<PyString>>,
}

/// What is shown of an address, and what was shown last.
struct Shown<K> {
    last: RefCell<Option<(K, Py<PyString>)>>,
}

impl Environs {
    /// Keeps nothing yet.
    ///
    /// # Errors
    ///
    /// What Python raises while the first template is made.
    pub fn new(py: Python<'_>) -> PyResult<Environs> {
        let template = PyDict::new(py);
        for key in OWN_KEYS {
            template.set_item(text::interned(py, key)?, "")?;
        }
        template.set_item(name!(py, script_name), "")?;
        template.set_item(name!(py, query_string), "")?;
        template.set_item("SERVER_SOFTWARE", meinheld_core::http::SERVER_NAME)?;
        template.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        template.set_item("wsgi.url_scheme", "http")?;
        template.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
        template.set_item("wsgi.multithread", true)?;
        template.set_item("wsgi.multiprocess", false)?;
        template.set_item("wsgi.run_once", false)?;
        template.set_item("wsgi.input_terminated", true)?;
        template.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
        Ok(Environs {
            template: template.unbind(),
            keys: RefCell::default(),
            positions: RefCell::default(),
            decoded: RefCell::default(),
            path: RefCell::default(),
            templates: RefCell::new(Templates::new()),
            peer: Shown::default(),
            local: Shown::default(),
            local_port: Shown::default(),
        })
    }

    /// The environ of one request, but for what waits for its client: `wsgi.input` and the like.
    ///
    /// # Errors
    ///
    /// What Python raises, which is `MemoryError` alone.
    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Loan>)> {
        let template = self.templates.borrow_mut().take(connection.number);
        let template = template.filter(|template| template.is_as_it_was(py));
        // RFC 9112 section 3.2.2: an authority takes the place of the Host header.
        match (template, connection.changes) {
            (Some(template), Some(changes)) if head.target().authority().is_none() => {
                self.build_changed(py, head, connection.number, template, changes)
            }
            _ => Ok((self.build_new(py, head, connection)?, None)),
        }
    }

    /// Builds an environ for nobody, and takes it back; for benchmarks.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn build_for_nobody(
        &self,
        py: Python<'_>,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> PyResult<()> {
        let (environ, loan) = self.build(py, head, connection)?;
        if let Some(mut loan) = loan {
            loan.give_out(py);
            drop(environ);
            self.take_back(py, loan, None);
        }
        Ok(())
    }

    /// Takes a template back after the request. The kit, if the template has not its objects.
    pub(crate) fn take_back(&self, py: Python<'_>, loan: Loan, kit: Option<Kit>) -> Option<Kit> {
        let number = loan.number();
        match loan.take_back(py, kit) {
            Ok(template) => {
                let homeless = self.templates.borrow_mut().put_back(number, template);
                drop(homeless);
                None
            }
            Err(kit) => {
                self.templates.borrow_mut().note_loss();
                kit
            }
        }
    }

    /// The environ of a request that differs from the last one of its connection in the target, or in
    /// the values of headers, or in nothing: the template follows, and is lent or copied.
    fn build_changed<'py>(
        &self,
        py: Python<'py>,
        head: &Head<'_>,
        number: u64,
        template: Template,
        changes: Changes,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Loan>)> {
        let followed = template.follow(py, head, changes)?;
        if changes.target() {
            self.set_target(followed, head)?;
        }
        if self.templates.borrow_mut().may_lend(&template) {
            return Ok((followed.clone(), Some(template.lend(number))));
        }
        let environ = followed.copy()?;
        let homeless = self.templates.borrow_mut().put_back(number, template);
        drop(homeless);
        Ok((environ, None))
    }

    fn build_new<'py>(
        &self,
        py: Python<'py>,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template.bind(py).copy()?;
        self.set_request_line(&environ, head)?;
        self.set_addresses(&environ, connection)?;
        for (position, (name, value)) in head.headers().enumerate() {
            let (key, value) = self.header_at(py, position, name, value);
            add_header(&environ, &key, value)?;
        }
        if head.framing() == Framing::Chunked {
            // The chunks are gone: what the application reads has a length (RFC 9112 section 7.1.3).
            environ.del_item(name!(py, http_transfer_encoding))?;
            let length = connection.body_bytes.unwrap_or(0).to_string();
            environ.set_item(name!(py, content_length), length)?;
        }
        if let Some(authority) = head.target().authority() {
            // RFC 9112 section 3.2.2: the authority of an absolute target wins.
            environ.set_item(name!(py, http_host), latin_1(py, authority))?;
        }
        let key_at = |position, name: &str| self.key_at(py, position, name);
        self.templates.borrow_mut().keep(connection.number, &environ, head, key_at)?;
        Ok(environ)
    }

    fn set_request_line(&self, environ: &Bound<'_, PyDict>, head: &Head<'_>) -> PyResult<()> {
        let py = environ.py();
        environ.set_item(name!(py, request_method), method(py, head.method()))?;
        environ.set_item(name!(py, server_protocol), protocol(py, head.version()))?;
        self.set_target(environ, head)
    }

    fn set_target(&self, environ: &Bound<'_, PyDict>, head: &Head<'_>) -> PyResult<()> {
        let py = environ.py();
        let target = head.target();
        let mut path = self.decoded.borrow_mut();
        path.clear();
        if target.form() != TargetForm::Asterisk {
            // PEP 3333: PATH_INFO is empty, or begins with a slash. RAW_URI has the asterisk.
            percent_decode_path(target.path(), &mut path);
        }
        let path_info = self.path.borrow_mut().text(py, &path);
        environ.set_item(name!(py, path_info), &path_info)?;
        environ.set_item(name!(py, query_string), latin_1(py, target.query()))?;
        let is_plain = target.raw() == path.as_slice();
        let raw = if is_plain { path_info } else { latin_1(py, target.raw()) };
        environ.set_item(name!(py, raw_uri), raw)
    }

    /// The key of a header, which most often is what it was the last time in this position.
    fn key_at<'py>(&self, py: Python<'py>, position: usize, name: &str) -> Bound<'py, PyString> {
        if let Some(last) = self.positions.borrow().get(position)
            && *last.name == *name
        {
            return last.key.bind(py).clone();
        }
        let key = self.key(py, name);
        let mut positions = self.positions.borrow_mut();
        let (name, value) = (name.into(), Recent::default());
        let seen = Position { name, key: key.clone().unbind(), value };
        if let Some(last) = positions.get_mut(position) {
            *last = seen;
        } else if position == positions.len() && position < POSITIONS_MAX {
            positions.push(seen);
        }
        key
    }

    /// The key and the value of a header, which is shared with the last one in this position if they
    /// are the same.
    fn header_at<'py>(
        &self,
        py: Python<'py>,
        position: usize,
        name: &str,
        value: &[u8],
    ) -> (Bound<'py, PyString>, Bound<'py, PyString>) {
        let key = self.key_at(py, position, name);
        let value = match self.positions.borrow_mut().get_mut(position) {
            Some(position) if value.len() <= VALUE_BYTES_MAX => position.value.text(py, value),
            _ => latin_1(py, value),
        };
        (key, value)
    }

    /// `HTTP_` and the name in capitals with underscores; two names have keys of their own.
    fn key<'py>(&self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        if let Some(key) = self.keys.borrow().get(name) {
            return key.bind(py).clone();
        }
        let upper = name.to_ascii_uppercase().replace('-', "_");
        let key = match upper.as_str() {
            "CONTENT_TYPE" | "CONTENT_LENGTH" => upper,
            _ => format!("HTTP_{upper}"),
        };
        let mut keys = self.keys.borrow_mut();
        if keys.len() >= NAMES_MAX || name.len() > NAME_BYTES_MAX {
            // Not interned: CPython 3.12 never forgets what is.
            return PyString::new(py, &key);
        }
        let key = PyString::intern(py, &key);
        keys.insert(name.into(), key.clone().unbind());
        key
    }

    fn set_addresses(
        &self,
        environ: &Bound<'_, PyDict>,
        connection: &ConnectionInfo<'_>,
    ) -> PyResult<()> {
        let py = environ.py();
        match connection.peer {
            Address::Ip(peer) => {
                environ.set_item(name!(py, remote_addr), self.peer.ip(py, peer.ip()))?;
                environ.set_item(name!(py, remote_port), decimal(py, peer.port()))?;
            }
            // The template's are empty.
            Address::Unix(_) => {}
        }
        match connection.local {
            Address::Ip(local) => {
                environ.set_item(name!(py, server_name), self.local.ip(py, local.ip()))?;
                let port = self.local_port.text(py, local.port(), |port| decimal(py, *port));
                environ.set_item(name!(py, server_port), port)
            }
            // PEP 3333: neither may be empty.
            Address::Unix(_) => {
                environ.set_item(name!(py, server_name), name!(py, localhost))?;
                environ.set_item(name!(py, server_port), name!(py, port_80))
            }
        }
    }
}

impl<K: PartialEq> Shown<K> {
    fn text<'py>(
        &self,
        py: Python<'py>,
        shown: K,
        make: impl FnOnce(&K) -> Bound<'py, PyString>,
    ) -> Bound<'py, PyString> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, text)) if *known == shown => text.bind(py).clone(),
            _ => {
                let text = make(&shown);
                *last = Some((shown, text.clone().unbind()));
                text
            }
        }
    }
}

impl Shown<IpAddr> {
    fn ip<'py>(&self, py: Python<'py>, ip: IpAddr) -> Bound<'py, PyString> {
        self.text(py, ip, |ip| PyString::new(py, &ip.to_string()))
    }
}

impl<K> Default for Shown<K> {
    fn default() -> Shown<K> {
        Shown { last: RefCell::new(None) }
    }
}

impl Recent {
    fn text<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
        if let Some(text) = &self.text
            && self.bytes == bytes
        {
            return text.bind(py).clone();
        }
        let text = latin_1(py, bytes);
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.text = Some(text.clone().unbind());
        text
    }
}

/// Whether the environ has one key for these two header names, as [`Environs::key`] makes it.
pub(crate) fn have_one_key(name: &str, other: &str) -> bool {
    let in_key = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
    name.len() == other.len() && name.bytes().map(in_key).eq(other.bytes().map(in_key))
}

fn add_header<'py>(
    environ: &Bound<'py, PyDict>,
    key: &Bound<'_, PyString>,
    mut value: Bound<'py, PyString>,
) -> PyResult<()> {
    let py = environ.py();
    if let Some(first) = environ.get_item(key)? {
        // RFC 9110 section 5.3; RFC 6265 section 5.4 for Cookie.
        let separator = if key == "HTTP_COOKIE" { "; " } else { "," };
        value = PyString::new(py, &format!("{first}{separator}{value}"));
    }
    environ.set_item(key, value)
}

/// A port in decimal digits.
fn decimal(py: Python<'_>, mut port: u16) -> Bound<'_, PyString> {
    let mut digits = [b'0'; 5];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += u8::try_from(port % 10).expect("a remainder of ten is below ten");
        port /= 10;
        if port == 0 {
            return latin_1(py, &digits[start..]);
        }
    }
}

fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
    match method {
        "GET" => name!(py, method_get).clone(),
        "POST" => name!(py, method_post).clone(),
        "HEAD" => name!(py, method_head).clone(),
        other => PyString::new(py, other),
    }
}

fn protocol(py: Python<'_>, version: Version) -> &Bound<'_, PyString> {
    match version {
        Version::Http10 => name!(py, http_1_0),
        Version::Http11 => name!(py, http_1_1),
    }
}
