//! The settings of `meinheld.server`, each a setter and a getter. They hold from the next `listen`
//! (backlog) or `run` (all others) on.

use std::time::Duration;

use meinheld_core::http::UnderscoreHeaders;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::server::with_config;

/// Sets for how many seconds an idle connection is kept for its next request; 0 closes each
/// connection after its response.
#[pyfunction]
pub(crate) fn set_keepalive(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let timeout = Duration::from_secs(count(seconds, "keepalive")?);
    with_config(|config| config.keep_alive_timeout = timeout);
    Ok(())
}

/// For how many seconds an idle connection is kept.
#[pyfunction]
pub(crate) fn get_keepalive() -> u64 {
    with_config(|config| config.keep_alive_timeout.as_secs())
}

/// Sets how many connections may wait to be accepted, on listeners made from now on.
#[pyfunction]
pub(crate) fn set_backlog(connections: &Bound<'_, PyAny>) -> PyResult<()> {
    let backlog = count(connections, "backlog")?;
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
    let bytes = count(bytes, "max_content_length")?;
    with_config(|config| config.body.body_bytes_max = bytes);
    Ok(())
}

/// How many bytes a request's body may have.
#[pyfunction]
pub(crate) fn get_max_content_length() -> u64 {
    with_config(|config| config.body.body_bytes_max)
}

/// Sets how many bytes of a collected body are kept in memory; more goes to a temporary file.
#[pyfunction]
pub(crate) fn set_client_body_buffer_size(bytes: &Bound<'_, PyAny>) -> PyResult<()> {
    let bytes = count(bytes, "client_body_buffer_size")?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    with_config(|config| config.body_memory_bytes_max = bytes);
    Ok(())
}

/// How many bytes of a collected body are kept in memory.
#[pyfunction]
pub(crate) fn get_client_body_buffer_size() -> usize {
    with_config(|config| config.body_memory_bytes_max)
}

/// Sets whether headers whose names have an underscore are kept. They are dropped by default: in the
/// environ `X_User` would be taken for `X-User`, which a proxy may have checked.
#[pyfunction]
pub(crate) fn set_underscore_headers(keep: bool) {
    let choice = if keep { UnderscoreHeaders::Keep } else { UnderscoreHeaders::Drop };
    with_config(|config| config.head.underscore_headers = choice);
}

/// Whether headers whose names have an underscore are kept.
#[pyfunction]
pub(crate) fn get_underscore_headers() -> bool {
    with_config(|config| config.head.underscore_headers == UnderscoreHeaders::Keep)
}

/// A whole number from zero on.
///
/// # Errors
/// `TypeError` for what is no int, `ValueError` for a negative one or one beyond 64 bits.
fn count(value: &Bound<'_, PyAny>, name: &str) -> PyResult<u64> {
    let index = value.call_method0("__index__");
    let Some(index) = index.ok().filter(|_| !value.is_instance_of::<PyBool>()) else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{name} must be an int, not {kind}")));
    };
    index.extract().map_err(|_| {
        PyValueError::new_err(format!("{name} is {index} and must be from 0 to {}", u64::MAX))
    })
}
