//! `environ["wsgi.websocket"]`: a WebSocket as Python objects use it.
//!
//! Built on [`meinheld_core::ws`], which has the states and the waits. Not here: when the handshake is
//! answered, and what becomes of what the application returns (see websocket.py).

use std::io;
use std::time::Duration;

use meinheld_core::http::Version;
use meinheld_core::ws::{Closure, Handshake, HandshakeError, WebSocket, WebSocketConfig};
use meinheld_coro::without_parking;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString};

use crate::continuation::{PyClient, duration_of};
use crate::errors::{ClientDisconnected, HandshakeRefused, WebSocketClosed, from_io, timeout};
use crate::gil::attached;
use crate::lane::lane_of;
use crate::names::name;
use crate::raising::Saying;
use crate::seconds::seconds_of;
use crate::start_response::text_bytes_of;
use crate::text::{self, Number, Text};
use crate::thread_bound::ThreadBound;
use crate::tstate::suspend_refusal;

/// The headers of the handshake, by their names in an environ.
const FIELDS: [(&str, &str); 5] = [
    ("HTTP_UPGRADE", "Upgrade"),
    ("HTTP_CONNECTION", "Connection"),
    ("HTTP_SEC_WEBSOCKET_VERSION", "Sec-WebSocket-Version"),
    ("HTTP_SEC_WEBSOCKET_KEY", "Sec-WebSocket-Key"),
    ("HTTP_SEC_WEBSOCKET_PROTOCOL", "Sec-WebSocket-Protocol"),
];

/// Sends and receives whole messages; the request's own coroutine may wait for messages while any
/// others send.
#[pyclass(frozen, module = "meinheld.websocket", name = "WebSocket")]
pub(crate) struct PyWebSocket {
    socket: ThreadBound<WebSocket>,
    environ: Py<PyDict>,
}

/// A request's wish for a WebSocket, which its environ tells of.
#[pyclass(frozen, module = "meinheld.websocket", name = "Handshake")]
pub(crate) struct PyHandshake {
    handshake: Handshake,
    client: Py<PyClient>,
    environ: Py<PyDict>,
}

/// The wish of a request for a WebSocket; None if it has none, or another server runs.
///
/// Raises `HandshakeRefused`, with `status` and `headers` for the answer, when it must be refused.
#[pyfunction]
pub(crate) fn websocket_handshake(environ: &Bound<'_, PyDict>) -> PyResult<Option<PyHandshake>> {
    let py = environ.py();
    let Some(client) = environ.get_item(name!(py, meinheld_client))? else { return Ok(None) };
    let Ok(client) = client.cast_into::<PyClient>() else { return Ok(None) };
    let text = |name: &str| -> PyResult<Option<Vec<u8>>> {
        let Some(value) = environ.get_item(text::utf_8(py, name)?)? else { return Ok(None) };
        Ok(Some(text_bytes_of(&value, || format!("environ['{name}']"))?.as_bytes().to_vec()))
    };
    let mut fields = Vec::with_capacity(FIELDS.len());
    for (key, name) in FIELDS {
        fields.extend(text(key)?.map(|value| (name, value)));
    }
    let method = text("REQUEST_METHOD")?.unwrap_or_default();
    let version = match text("SERVER_PROTOCOL")?.as_deref() {
        Some(b"HTTP/1.1") => Version::Http11,
        _ => Version::Http10,
    };
    let fields = fields.iter().map(|(name, value)| (*name, value.as_slice()));
    match Handshake::of(&String::from_utf8_lossy(&method), version, fields) {
        Ok(None) => Ok(None),
        Ok(Some(handshake)) => {
            let environ = environ.clone().unbind();
            Ok(Some(PyHandshake { handshake, client: client.unbind(), environ }))
        }
        Err(error) => Err(refused(py, error)?),
    }
}

fn refused(py: Python<'_>, error: HandshakeError) -> PyResult<PyErr> {
    let raised = HandshakeRefused::saying(error.to_string());
    let value = raised.value(py);
    value.setattr(name!(py, status), Number(error.status().into()))?;
    let headers = text::list(py)?;
    for (name, field) in error.headers() {
        headers.append(text::pair(py, name, field)?)?;
    }
    value.setattr(name!(py, headers), headers)?;
    Ok(raised)
}

#[pymethods]
impl PyHandshake {
    /// The subprotocols that the client offers, those that it prefers first.
    #[getter]
    fn protocols<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let protocols = text::list(py)?;
        for protocol in self.handshake.protocols() {
            protocols.append(text::utf_8(py, protocol)?)?;
        }
        Ok(protocols)
    }

    /// Answers 101; the connection is a WebSocket from now on.
    #[pyo3(signature = (protocol, max_size, ping_interval, send_timeout, close_timeout))]
    fn accept(
        &self,
        py: Python<'_>,
        protocol: Option<&str>,
        max_size: usize,
        ping_interval: Option<&Bound<'_, PyAny>>,
        send_timeout: &Bound<'_, PyAny>,
        close_timeout: &Bound<'_, PyAny>,
    ) -> PyResult<PyWebSocket> {
        let limit = |seconds: Option<Duration>| seconds.unwrap_or(Duration::MAX);
        let config = WebSocketConfig {
            message_bytes_max: max_size,
            ping_interval: ping_interval.map(duration_of).transpose()?.flatten(),
            send_timeout: limit(seconds_of(send_timeout, "send_timeout")?),
            close_timeout: limit(seconds_of(close_timeout, "close_timeout")?),
        };
        let lane = lane_of(self.client.get().lane())?;
        let accepted =
            lane.wait(|exchange| exchange.accept_websocket(&self.handshake, protocol, config))?;
        let socket = ThreadBound::new(accepted.map_err(from_io)?);
        lane.mark_upgraded();
        Ok(PyWebSocket { socket, environ: self.environ.clone_ref(py) })
    }

    /// There is nothing to clear: the collector breaks a cycle at the environ.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        visit.call(&self.environ)
    }
}

#[pymethods]
impl PyWebSocket {
    /// Sends a message: a str as text, bytes (or a bytearray, a memoryview) as binary. Returns when
    /// the system has taken it, which waits for a client that does not read: `timeout` seconds at the
    /// most, or what the middleware was given.
    ///
    /// Raises `WebSocketClosed`, and `timeout`, after which it is closed.
    #[pyo3(signature = (message, timeout=None))]
    fn send(&self, message: &Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let timeout = timeout.map(duration_of).transpose()?.flatten();
        if let Ok(text) = message.cast::<PyString>() {
            let text = text.to_str()?;
            return self.use_it(|socket| socket.send_text(text, timeout));
        }
        if let Ok(bytes) = message.cast::<PyBytes>() {
            return self.use_it(|socket| socket.send_bytes(bytes.as_bytes(), timeout));
        }
        if message.is_instance_of::<PyByteArray>() || message.is_instance_of::<PyMemoryView>() {
            let copy = message.py().get_type::<PyBytes>().call1((message,))?;
            let copy = copy.cast::<PyBytes>()?;
            return self.use_it(|socket| socket.send_bytes(copy.as_bytes(), timeout));
        }
        let kind = message.get_type().name()?;
        Err(PyTypeError::saying(format!("a message is str or bytes, not {kind}")))
    }

    /// Waits for the next message and returns it: str for text, bytes for binary, None once the
    /// WebSocket is closed. Raises `timeout` after `timeout` seconds (0 or None: without limit).
    #[pyo3(signature = (timeout=None))]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let timeout = timeout.map(duration_of).transpose()?.flatten();
        let message = self.use_it(|socket| socket.receive(timeout))?;
        let object = message.map(|message| match message.text() {
            Some(text) => text::utf_8(py, text).map(Bound::into_any),
            None => text::bytes(py, message.bytes()).map(Bound::into_any),
        });
        object.transpose()
    }

    /// The same as `wait`.
    #[pyo3(signature = (timeout=None))]
    fn receive<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.wait(py, timeout)
    }

    /// Sends a ping now. The server pings clients that it waits for by itself.
    fn ping(&self) -> PyResult<()> {
        self.use_it(WebSocket::ping)
    }

    /// Sends a close; nothing can be sent any more, and whoever waits for a message gets None.
    /// Closing again does nothing.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close(&self, code: u16, reason: &str) -> PyResult<()> {
        match self.use_it(|socket| socket.close(code, reason)) {
            // It is closed, which was asked for.
            Err(error) if error.is_instance_of::<ClientDisconnected>(attached()) => Ok(()),
            other => other,
        }
    }

    /// Closes it and waits for the client to close it too, for a few seconds.
    fn _finish(&self, code: u16) {
        if let Some(socket) = self.socket.get() {
            match suspend_refusal(attached()) {
                None => socket.finish(code),
                Some(_) => without_parking(|| socket.finish(code)),
            }
        }
    }

    /// Whether it is closed, by either side.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.socket()?.is_closed())
    }

    /// The old name of `closed`.
    #[getter]
    fn websocket_closed(&self) -> PyResult<bool> {
        self.closed()
    }

    /// The code that it was closed with, None while it is open: 1005 if the client gave none, 1006 if
    /// the connection ended without a close.
    #[getter]
    fn close_code(&self) -> PyResult<Option<Number>> {
        Ok(self.socket()?.closure().map(|closure| Number(closure.code.into())))
    }

    /// The reason that it was closed with, None while it is open.
    #[getter]
    fn close_reason(&self) -> PyResult<Option<Text<'_>>> {
        Ok(self.socket()?.closure().map(|closure| Text(closure.reason.into())))
    }

    /// The subprotocol that was agreed on, or None.
    #[getter]
    fn protocol(&self) -> PyResult<Option<Text<'_>>> {
        Ok(self.socket()?.subprotocol().map(|name| Text(name.into())))
    }

    /// The environ of its request.
    #[getter]
    fn environ(&self, py: Python<'_>) -> Py<PyDict> {
        self.environ.clone_ref(py)
    }

    /// The path of its request.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.environ.bind(py).get_item(name!(py, path_info))
    }

    /// The Origin of its request, or None.
    #[getter]
    fn origin<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.environ.bind(py).get_item(name!(py, http_origin))
    }

    /// The version of the protocol: 13, RFC 6455.
    #[classattr]
    fn version() -> u8 {
        13
    }

    fn __iter__(this: Py<PyWebSocket>) -> Py<PyWebSocket> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.wait(py, None)
    }

    fn __repr__(&self) -> Text<'_> {
        let state = match self.socket.get() {
            None => "of another thread".to_owned(),
            Some(socket) => match socket.closure() {
                Some(Closure { code, .. }) => format!("closed with {code}"),
                None if socket.is_closed() => "closed".to_owned(),
                None => "open".to_owned(),
            },
        };
        Text(format!("<meinheld.websocket.WebSocket, {state}>").into())
    }

    /// There is nothing to clear: the collector breaks a cycle at the environ.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.environ)
    }
}

impl PyWebSocket {
    fn socket(&self) -> PyResult<&WebSocket> {
        self.socket.get().ok_or_else(|| {
            PyRuntimeError::saying(
                "a WebSocket is used on the server's thread: have a request or a spawned task send, \
                 which another thread may wake with resume()",
            )
        })
    }

    /// Calls `work`, which waits only where the code that calls may be left.
    fn use_it<R>(&self, work: impl FnOnce(&WebSocket) -> io::Result<R>) -> PyResult<R> {
        let socket = self.socket()?;
        let done = match suspend_refusal(attached()) {
            None => work(socket),
            Some(_) => without_parking(|| work(socket)),
        };
        done.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => PyRuntimeError::saying(error.to_string()),
            io::ErrorKind::TimedOut => {
                timeout::saying("timed out: the client did not read or send")
            }
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected => closed(socket.closure()),
            _ => from_io(error),
        })
    }
}

fn closed(closure: Option<Closure>) -> PyErr {
    WebSocketClosed::saying(match closure {
        None => "the WebSocket is closed: its request has ended".to_owned(),
        Some(Closure { code, reason }) if reason.is_empty() => {
            format!("the WebSocket is closed ({code})")
        }
        Some(Closure { code, reason }) => format!("the WebSocket is closed ({code} {reason})"),
    })
}
