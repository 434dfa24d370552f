//! What an application sends with beside its return value: `start_response`, the `write` that it
//! gives, and `wsgi.early_hints`. PEP 3333, "The `start_response()` Callable".

use std::cell::{OnceCell, RefCell};
use std::ffi::CStr;
use std::fmt::Display;
use std::rc::Rc;

use meinheld_core::BeginError;
use meinheld_core::http::{ResponseBuilder, parse_status};
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple, PyTupleMethods};

use crate::errors::from_io;
use crate::fastcall::{Args, FastMethod, add_method};
use crate::known_heads::KnownHeads;
use crate::lane::{Lane, SharedLane, in_request, lane_of};
use crate::raising::{Saying, class_name, shown};
use crate::thread_bound::ThreadBound;

/// What has `start_response` for a method. The application is given that, as a bound method, since to
/// call one takes no tuple of its arguments.
#[pyclass(frozen, module = "meinheld.server", name = "StartResponse")]
pub(crate) struct StartResponse(ThreadBound<Sender>);

/// What it begins a response with.
struct Sender {
    lane: Lane,
    known_heads: Rc<RefCell<KnownHeads>>,
    /// What each call returns, from the first one on.
    write: OnceCell<Py<Write>>,
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
    pub(crate) fn new(lane: Lane, known_heads: Rc<RefCell<KnownHeads>>) -> StartResponse {
        StartResponse(ThreadBound::new(Sender { lane, known_heads, write: OnceCell::new() }))
    }

    /// What each call returns, if there was one.
    pub(crate) fn write(&self) -> Option<&Py<Write>> {
        self.0.get()?.write.get()
    }
}

/// `start_response` itself, called as `CPython` calls its own: what checks arguments for `PyO3` takes so
/// much of the stack that a request that was woken would need a second page of it.
struct Begin;

impl FastMethod<StartResponse> for Begin {
    const NAME: &CStr = c"start_response";
    const DOC: &CStr = c"start_response($self, status, headers, exc_info=None)\n--\n\n\
        Begins the response with a status (\"200 OK\") and headers (a list of (name, value) tuples); a\n\
        second time only with `exc_info`. Returns a callable that sends a piece of the body.";

    fn call(it: Borrowed<'_, '_, StartResponse>, args: &Args<'_, '_>) -> PyResult<Py<PyAny>> {
        let names = ["status", "headers", "exc_info"];
        let [status, headers, exc_info] = args.named("start_response", names)?;
        let (Some(status), Some(headers)) = (status, headers) else {
            return Err(missing(status, headers));
        };
        in_request(&it.get().0)?.start_response(
            it.py(),
            &status,
            &headers,
            exc_info.filter(|it| !it.is_none()),
        )
    }
}

#[cold]
#[inline(never)]
fn missing(
    status: Option<Borrowed<'_, '_, PyAny>>,
    headers: Option<Borrowed<'_, '_, PyAny>>,
) -> PyErr {
    PyTypeError::saying(match (status, headers) {
        (None, None) => {
            "start_response() missing 2 required positional arguments: 'status' and 'headers'"
        }
        (None, Some(_)) => "start_response() missing 1 required positional argument: 'status'",
        (Some(_), _) => "start_response() missing 1 required positional argument: 'headers'",
    })
}

/// Adds the methods that are no ordinary ones of `PyO3`'s.
pub(crate) fn add_methods(py: Python<'_>) -> PyResult<()> {
    add_method::<StartResponse, Begin>(py)
}

impl Sender {
    fn start_response(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<Borrowed<'_, '_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        check_order(&self.lane, exc_info)?;
        self.begin(status, headers)?;
        self.lane.mark_started();
        let write = match self.write.get() {
            Some(write) => write,
            None => self.make_write(py)?,
        };
        Ok(write.clone_ref(py).into_any())
    }

    #[inline(never)]
    fn make_write(&self, py: Python<'_>) -> PyResult<&Py<Write>> {
        let made = Py::new(py, Write { lane: ThreadBound::new(self.lane.clone()) })?;
        // The collector, which may have run any code, may have been here before.
        Ok(self.write.get_or_init(|| made))
    }

    fn begin(&self, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let (lane, known) = (&self.lane, &self.known_heads);
        let recalled = known.borrow().recall(status, headers);
        if let Some(builder) = recalled {
            return begin_with(lane, builder);
        }
        // What the application passes may be anything, and run code when it is read.
        let keep = known.borrow_mut().is_worth_keeping(status, headers);
        encode(lane, status, headers)?;
        if keep { keep_begun(known, lane, status, headers) } else { Ok(()) }
    }
}

// What follows is not inlined, so that no call has the frames of those before it below its own.

#[inline(never)]
fn begin_with(lane: &Lane, builder: Rc<ResponseBuilder>) -> PyResult<()> {
    lane.work(|exchange| exchange.begin_with(builder))?.map_err(begin_error)
}

/// Checks and encodes what the application has passed.
#[inline(never)]
fn encode(lane: &Lane, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let pairs = header_pairs(headers)?;
    let fields = header_bytes(&pairs)?;
    let mut builder = begun(status)?;
    let sole = Rc::get_mut(&mut builder).expect("nobody else has a new one");
    add_headers(sole, &fields)?;
    begin_with(lane, builder)
}

#[inline(never)]
fn keep_begun(
    keep: &RefCell<KnownHeads>,
    lane: &Lane,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if let Some(builder) = lane.work(|exchange| exchange.begun())? {
        let replaced = keep.borrow_mut().keep(status, headers, builder);
        drop(replaced);
    }
    Ok(())
}

/// A second call needs `exc_info`; once the head is out, even that is raised instead.
fn check_order(lane: &Lane, exc_info: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    if let Some(exc_info) = exc_info {
        return check_replacement(lane, exc_info);
    }
    if lane.is_started() { Err(second_call()) } else { Ok(()) }
}

#[cold]
#[inline(never)]
fn check_replacement(lane: &Lane, exc_info: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
    let exc_info = exc_info.cast::<PyTuple>().map_err(|_| not_exc_info(&exc_info))?;
    let sent = lane.work(|exchange| exchange.is_head_sent())?;
    if sent { Err(raised(&exc_info)?) } else { Ok(()) }
}

#[cold]
#[inline(never)]
fn second_call() -> PyErr {
    let message = "start_response was called a second time without exc_info (PEP 3333)";
    PyAssertionError::saying(message)
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
    data.cast::<PyBytes>().map_err(|_| not_bytes(data))
}

#[cold]
#[inline(never)]
fn not_bytes(found: &Bound<'_, PyAny>) -> PyErr {
    let is_text = found.is_instance_of::<PyString>();
    let hint = if is_text { ": encode it, for example with .encode()" } else { "" };
    let name = class_name(found);
    PyTypeError::saying(format!("a response body consists of bytes, not {name}{hint}"))
}

/// The exception of an `exc_info` tuple, with its traceback.
fn raised(exc_info: &Bound<'_, PyTuple>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    Ok(PyErr::from_value(value))
}

#[cold]
#[inline(never)]
fn not_exc_info(found: &Bound<'_, PyAny>) -> PyErr {
    let shown = shown(found);
    PyTypeError::saying(format!(
        "exc_info is the tuple that sys.exc_info() returns, and this is not one: {shown:.100}"
    ))
}

#[inline(never)]
fn begun(status: &Bound<'_, PyAny>) -> PyResult<Rc<ResponseBuilder>> {
    let status = text_bytes_of(status, || "status".to_owned())?;
    let (code, reason) = parse_status(status.as_bytes()).map_err(value_error)?;
    ResponseBuilder::begin(code, reason).map(Rc::new).map_err(value_error)
}

#[inline(never)]
fn add_headers(builder: &mut ResponseBuilder, fields: &[Field<'_>]) -> PyResult<()> {
    for (name, value) in fields {
        builder.header(name.as_bytes(), value.as_bytes()).map_err(value_error)?;
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn value_error(error: impl Display) -> PyErr {
    PyValueError::saying(error.to_string())
}

#[cold]
#[inline(never)]
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

/// The bytes of its name and of its value.
type Field<'a> = (TextBytes<'a>, TextBytes<'a>);

#[inline(never)]
fn header_pairs<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<Pair<'py>>> {
    let Ok(list) = headers.cast_exact::<PyList>() else { return pairs_of_any(headers) };
    let mut pairs = Vec::with_capacity(list.len());
    for header in list.iter() {
        pairs.push(pair_of(&header)?);
    }
    Ok(pairs)
}

#[cold]
#[inline(never)]
fn pairs_of_any<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<Pair<'py>>> {
    let headers = headers.try_iter().map_err(|_| not_headers(headers))?;
    headers.map(|header| pair_of(&header?)).collect()
}

fn pair_of<'py>(header: &Bound<'py, PyAny>) -> PyResult<Pair<'py>> {
    match header.cast::<PyTuple>().map(PyTupleMethods::as_slice) {
        Ok([name, value]) => Ok((name.clone(), value.clone())),
        _ => Err(not_headers(header)),
    }
}

#[inline(never)]
fn header_bytes<'a>(pairs: &'a [Pair<'_>]) -> PyResult<Vec<Field<'a>>> {
    let mut fields = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let value_of = || format!("the value of header {}", shown(name));
        let name = text_bytes_of(name, || "a header name".to_owned())?;
        fields.push((name, text_bytes_of(value, value_of)?));
    }
    Ok(fields)
}

#[cold]
#[inline(never)]
fn not_headers(found: &Bound<'_, PyAny>) -> PyErr {
    let shown = shown(found);
    PyTypeError::saying(format!(
        "headers are a list of (name, value) tuples, and this is not one: {shown:.100}"
    ))
}

/// The bytes of a str or bytes.
///
/// # Errors
/// `TypeError` for another type, `ValueError` for a str with a character beyond latin-1.
#[inline(never)]
pub(crate) fn text_bytes_of<'a>(
    text: &'a Bound<'_, PyAny>,
    what: impl Fn() -> String,
) -> PyResult<TextBytes<'a>> {
    if let Ok(bytes) = text.cast::<PyBytes>() {
        return Ok(TextBytes::Borrowed(bytes.as_bytes()));
    }
    let Ok(string) = text.cast::<PyString>() else { return Err(not_text(text, what)) };
    match string.to_str() {
        Ok(utf8) if utf8.is_ascii() => Ok(TextBytes::Borrowed(utf8.as_bytes())),
        utf8 => {
            let latin_1 = utf8.ok().and_then(latin_1);
            latin_1.map(TextBytes::Owned).ok_or_else(|| beyond_latin_1(string, what))
        }
    }
}

#[cold]
#[inline(never)]
fn latin_1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cold]
#[inline(never)]
fn not_text(found: &Bound<'_, PyAny>, what: impl Fn() -> String) -> PyErr {
    match found.get_type().name() {
        Ok(kind) => PyTypeError::saying(format!("{} must be str, not {kind}", what())),
        Err(error) => error,
    }
}

#[cold]
#[inline(never)]
fn beyond_latin_1(text: &Bound<'_, PyString>, what: impl Fn() -> String) -> PyErr {
    let shown = shown(text);
    let what = what();
    PyValueError::saying(format!(
        "{what} has characters beyond latin-1, which HTTP cannot carry: {shown:.100}"
    ))
}
