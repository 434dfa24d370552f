//! Whether the interpreter that runs lays out its thread state as the one built for.
//!
//! The layout of `PyThreadState` stands for a whole minor. From 3.13 on `CPython` keeps more behind
//! it, and that tail moves between patch releases: under the very release of the headers their
//! offsets hold; under another one they are found by having asyncio store two marks there.

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use super::meinheld_tstate_built_for;
use crate::raising::Saying;

/// A `CPython` release: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Release(u8, u8, u8);

/// Refuses an interpreter whose thread state this build does not know.
///
/// # Errors
///
/// `ImportError`, with both versions in its message, when the minor is another one, or when the
/// patch release moved what this module must exchange and it cannot be found again.
pub(crate) fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    // SAFETY: attached, by `py`.
    let built = Release::from_hex(unsafe { meinheld_tstate_built_for() });
    let running = py.version_info();
    let running = Release(running.major, running.minor, running.patch);
    if (built.0, built.1) != (running.0, running.1) {
        return Err(refusal(built, running));
    }
    if built != running && !tail::is_found(py)? {
        return Err(refusal(built, running));
    }
    Ok(())
}

impl Release {
    /// From `CPython`'s `0xMMmmppss`: major, minor, patch, and the level and serial left out here.
    fn from_hex(hex: u32) -> Self {
        let [major, minor, patch, _serial] = hex.to_be_bytes();
        Self(major, minor, patch)
    }
}

fn refusal(built: Release, running: Release) -> PyErr {
    PyImportError::saying(refusal_text(built, running))
}

fn refusal_text(built: Release, running: Release) -> String {
    let Release(major, minor, patch) = built;
    let Release(running_major, running_minor, running_patch) = running;
    format!(
        "meinheld was built for CPython {major}.{minor}.{patch} and does not know the thread state \
         of {running_major}.{running_minor}.{running_patch}: install a build for this version"
    )
}

/// 3.11 and 3.12 have no tail.
#[cfg(not(Py_3_13))]
mod tail {
    use pyo3::prelude::*;

    #[expect(clippy::unnecessary_wraps, reason = "where there is a tail, Python can raise")]
    pub(super) fn is_found(_py: Python<'_>) -> PyResult<bool> {
        Ok(true)
    }
}

#[cfg(Py_3_13)]
mod tail {
    use std::ptr::null_mut;

    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    use crate::tstate::meinheld_tstate_find_slots;

    /// Finds the slots of the event loop and its task, and checks those of the stack limits.
    ///
    /// This imports asyncio, because its C module alone stores anything in the slots.
    pub(super) fn is_found(py: Python<'_>) -> PyResult<bool> {
        match py.import("_asyncio") {
            Ok(asyncio) => Ok(slots_are_found(&asyncio)? && c_stack_is_known()),
            Err(error) if error.is_instance_of::<PyImportError>(py) => {
                forget_slots(py);
                Ok(c_stack_is_known())
            }
            Err(error) => Err(error),
        }
    }

    fn slots_are_found(asyncio: &Bound<'_, PyModule>) -> PyResult<bool> {
        let mark = PyDict::new(asyncio.py()).into_any();
        let running = asyncio.call_method0("_get_running_loop")?;
        asyncio.call_method1("_set_running_loop", (&mark,))?;
        let found = find_slots(asyncio, &mark);
        asyncio.call_method1("_set_running_loop", (running,))?;
        found
    }

    #[cfg(not(Py_3_14))]
    #[expect(clippy::unnecessary_wraps, reason = "where there is a task slot, Python can raise")]
    fn find_slots(_asyncio: &Bound<'_, PyModule>, mark: &Bound<'_, PyAny>) -> PyResult<bool> {
        // SAFETY: attached, by the `Bound`s; the mark is a live object, and is only compared.
        Ok(unsafe { meinheld_tstate_find_slots(mark.as_ptr(), null_mut()) } != 0)
    }

    #[cfg(Py_3_14)]
    fn find_slots(asyncio: &Bound<'_, PyModule>, mark: &Bound<'_, PyAny>) -> PyResult<bool> {
        let task = PyDict::new(asyncio.py()).into_any();
        let running = asyncio.call_method1("_swap_current_task", (mark, &task))?;
        // SAFETY: attached, by the `Bound`s; the marks are live objects, and are only compared.
        let found = unsafe { meinheld_tstate_find_slots(mark.as_ptr(), task.as_ptr()) } != 0;
        asyncio.call_method1("_swap_current_task", (mark, running))?;
        Ok(found)
    }

    /// Without its C module asyncio keeps the loop in a `threading.local`: nothing to exchange.
    fn forget_slots(_py: Python<'_>) {
        // SAFETY: attached, by `_py`. A null mark is found nowhere, and then no slot is known.
        unsafe { meinheld_tstate_find_slots(null_mut(), null_mut()) };
    }

    #[cfg(not(Py_3_14))]
    fn c_stack_is_known() -> bool {
        true
    }

    #[cfg(Py_3_14)]
    fn c_stack_is_known() -> bool {
        // SAFETY: attached, since `is_found` was given a `Python`.
        unsafe { crate::tstate::meinheld_tstate_c_stack_is_known() != 0 }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_slots_are_where_the_headers_say() {
            Python::initialize();
            Python::attach(|py| assert!(is_found(py).expect("asyncio can be imported")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_from_its_hex_form() {
        assert_eq!(Release::from_hex(0x030d_00f0), Release(3, 13, 0));
        assert_eq!(Release::from_hex(0x030b_07f0), Release(3, 11, 7));
        assert_eq!(Release::from_hex(0x030e_0ac2), Release(3, 14, 10));
    }

    #[test]
    fn a_refusal_names_both_releases() {
        let text = refusal_text(Release(3, 12, 1), Release(3, 13, 0));
        assert!(text.contains("3.12.1") && text.contains("3.13.0"), "{text}");
    }
}
