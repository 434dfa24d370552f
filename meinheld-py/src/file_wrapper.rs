//! `wsgi.file_wrapper`: a file as the whole body. PEP 3333, "Optional Platform-Specific File
//! Handling".
//!
//! A real file goes out by sendfile(2) from where it stands; anything else with a `read` is read in
//! blocks. Not here: deciding which (see returned.rs).

use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::names::name;
use crate::raising::Saying;

/// A file to be sent.
#[pyclass(frozen, module = "meinheld.server", name = "FileWrapper")]
pub(crate) struct FileWrapper {
    file: Py<PyAny>,
    block_bytes: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=65_536))]
    fn new(filelike: Bound<'_, PyAny>, blksize: isize) -> PyResult<FileWrapper> {
        if !filelike.hasattr(name!(filelike.py(), read))? {
            return Err(PyTypeError::saying("wsgi.file_wrapper needs an object with read()"));
        }
        let block_bytes = usize::try_from(blksize).ok().filter(|bytes| *bytes > 0);
        let block_bytes =
            block_bytes.ok_or_else(|| PyValueError::saying("the block size must be positive"))?;
        Ok(FileWrapper { file: filelike.unbind(), block_bytes })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let block = self.file.bind(py).call_method1(name!(py, read), (self.block_bytes,))?;
        if block.is_instance_of::<PyString>() {
            let message = "wsgi.file_wrapper needs a file opened in binary mode: read() gave str";
            return Err(PyTypeError::saying(message));
        }
        let is_end = block.cast::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().is_empty());
        if is_end { Err(PyErr::new::<PyStopIteration, _>(())) } else { Ok(block) }
    }

    /// Closes the file, if it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let file = self.file.bind(py);
        if file.hasattr(name!(py, close))? {
            file.call_method0(name!(py, close))?;
        }
        Ok(())
    }

    /// There is nothing to clear: the collector breaks a cycle at the file, if that has the wrapper.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)
    }
}

impl FileWrapper {
    /// The wrapped file.
    pub(crate) fn file<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.file.bind(py)
    }
}
