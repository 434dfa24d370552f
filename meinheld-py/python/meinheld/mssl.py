"""TLS over sockets that park the coroutine; `meinheld.patch` has the contexts of `ssl` make them.

OpenSSL reads and writes the descriptor itself, by the time-out of the socket's object. In a coroutine that is 0
for the moment of each try, and what it then asks for, input or room, is waited for.
"""

from __future__ import annotations

import _socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

from meinheld import msocket

__all__ = ["SSLSocket"]

# What of OpenSSL's object may wait.
_WAITING = frozenset({"do_handshake", "read", "shutdown", "write"})


class _Retrying:
    """The TLS object of a socket; what would block is tried again when the descriptor is ready."""

    __slots__ = ("_inner", "_socket")

    def __init__(self, inner: Any, socket: SSLSocket) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_socket", weakref.ref(socket))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _WAITING:
            return found
        socket = self._socket()
        return found if socket is None else lambda *args: socket._retry_tls(found, args)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)


class SSLSocket(ssl.SSLSocket, msocket.socket):  # type: ignore[misc]
    """A TLS socket whose operations park the coroutine instead of blocking."""

    @property
    def _sslobj(self) -> Any:
        return self.__dict__.get("_sslobj")

    @_sslobj.setter
    def _sslobj(self, inner: Any) -> None:
        self.__dict__["_sslobj"] = None if inner is None else _Retrying(inner, self)

    def _retry_tls(self, operation: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if not self._parks():
            return operation(*args)
        deadline = self._deadline()
        while True:
            try:
                return self._try_tls(operation, args)
            except ssl.SSLWantReadError:
                self._wait(deadline, write=False)
            except ssl.SSLWantWriteError:
                self._wait(deadline, write=True)

    def _try_tls(self, operation: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        seconds = self.gettimeout()
        _socket.socket.settimeout(self, 0)
        try:
            return operation(*args)
        finally:
            if self.fileno() >= 0:
                _socket.socket.settimeout(self, seconds)
