//! The settings of `meinheld.server`, each a setter and a getter. They hold from the next `listen`
//! (backlog) or `run` (all others) on.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use meinheld_core::descriptor_limit;
use meinheld_core::http::{HeadLimits, UnderscoreHeaders};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use crate::continuation::duration_of;
use crate::names::name;
use crate::raising::Saying;
use crate::server::with_config;
use crate::text::{self, Fraction, Number};

/// The least has room for the interpreter's own margins; the most is far beyond any use.
const STACK_SIZES: RangeInclusive<usize> = 256 << 10..=1 << 30;

/// Sets for how many seconds an idle connection is kept for its next request; 0 closes each
/// connection after its response.
#[pyfunction]
pub(crate) fn set_keepalive(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = duration(seconds, "keepalive")?;
    with_config(|config| config.keep_alive_timeout = timeout);
    Ok(())
}

/// For how many seconds an idle connection is kept: an int if they are whole, as it was of old.
#[pyfunction]
pub(crate) fn get_keepalive(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let timeout = with_config(|config| config.keep_alive_timeout);
    if timeout.subsec_nanos() == 0 {
        return Ok(Number(timeout.as_secs()).into_pyobject(py)?.into_any());
    }
    Ok(Fraction(timeout.as_secs_f64()).into_pyobject(py)?.into_any())
}

/// Sets how many bytes the stack of each request has; only what is used of it costs memory.
#[pyfunction]
pub(crate) fn set_stack_size(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let size = index(bytes, "stack_size", 0, u64::MAX)?;
    let fitting = usize::try_from(size).ok().filter(|size| STACK_SIZES.contains(size));
    let Some(size) = fitting else {
        let (least, most) = (STACK_SIZES.start(), STACK_SIZES.end());
        let message = format!("stack_size is {size} and must be from {least} to {most} bytes");
        return Err(PyValueError::saying(message));
    };
    with_config(|config| config.stack_bytes = size);
    Ok(())
}

/// How many bytes the stack of each request has.
#[pyfunction]
pub(crate) fn get_stack_size() -> Number {
    Number(with_config(|config| config.stack_bytes) as u64)
}

/// Sets how many connections may wait to be accepted, on listeners made from now on.
#[pyfunction]
pub(crate) fn set_backlog(connections: &Bound<'_, PyAny>) -> PyResult<()> {
    let backlog = from_one(connections, "backlog")?;
    // The kernel clips it to net.core.somaxconn in any case.
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    with_config(|config| config.backlog = backlog);
    Ok(())
}

/// How many connections may wait to be accepted.
#[pyfunction]
pub(crate) fn get_backlog() -> i32 {
    with_config(|config| config.backlog)
}

/// Sets how many bytes a request's body may have; more is answered 413.
#[pyfunction]
pub(crate) fn set_max_content_length(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = from_one(bytes, "max_content_length")?;
    with_config(|config| config.body.body_bytes_max = bytes);
    Ok(())
}

/// How many bytes a request's body may have.
#[pyfunction]
pub(crate) fn get_max_content_length() -> Number {
    Number(with_config(|config| config.body.body_bytes_max))
}

/// Sets how many bytes of a collected body are kept in memory; more goes to a temporary file.
#[pyfunction]
pub(crate) fn set_client_body_buffer_size(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = from_one(bytes, "client_body_buffer_size")?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    with_config(|config| config.body_memory_bytes_max = bytes);
    Ok(())
}

/// How many bytes of a collected body are kept in memory.
#[pyfunction]
pub(crate) fn get_client_body_buffer_size() -> Number {
    Number(with_config(|config| config.body_memory_bytes_max) as u64)
}

/// Sets how many connections may be open at once; more wait to be accepted. The name is of old: it was
/// the size of a table.
#[pyfunction]
pub(crate) fn set_picoev_max_fd(connections: &Bound<'_, PyAny>) -> PyResult<()> {
    let connections = from_one(connections, "picoev_max_fd")?;
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    with_config(|config| config.connections_max = connections);
    Ok(())
}

/// How many connections may be open at once: if it was not set, as many as the process may have
/// descriptors.
#[pyfunction]
pub(crate) fn get_picoev_max_fd() -> PyResult<Number> {
    let connections = with_config(|config| config.connections_max) as u64;
    Ok(Number(if connections == usize::MAX as u64 { descriptor_limit()? } else { connections }))
}

/// Sets how many connections are accepted in a row before requests have their turn. Where several
/// processes share a listener, few leave more for those that are idle.
#[pyfunction]
pub(crate) fn set_accepts_max(connections: &Bound<'_, PyAny>) -> PyResult<()> {
    let connections = from_one(connections, "accepts_max")?;
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    with_config(|config| config.accepts_max = connections);
    Ok(())
}

/// How many connections are accepted in a row.
#[pyfunction]
pub(crate) fn get_accepts_max() -> Number {
    Number(with_config(|config| config.accepts_max) as u64)
}

/// Sets how many bytes the head of a request may have, up to 1 MiB; more is answered 431.
#[pyfunction]
pub(crate) fn set_max_head_bytes(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = size(bytes, "max_head_bytes", HeadLimits::HEAD_BYTES_CEILING)?;
    with_config(|config| config.head.head_bytes_max = bytes);
    Ok(())
}

/// How many bytes the head of a request may have.
#[pyfunction]
pub(crate) fn get_max_head_bytes() -> Number {
    Number(with_config(|config| config.head.head_bytes_max) as u64)
}

/// Sets how many bytes the target in a request's first line may have; more is answered 414.
#[pyfunction]
pub(crate) fn set_max_target_bytes(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = size(bytes, "max_target_bytes", HeadLimits::HEAD_BYTES_CEILING)?;
    with_config(|config| config.head.target_bytes_max = bytes);
    Ok(())
}

/// How many bytes the target in a request's first line may have.
#[pyfunction]
pub(crate) fn get_max_target_bytes() -> Number {
    Number(with_config(|config| config.head.target_bytes_max) as u64)
}

/// Sets how many headers a request may have, up to 128; more is answered 431.
#[pyfunction]
pub(crate) fn set_max_header_count(headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let headers = size(headers, "max_header_count", HeadLimits::HEADER_COUNT_CEILING)?;
    with_config(|config| config.head.header_count_max = headers);
    Ok(())
}

/// How many headers a request may have.
#[pyfunction]
pub(crate) fn get_max_header_count() -> Number {
    Number(with_config(|config| config.head.header_count_max) as u64)
}

/// Sets how many bytes one header may have, its name and its value together; more is answered 431.
#[pyfunction]
pub(crate) fn set_max_header_bytes(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = size(bytes, "max_header_bytes", HeadLimits::HEAD_BYTES_CEILING)?;
    with_config(|config| config.head.header_bytes_max = bytes);
    Ok(())
}

/// How many bytes one header may have.
#[pyfunction]
pub(crate) fn get_max_header_bytes() -> Number {
    Number(with_config(|config| config.head.header_bytes_max) as u64)
}

/// Sets for how many seconds a request's head may arrive, from its first byte on; then it is answered
/// 408.
#[pyfunction]
pub(crate) fn set_head_timeout(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = positive(seconds, "head_timeout")?;
    with_config(|config| config.head_timeout = timeout);
    Ok(())
}

/// For how many seconds a request's head may arrive.
#[pyfunction]
pub(crate) fn get_head_timeout() -> Fraction {
    Fraction(with_config(|config| config.head_timeout.as_secs_f64()))
}

/// Sets for how many seconds a client may send nothing of a body that is waited for.
#[pyfunction]
pub(crate) fn set_body_timeout(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = positive(seconds, "body_timeout")?;
    with_config(|config| config.body_timeout = timeout);
    Ok(())
}

/// For how many seconds a client may send nothing of a body that is waited for.
#[pyfunction]
pub(crate) fn get_body_timeout() -> Fraction {
    Fraction(with_config(|config| config.body_timeout.as_secs_f64()))
}

/// Sets for how many seconds a client may take nothing of a response.
#[pyfunction]
pub(crate) fn set_send_timeout(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = positive(seconds, "send_timeout")?;
    with_config(|config| config.send_timeout = timeout);
    Ok(())
}

/// For how many seconds a client may take nothing of a response.
#[pyfunction]
pub(crate) fn get_send_timeout() -> Fraction {
    Fraction(with_config(|config| config.send_timeout.as_secs_f64()))
}

/// Sets for how many seconds a graceful stop waits on idle connections, whose next request may be on
/// its way; 0 closes them at once.
#[pyfunction]
pub(crate) fn set_stop_idle_timeout(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = duration(seconds, "stop_idle_timeout")?;
    with_config(|config| config.stop_idle_timeout = timeout);
    Ok(())
}

/// For how many seconds a graceful stop waits on idle connections.
#[pyfunction]
pub(crate) fn get_stop_idle_timeout() -> Fraction {
    Fraction(with_config(|config| config.stop_idle_timeout.as_secs_f64()))
}

/// Sets whether headers whose names have an underscore are kept; with "refuse" their requests are
/// answered 400. They are dropped by default: in the environ `X_User` would be taken for `X-User`, which
/// a proxy may have checked.
#[pyfunction]
pub(crate) fn set_underscore_headers(keep: &Bound<'_, PyAny>) -> PyResult<()> {
    let choice = match (keep.extract::<bool>(), keep.extract::<Cow<'_, str>>().as_deref()) {
        (Ok(true), _) => UnderscoreHeaders::Keep,
        (Ok(false), _) => UnderscoreHeaders::Drop,
        (_, Ok("refuse")) => UnderscoreHeaders::Refuse,
        _ => {
            let shown = keep.repr()?;
            let message =
                format!("underscore_headers is {shown:.100} and must be True, False or 'refuse'");
            return Err(PyTypeError::saying(message));
        }
    };
    with_config(|config| config.head.underscore_headers = choice);
    Ok(())
}

/// Whether headers whose names have an underscore are kept; "refuse" if their requests are not answered.
#[pyfunction]
pub(crate) fn get_underscore_headers(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    match with_config(|config| config.head.underscore_headers) {
        UnderscoreHeaders::Refuse => Ok(text::utf_8(py, "refuse")?.into_any()),
        choice => Ok(PyBool::new(py, choice == UnderscoreHeaders::Keep).to_owned().into_any()),
    }
}

/// A whole number from one on.
fn from_one(value: &Bound<'_, PyAny>, name: &str) -> PyResult<u64> {
    index(value, name, 1, u64::MAX)
}

/// A whole number from one on that a limit of the head can be.
fn size(value: &Bound<'_, PyAny>, name: &str, most: usize) -> PyResult<usize> {
    let number = index(value, name, 1, most as u64)?;
    Ok(usize::try_from(number).unwrap_or(most))
}

/// A whole number.
///
/// # Errors
/// `TypeError` for what is no int, `ValueError` for one that is out of bounds.
fn index(value: &Bound<'_, PyAny>, name: &str, least: u64, most: u64) -> PyResult<u64> {
    let number = value.call_method0(name!(value.py(), index));
    let Some(number) = number.ok().filter(|_| !value.is_instance_of::<PyBool>()) else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::saying(format!("{name} must be an int, not {kind}")));
    };
    let found = number.extract::<u64>().ok().filter(|found| (least..=most).contains(found));
    found.ok_or_else(|| {
        PyValueError::saying(format!("{name} is {number} and must be from {least} to {most}"))
    })
}

/// More than zero seconds.
fn positive(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    let timeout = duration(value, name)?;
    if timeout.is_zero() {
        return Err(PyValueError::saying(format!("{name} is 0 and must be more than 0 seconds")));
    }
    Ok(timeout)
}

/// Seconds, an int or a float; more than can be counted are without limit.
///
/// # Errors
/// `TypeError` for what is no number, `ValueError` for a negative one and for NaN.
fn duration(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    let is_number = value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
    if !is_number || value.is_instance_of::<PyBool>() {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::saying(format!("{name} must be a number, not {kind}")));
    }
    if value.eq(0)? {
        return Ok(Duration::ZERO);
    }
    let timeout = duration_of(value).map_err(|_| {
        PyValueError::saying(format!("{name} is {value} and must be zero or more seconds"))
    })?;
    Ok(timeout.unwrap_or(Duration::MAX))
}
