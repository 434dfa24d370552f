//! Methods that `CPython` calls as it calls its own: with a row of borrowed arguments, in no tuple and
//! no dict, and on a stack with no guard of `PyO3`'s.
//!
//! For the few that are called so often, or leave the coroutine in the midst, that both are felt. They
//! run attached, but `PyO3` need not know that their thread is: code that is not on the loop's thread
//! asks [`Python::attach`] before it drops anything.
//!
//! Not here: what the methods do.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::PyClass;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::raising::{Saying, panicked};

/// One method of `T`.
pub(crate) trait FastMethod<T: PyClass> {
    const NAME: &'static CStr;
    /// The signature for `inspect`, `--`, and the docstring.
    const DOC: &'static CStr;

    fn call(it: Borrowed<'_, '_, T>, args: &Args<'_, '_>) -> PyResult<Py<PyAny>>;
}

/// The arguments of one call: those without a name, and behind them those with one.
pub(crate) struct Args<'a, 'py> {
    py: Python<'py>,
    /// INVARIANT: each lives while the call lasts, which keeps them.
    all: &'a [*mut ffi::PyObject],
    positional: usize,
    names: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Args<'a, 'py> {
    /// How many have no name.
    pub(crate) fn positional(&self) -> usize {
        self.positional
    }

    /// Whether none has a name.
    pub(crate) fn is_nameless(&self) -> bool {
        self.all.len() == self.positional
    }

    /// One of those without a name.
    pub(crate) fn item(&self, index: usize) -> Borrowed<'a, 'py, PyAny> {
        self.any(self.all[..self.positional][index])
    }

    /// Those without a name.
    pub(crate) fn tuple(&self) -> PyResult<Bound<'py, PyTuple>> {
        // SAFETY: attached, by `py`. Each place of the new tuple is given a new reference, and none is
        // left out; null comes with an exception set.
        unsafe {
            let tuple = ffi::PyTuple_New(self.positional.cast_signed());
            let tuple = Bound::from_owned_ptr_or_err(self.py, tuple)?.cast_into_unchecked();
            for (place, item) in (0..).zip(&self.all[..self.positional]) {
                ffi::PyTuple_SET_ITEM(tuple.as_ptr(), place, ffi::Py_NewRef(*item));
            }
            Ok(tuple)
        }
    }

    /// Those with a name.
    pub(crate) fn dict(&self) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: attached, by `py`: a new reference to a dict, or null with an exception set.
        let dict = unsafe {
            let dict = Bound::from_owned_ptr_or_err(self.py, ffi::PyDict_New())?;
            dict.cast_into_unchecked::<PyDict>()
        };
        if let Some(names) = self.names {
            for (name, value) in names.iter().zip(&self.all[self.positional..]) {
                dict.set_item(name, self.any(*value))?;
            }
        }
        Ok(dict)
    }

    /// The only one, with the name `name` or without, if it was passed.
    ///
    /// # Errors
    /// `TypeError` if anything else was passed.
    #[inline(never)]
    pub(crate) fn at_most_one(
        &self,
        caller: &str,
        name: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        if self.all.len() > 1 {
            let message =
                format!("{caller}() takes at most one argument ({} given)", self.all.len());
            return Err(PyTypeError::saying(message));
        }
        if let Some(names) = self.names.filter(|_| !self.is_nameless())
            && !names.get_item(0)?.eq(name)?
        {
            let given = names.get_item(0)?;
            let message = format!("{caller}() got an unexpected keyword argument '{given}'");
            return Err(PyTypeError::saying(message));
        }
        Ok(self.all.first().map(|item| self.any(*item)))
    }

    /// As many as there are names, each with its name or without; those that were not passed are None.
    ///
    /// # Errors
    /// `TypeError` if anything else was passed, or one of them twice.
    #[inline(never)]
    pub(crate) fn named<const N: usize>(
        &self,
        caller: &str,
        names: [&str; N],
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        if self.positional > N {
            return Err(self.too_many(caller, N));
        }
        let positional = &self.all[..self.positional];
        let mut found = std::array::from_fn(|index| positional.get(index).map(|it| self.any(*it)));
        if !self.is_nameless() {
            self.add_named(caller, &names, &mut found)?;
        }
        Ok(found)
    }

    #[cold]
    #[inline(never)]
    fn too_many(&self, caller: &str, most: usize) -> PyErr {
        let given = self.all.len();
        PyTypeError::saying(format!("{caller}() takes at most {most} arguments ({given} given)"))
    }

    #[cold]
    #[inline(never)]
    fn add_named(
        &self,
        caller: &str,
        names: &[&str],
        found: &mut [Option<Borrowed<'a, 'py, PyAny>>],
    ) -> PyResult<()> {
        let passed = self.names.iter().flat_map(|names| names.iter());
        for (name, value) in passed.zip(&self.all[self.positional..]) {
            let name = name.to_string();
            let Some(index) = names.iter().position(|known| *known == name) else {
                let message = format!("{caller}() got an unexpected keyword argument '{name}'");
                return Err(PyTypeError::saying(message));
            };
            if found[index].replace(self.any(*value)).is_some() {
                let message = format!("{caller}() got multiple values for argument '{name}'");
                return Err(PyTypeError::saying(message));
            }
        }
        Ok(())
    }

    fn any(&self, item: *mut ffi::PyObject) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: attached, by `py`, and the object lives (INVARIANT of `all`).
        unsafe { Borrowed::from_ptr(self.py, item) }
    }
}

/// Adds `M` to the class `T`.
pub(crate) fn add_method<T: PyClass, M: FastMethod<T>>(py: Python<'_>) -> PyResult<()> {
    let class: Bound<'_, PyType> = py.get_type::<T>();
    // A class's methods are for ever, as it is.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: entry::<T, M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: attached, by `py`. The definition lives for ever and says truly how `entry` is called;
    // the answer is null with an exception set, or a new reference.
    let method = unsafe {
        let descriptor = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(py, descriptor)?
    };
    class.setattr(&*M::NAME.to_string_lossy(), method)
}

/// What `CPython` calls.
unsafe extern "C" fn entry<T: PyClass, M: FastMethod<T>>(
    it: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods attached, with an instance of the class, which the descriptor has
    // checked. `args` holds `count` objects and then one for each of `names`, null or a tuple of str;
    // it keeps all of them until this returns.
    let (py, it, args) = unsafe {
        let py = Python::assume_attached();
        let it = Borrowed::from_ptr(py, it).cast_unchecked::<T>();
        let names = Borrowed::from_ptr_or_opt(py, names);
        let names = names.map(|names| names.cast_unchecked::<PyTuple>());
        let positional = count.unsigned_abs();
        let all = positional + names.map_or(0, |names| names.len());
        let all = if all == 0 { &[] } else { slice::from_raw_parts(args, all) };
        (py, it, Args { py, all, positional, names })
    };
    // Errors end in here: a method may wait, and what is unwound through is on its stack meanwhile.
    let outcome = catch_unwind(AssertUnwindSafe(|| match M::call(it, &args) {
        Ok(value) => value.into_ptr(),
        Err(error) => raise(py, error),
    }));
    outcome.unwrap_or_else(|panic| raise(py, panicked(&*panic)))
}

#[cold]
#[inline(never)]
fn raise(py: Python<'_>, error: PyErr) -> *mut ffi::PyObject {
    error.restore(py);
    std::ptr::null_mut()
}
