//! Seconds as Python passes them: an int or a float of any size.

use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};

use crate::raising::{Saying, class_name};

/// Seconds from zero on, as a duration; `None` is more than one can hold, and so without limit.
///
/// # Errors
/// `TypeError` for what is no number, a bool or a str, `ValueError` for a negative one and for NaN.
pub(crate) fn seconds_of(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Duration>> {
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyString>() {
        return Err(not_a_number(value, name));
    }
    let seconds = match value.extract::<f64>() {
        Ok(seconds) => seconds,
        // An int too large for a float.
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            if value.lt(0)? {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }
        }
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            return Err(not_a_number(value, name));
        }
        Err(error) => return Err(error),
    };
    if seconds < 0.0 || seconds.is_nan() {
        let message = format!("{name} is {seconds} and must be zero or more seconds");
        return Err(PyValueError::saying(message));
    }
    // What is too short for the clock is not nothing: that means no limit in some places.
    let least = if seconds > 0.0 { Duration::from_nanos(1) } else { Duration::ZERO };
    Ok(Duration::try_from_secs_f64(seconds).ok().map(|duration| duration.max(least)))
}

fn not_a_number(value: &Bound<'_, PyAny>, name: &str) -> PyErr {
    let kind = class_name(value);
    PyTypeError::saying(format!("{name} must be a number of seconds, not {kind}"))
}
