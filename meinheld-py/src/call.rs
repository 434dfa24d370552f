//! A Python call that is made later.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::names::name;
use crate::raising::{Saying, panicked};
use crate::unwinding;

/// A function and what it is to be called with.
pub(crate) struct Call {
    function: Py<PyAny>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

impl Call {
    /// # Errors
    /// `TypeError` if the function is no callable.
    pub(crate) fn new(
        function: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Call> {
        if !function.is_callable() {
            let kind = function.get_type().name()?;
            return Err(PyTypeError::saying(format!("{kind} is not callable")));
        }
        let kwargs = kwargs.map(|kwargs| kwargs.copy().map(Bound::unbind)).transpose()?;
        Ok(Call { function: function.clone().unbind(), args: args.unbind(), kwargs })
    }

    /// # Errors
    /// What the function raises. A panic is an exception, too: whoever waits for the call's end is to
    /// hear of it.
    pub(crate) fn make(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (function, args) = (self.function.bind(py), self.args.bind(py));
        let kwargs = self.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        let call = || unwinding::call_with(function, args, kwargs).map(Bound::unbind);
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// The function's name, or its class's: what [`described`] makes a log's words of.
    pub(crate) fn name<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        let function = self.function.bind(py);
        let name = function.getattr(name!(py, qualname)).or_else(|_| {
            let kind = function.get_type();
            kind.getattr(name!(py, qualname))
        });
        name.ok()?.cast_into::<PyString>().ok()
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.args)?;
        self.kwargs.as_ref().map_or(Ok(()), |kwargs| visit.call(kwargs))
    }
}

/// What a log calls a function of this name.
pub(crate) fn described(name: Option<&Bound<'_, PyString>>) -> String {
    name.map_or_else(|| "?".to_owned(), |name| format!("{name:.100}()"))
}

/// Positional arguments that were passed as one: a tuple, a list, or none.
///
/// # Errors
/// `TypeError` for anything else: a str, say, which would be taken apart.
pub(crate) fn positional<'py>(
    py: Python<'py>,
    args: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let Some(args) = args else { return Ok(PyTuple::empty(py)) };
    if let Ok(tuple) = args.cast::<PyTuple>() {
        return Ok(tuple.clone());
    }
    if let Ok(list) = args.cast::<PyList>() {
        return Ok(list.to_tuple());
    }
    let kind = args.get_type().name()?;
    Err(PyTypeError::saying(format!("args must be a tuple or a list, not {kind}")))
}

/// Keyword arguments that were passed as one: a dict, or none.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn keywords<'a, 'py>(
    kwargs: Option<&'a Bound<'py, PyAny>>,
) -> PyResult<Option<&'a Bound<'py, PyDict>>> {
    let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_none()) else { return Ok(None) };
    let Ok(dict) = kwargs.cast::<PyDict>() else {
        let kind = kwargs.get_type().name()?;
        return Err(PyTypeError::saying(format!("kwargs must be a dict, not {kind}")));
    };
    Ok(Some(dict))
}
