//! What an application sends with beside its return value: `start_response`, the `write` that it
//! gives, and `wsgi.early_hints`. PEP 3333, "The `start_response()` Callable".

use std::cell::RefCell;
use std::rc::Rc;

use meinheld_core::http::parse_status;
use meinheld_core::{BeginError, Exchange};
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::errors::from_io;
use crate::known_heads::KnownHeads;
use crate::lane::{Lane, SharedLane, lane_of};
use crate::raising::Saying;
use crate::thread_bound::ThreadBound;

/// What has `start_response` for a method. The application is given that, as a bound method, since to
/// call one takes no tuple of its arguments.
#[pyclass(frozen, module = "meinheld.server", name = "StartResponse")]
pub(crate) struct StartResponse {
    lane: SharedLane,
    known_heads: ThreadBound<Rc<RefCell<KnownHeads>>>,
    /// What each call returns.
    write: Py<Write>,
}

/// The callable that the application gets back, for code that cannot return its body.
#[pyclass(frozen, module = "meinheld.server", name = "Write")]
pub(crate) struct Write {
    lane: SharedLane,
}

/// `wsgi.early_hints`: sends a 103 with the headers that it is given, before the response.
#[pyclass(frozen, module = "meinheld.server", name = "EarlyHints")]
pub(crate) struct EarlyHints {
    lane: SharedLane,
}

impl EarlyHints {
    pub(crate) fn new(lane: Lane) -> EarlyHints {
        EarlyHints { lane: ThreadBound::new(lane) }
    }
}

impl StartResponse {
    pub(crate) fn new(
        py: Python<'_>,
        lane: Lane,
        known_heads: Rc<RefCell<KnownHeads>>,
    ) -> PyResult<StartResponse> {
        let write = Py::new(py, Write { lane: ThreadBound::new(lane.clone()) })?;
        let (lane, known_heads) = (ThreadBound::new(lane), ThreadBound::new(known_heads));
        Ok(StartResponse { lane, known_heads, write })
    }

    /// What each call returns.
    pub(crate) fn write(&self) -> &Py<Write> {
        &self.write
    }
}

#[pymethods]
impl StartResponse {
    /// Begins the response with a status ("200 OK") and headers (a list of (name, value) tuples); a
    /// second time only with `exc_info`. Returns a callable that sends a piece of the body.
    #[pyo3(signature = (status, headers, exc_info=None))]
    fn start_response(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<Write>> {
        let lane = lane_of(&self.lane)?;
        check_order(lane, exc_info)?;
        self.begin(lane, status, headers)?;
        lane.mark_started();
        Ok(self.write.clone_ref(py))
    }
}

impl StartResponse {
    fn begin(
        &self,
        lane: &Lane,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let known = self.known_heads.get();
        let recalled = known.and_then(|known| known.borrow().recall(status, headers));
        if let Some(builder) = recalled {
            return lane.work(|exchange| exchange.begin_with(builder))?.map_err(begin_error);
        }
        // What the application passes may be anything, and run code when it is read.
        let keep = known.filter(|known| known.borrow_mut().is_worth_keeping(status, headers));
        let text = text_bytes(status, "status")?;
        let pairs = header_pairs(headers)?;
        let fields = header_bytes(&pairs)?;
        lane.work(|exchange| begin(exchange, text.as_bytes(), &fields))??;
        if let (Some(keep), Some(builder)) = (keep, lane.work(|exchange| exchange.begun())?) {
            let replaced = keep.borrow_mut().keep(status, headers, builder);
            drop(replaced);
        }
        Ok(())
    }
}

/// A second call needs `exc_info`; once the head is out, even that is raised instead.
fn check_order(lane: &Lane, exc_info: Option<&Bound<'_, PyTuple>>) -> PyResult<()> {
    if let Some(exc_info) = exc_info {
        let sent = lane.work(|exchange| exchange.is_head_sent())?;
        return if sent { Err(raised(exc_info)?) } else { Ok(()) };
    }
    if lane.is_started() {
        let message = "start_response was called a second time without exc_info (PEP 3333)";
        return Err(PyAssertionError::saying(message));
    }
    Ok(())
}

#[pymethods]
impl Write {
    fn __call__(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (data, lane) = (body_bytes(data)?.as_bytes(), lane_of(&self.lane)?);
        if data.is_empty() {
            // PEP 3333: the head waits for the first byte of the body.
            return Ok(());
        }
        lane.wait(|exchange| exchange.write(data))?.map_err(from_io)
    }
}

#[pymethods]
impl EarlyHints {
    fn __call__(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let pairs = header_pairs(headers)?;
        let headers = header_bytes(&pairs)?;
        let fields = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        lane_of(&self.lane)?.wait(|exchange| exchange.early_hints(fields))?.map_err(from_io)
    }
}

/// The bytes of one piece of the body.
///
/// # Errors
/// `TypeError` for anything but bytes, which says what to do about it.
pub(crate) fn body_bytes<'a, 'py>(
    data: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyBytes>> {
    data.cast::<PyBytes>().map_err(|_| {
        let kind = data.get_type();
        let is_text = data.is_instance_of::<PyString>();
        let hint = if is_text { ": encode it, for example with .encode()" } else { "" };
        let name = kind.name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::saying(format!("a response body consists of bytes, not {name}{hint}"))
    })
}

/// The exception of an `exc_info` tuple, with its traceback.
fn raised(exc_info: &Bound<'_, PyTuple>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    Ok(PyErr::from_value(value))
}

fn begin(
    exchange: &mut Exchange,
    status: &[u8],
    headers: &[(TextBytes<'_>, TextBytes<'_>)],
) -> PyResult<()> {
    let (code, reason) =
        parse_status(status).map_err(|error| PyValueError::saying(error.to_string()))?;
    let fields = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    exchange.begin(code, reason, fields).map_err(begin_error)
}

fn begin_error(error: BeginError) -> PyErr {
    match error {
        BeginError::HeadSent => PyAssertionError::saying(
            "start_response was called after the head of the response had been sent",
        ),
        BeginError::Invalid(error) => PyValueError::saying(error.to_string()),
    }
}

/// Text of the wire: a str whose characters are bytes (PEP 3333, "Unicode Issues"), or bytes.
pub(crate) enum TextBytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl TextBytes<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            TextBytes::Borrowed(bytes) => bytes,
            TextBytes::Owned(bytes) => bytes,
        }
    }
}

/// A header as the application gave it.
type Pair<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

fn header_pairs<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<Pair<'py>>> {
    let mut pairs = Vec::with_capacity(headers.len().unwrap_or(0));
    for header in headers.try_iter().map_err(|_| not_headers(headers))? {
        let header = header?;
        let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let pair = pair.ok_or_else(|| not_headers(&header))?;
        pairs.push((pair.get_item(0)?, pair.get_item(1)?));
    }
    Ok(pairs)
}

fn header_bytes<'a>(pairs: &'a [Pair<'_>]) -> PyResult<Vec<(TextBytes<'a>, TextBytes<'a>)>> {
    let bytes = pairs.iter().map(|(name, value)| {
        let whose = || format!("the value of header {}", header_name(name));
        Ok((text_bytes(name, "a header name")?, text_bytes_of(value, whose)?))
    });
    bytes.collect()
}

fn not_headers(found: &Bound<'_, PyAny>) -> PyErr {
    let shown = found.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
    PyTypeError::saying(format!(
        "headers are a list of (name, value) tuples, and this is not one: {shown:.100}"
    ))
}

fn header_name(name: &Bound<'_, PyAny>) -> String {
    name.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string())
}

fn text_bytes<'a>(text: &'a Bound<'_, PyAny>, what: &str) -> PyResult<TextBytes<'a>> {
    text_bytes_of(text, || what.to_owned())
}

/// The bytes of a str or bytes.
///
/// # Errors
/// `TypeError` for another type, `ValueError` for a str with a character beyond latin-1.
pub(crate) fn text_bytes_of<'a>(
    text: &'a Bound<'_, PyAny>,
    what: impl Fn() -> String,
) -> PyResult<TextBytes<'a>> {
    if let Ok(bytes) = text.cast::<PyBytes>() {
        return Ok(TextBytes::Borrowed(bytes.as_bytes()));
    }
    let Ok(string) = text.cast::<PyString>() else {
        let kind = text.get_type().name()?.to_string();
        return Err(PyTypeError::saying(format!("{} must be str, not {kind}", what())));
    };
    let utf8 = string.to_str().map_err(|_| beyond_latin_1(string, &what()))?;
    if utf8.is_ascii() {
        return Ok(TextBytes::Borrowed(utf8.as_bytes()));
    }
    let bytes: Result<Vec<u8>, _> = utf8.chars().map(|c| u8::try_from(u32::from(c))).collect();
    Ok(TextBytes::Owned(bytes.map_err(|_| beyond_latin_1(string, &what()))?))
}

fn beyond_latin_1(text: &Bound<'_, PyString>, what: &str) -> PyErr {
    let shown = text.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
    PyValueError::saying(format!(
        "{what} has characters beyond latin-1, which HTTP cannot carry: {shown:.100}"
    ))
}
