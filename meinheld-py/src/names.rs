//! The names by which Python's objects are asked for what they have, as interned str objects.
//!
//! All are made when the module is imported. One that were made at its first use would be made in a
//! request, whose memory may have run out: `PyO3` panics then, and two failures in a row would end the
//! process. The classes that the module does not show are made here, too, for the same reason. Not
//! here: names that are used once, at the start.

use pyo3::PyTypeInfo;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::input::Input;
use crate::start_response::{EarlyHints, StartResponse, Write};
use crate::text;

/// Declares `Names`, with a field for each text.
macro_rules! declare {
    ($($field:ident: $text:literal,)*) => {
        /// The str objects.
        pub(crate) struct Names { $(pub(crate) $field: Py<PyString>,)* }

        impl Names {
            fn new(py: Python<'_>) -> PyResult<Names> {
                Ok(Names { $($field: text::interned(py, $text)?,)* })
            }
        }
    };
}

declare! {
    acquire: "acquire",
    app: "app",
    buffered_random: "BufferedRandom",
    buffered_reader: "BufferedReader",
    cast: "cast",
    close: "close",
    co_filename: "co_filename",
    co_qualname: "co_qualname",
    content_length: "CONTENT_LENGTH",
    debug: "debug",
    encode: "encode",
    error: "error",
    exc_info: "exc_info",
    file: "file",
    file_io: "FileIO",
    fileno: "fileno",
    flush: "flush",
    format: "%s",
    format_bytes: "B",
    getcurrent: "getcurrent",
    greenlet: "greenlet",
    headers: "headers",
    http_1_0: "HTTP/1.0",
    http_1_1: "HTTP/1.1",
    http_host: "HTTP_HOST",
    http_origin: "HTTP_ORIGIN",
    http_referer: "HTTP_REFERER",
    http_transfer_encoding: "HTTP_TRANSFER_ENCODING",
    http_user_agent: "HTTP_USER_AGENT",
    index: "__index__",
    io: "io",
    is_enabled_for: "isEnabledFor",
    iter: "__iter__",
    leave_forked_child: "_leave_forked_child",
    local_time: "LOCAL_TIME",
    localhost: "localhost",
    meinheld_client: "meinheld.client",
    meinheld_continuation: "meinheld.continuation",
    meinheld_direct: "meinheld._direct",
    meinheld_server: "meinheld.server",
    method_get: "GET",
    method_head: "HEAD",
    method_post: "POST",
    module: "__module__",
    nbytes: "nbytes",
    parent: "parent",
    path_info: "PATH_INFO",
    poll: "poll",
    port_80: "80",
    qualname: "__qualname__",
    query_string: "QUERY_STRING",
    raw: "raw",
    raw_uri: "RAW_URI",
    read: "read",
    readonly: "readonly",
    register: "register",
    release: "release",
    remote_addr: "REMOTE_ADDR",
    remote_port: "REMOTE_PORT",
    request_method: "REQUEST_METHOD",
    request_time: "REQUEST_TIME",
    script_name: "SCRIPT_NAME",
    send_bytes: "SEND_BYTES",
    server_name: "SERVER_NAME",
    server_port: "SERVER_PORT",
    server_protocol: "SERVER_PROTOCOL",
    start_response: "start_response",
    status: "status",
    status_code: "STATUS_CODE",
    target_of: "target_of",
    target_of_hook: "target_of_hook",
    tell: "tell",
    tempfile: "tempfile",
    time_format: "%d/%m/%Y:%H:%M:%S %z",
    warning: "warning",
    wsgi_early_hints: "wsgi.early_hints",
    wsgi_input: "wsgi.input",
}

/// `name!(py, fileno)` is the str `"fileno"`, a borrowed one: a field of [`Names`].
macro_rules! name {
    ($py:expr, $field:ident) => {
        $crate::names::names($py).$field.bind($py)
    };
}
pub(crate) use name;

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

/// Makes what requests need, while there is somebody to be told that it cannot be made.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn make(py: Python<'_>) -> PyResult<()> {
    NAMES.get_or_try_init(py, || Names::new(py))?;
    for class in [
        Input::type_object(py),
        StartResponse::type_object(py),
        Write::type_object(py),
        EarlyHints::type_object(py),
        PanicException::type_object(py),
    ] {
        class.name()?;
    }
    Ok(())
}

/// The str objects. Only a Rust test, which imports no module, has them made here.
#[inline]
pub(crate) fn names(py: Python<'_>) -> &'static Names {
    NAMES.get_or_init(py, || Names::new(py).expect("a test has memory"))
}
