//! Exceptions that the server raises, with their texts.
//!
//! A text is made when the exception is, and there may be no memory for it. Code that `PyO3` has left
//! by then could only end the process, so that the exception is raised without its text instead, and
//! without memory even for that it is the `MemoryError`. Not here: which exceptions there are.

use std::any::Any;
use std::borrow::Cow;

use pyo3::exceptions::PyOSError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::{PyErrArguments, PyTypeInfo};

use crate::text;

/// An object as a message shows it.
#[cold]
#[inline(never)]
pub(crate) fn shown(object: &Bound<'_, PyAny>) -> String {
    object.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string())
}

/// The name of an object's class, for a message.
#[cold]
#[inline(never)]
pub(crate) fn class_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The text of an exception.
struct Text(Cow<'static, str>);

/// The number and the text of an `OSError`.
struct Errno(i32, Cow<'static, str>);

impl PyErrArguments for Text {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text::utf_8(py, &self.0).map_or_else(|_| py.None(), |text| text.into_any().unbind())
    }
}

impl PyErrArguments for Errno {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text::numbered(py, self.0, &self.1)
            .map_or_else(|_| py.None(), |arguments| arguments.into_any().unbind())
    }
}

/// Makes an exception of a class.
pub(crate) trait Saying {
    fn saying(text: impl Into<Cow<'static, str>>) -> PyErr;
}

impl<T: PyTypeInfo> Saying for T {
    fn saying(text: impl Into<Cow<'static, str>>) -> PyErr {
        PyErr::new::<T, _>(Text(text.into()))
    }
}

/// An `OSError` with its number, which decides its subclass.
pub(crate) fn os_error(number: i32, text: impl Into<Cow<'static, str>>) -> PyErr {
    PyErr::new::<PyOSError, _>(Errno(number, text.into()))
}

/// A panic as the exception that `PyO3` makes of one, too.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> PyErr {
    PanicException::saying(panic_text(panic).to_owned())
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
