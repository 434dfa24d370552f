//! The environ of a request. PEP 3333, "environ Variables".
//!
//! What is the same for every request is copied from a template; the keys of common headers are
//! made once and kept.

use std::cell::RefCell;
use std::collections::HashMap;

use meinheld_core::http::{Framing, Head, TargetForm, Version, percent_decode_path};
use meinheld_core::{Address, ConnectionInfo};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::file_wrapper::FileWrapper;

/// How many header names are kept; more would let clients fill the memory.
const NAMES_MAX: usize = 512;

/// Builds environs.
pub(crate) struct Environs {
    template: Py<PyDict>,
    /// The environ key of each header name that was seen, as it was sent.
    keys: RefCell<HashMap<Box<str>, Py<PyString>>>,
    path: RefCell<Vec<u8>>,
}

impl Environs {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Environs> {
        let template = PyDict::new(py);
        template.set_item("SCRIPT_NAME", "")?;
        template.set_item("QUERY_STRING", "")?;
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
            path: RefCell::default(),
        })
    }

    /// The environ of one request, but for what waits for its client: `wsgi.input` and the like.
    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template.bind(py).copy()?;
        self.set_request_line(&environ, head)?;
        set_addresses(&environ, connection)?;
        for (name, value) in head.headers() {
            self.add_header(&environ, name, value)?;
        }
        if head.framing() == Framing::Chunked {
            // The chunks are gone: what the application reads has a length (RFC 9112 section 7.1.3).
            environ.del_item(intern!(py, "HTTP_TRANSFER_ENCODING"))?;
            let length = connection.body_bytes.unwrap_or(0).to_string();
            environ.set_item(intern!(py, "CONTENT_LENGTH"), length)?;
        }
        if let Some(authority) = head.target().authority() {
            // RFC 9112 section 3.2.2: the authority of an absolute target wins.
            environ.set_item(intern!(py, "HTTP_HOST"), latin_1(py, authority))?;
        }
        Ok(environ)
    }

    fn set_request_line(&self, environ: &Bound<'_, PyDict>, head: &Head<'_>) -> PyResult<()> {
        let py = environ.py();
        let target = head.target();
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head.method()))?;
        let mut path = self.path.borrow_mut();
        path.clear();
        if target.form() != TargetForm::Asterisk {
            // PEP 3333: PATH_INFO is empty, or begins with a slash. RAW_URI has the asterisk.
            percent_decode_path(target.path(), &mut path);
        }
        environ.set_item(intern!(py, "PATH_INFO"), latin_1(py, &path))?;
        if !target.query().is_empty() {
            environ.set_item(intern!(py, "QUERY_STRING"), latin_1(py, target.query()))?;
        }
        environ.set_item(intern!(py, "RAW_URI"), latin_1(py, target.raw()))?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol(py, head.version()))
    }

    fn add_header(&self, environ: &Bound<'_, PyDict>, name: &str, value: &[u8]) -> PyResult<()> {
        let py = environ.py();
        let key = self.key(py, name);
        let mut value = latin_1(py, value);
        if let Some(first) = environ.get_item(&key)? {
            // RFC 9110 section 5.3; RFC 6265 section 5.4 for Cookie.
            let separator = if key == "HTTP_COOKIE" { "; " } else { "," };
            value = PyString::new(py, &format!("{first}{separator}{value}"));
        }
        environ.set_item(key, value)
    }

    /// `HTTP_` and the name in capitals with underscores; two names have keys of their own.
    fn key<'py>(&self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        if let Some(key) = self.keys.borrow().get(name) {
            return key.bind(py).clone();
        }
        let upper = name.to_ascii_uppercase().replace('-', "_");
        let key = match upper.as_str() {
            "CONTENT_TYPE" | "CONTENT_LENGTH" => PyString::intern(py, &upper),
            _ => PyString::intern(py, &format!("HTTP_{upper}")),
        };
        let mut keys = self.keys.borrow_mut();
        if keys.len() < NAMES_MAX {
            keys.insert(name.into(), key.clone().unbind());
        }
        key
    }
}

fn set_addresses(environ: &Bound<'_, PyDict>, connection: &ConnectionInfo<'_>) -> PyResult<()> {
    let py = environ.py();
    match connection.peer {
        Address::Ip(peer) => {
            environ.set_item(intern!(py, "REMOTE_ADDR"), peer.ip().to_string())?;
            environ.set_item(intern!(py, "REMOTE_PORT"), peer.port().to_string())?;
        }
        Address::Unix(_) => {
            environ.set_item(intern!(py, "REMOTE_ADDR"), "")?;
            environ.set_item(intern!(py, "REMOTE_PORT"), "")?;
        }
    }
    match connection.local {
        Address::Ip(local) => {
            environ.set_item(intern!(py, "SERVER_NAME"), local.ip().to_string())?;
            environ.set_item(intern!(py, "SERVER_PORT"), local.port().to_string())
        }
        // PEP 3333: neither may be empty.
        Address::Unix(_) => {
            environ.set_item(intern!(py, "SERVER_NAME"), "localhost")?;
            environ.set_item(intern!(py, "SERVER_PORT"), "80")
        }
    }
}

fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
    match method {
        "GET" => intern!(py, "GET").clone(),
        "POST" => intern!(py, "POST").clone(),
        "HEAD" => intern!(py, "HEAD").clone(),
        other => PyString::new(py, other),
    }
}

fn protocol(py: Python<'_>, version: Version) -> &Bound<'_, PyString> {
    match version {
        Version::Http10 => intern!(py, "HTTP/1.0"),
        Version::Http11 => intern!(py, "HTTP/1.1"),
    }
}

/// Bytes as a native string whose characters are those bytes (PEP 3333, "Unicode Issues").
pub(crate) fn latin_1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}
