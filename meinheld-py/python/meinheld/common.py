"""What middleware shares: the keys of an environ, and a continuation made of a client.

`ContinuationMiddleware` puts a continuation into the environ; a program that has the client only
makes one with `Continuation(environ[CLIENT_KEY])`.
"""

from __future__ import annotations

from typing import Any

from meinheld import _meinheld

__all__ = ["CLIENT_KEY", "CONTINUATION_KEY", "Continuation"]

CLIENT_KEY = "meinheld.client"
CONTINUATION_KEY = "meinheld.continuation"


class Continuation:
    """A continuation of the running request, whose client is given."""

    def __init__(self, client: _meinheld.Client) -> None:
        """Make it, in the request that is to suspend."""
        self.client = client
        self._continuation = client.continuation()

    def suspend(self, timeout: float | None = 0) -> Any:
        """Wait for `resume` or `throw`; return what `resume` passed."""
        return self._continuation.suspend(timeout)

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Make the suspended request ready."""
        self._continuation.resume(*args, **kwargs)

    def throw(self, exc: BaseException | type[BaseException]) -> None:
        """Make the suspended request ready, to raise `exc` there."""
        self._continuation.throw(exc)

    @property
    def suspended(self) -> bool:
        """Whether the request waits in `suspend`."""
        return self._continuation.suspended

    @property
    def connected(self) -> bool:
        """Whether the request's client is still there."""
        return self._continuation.connected
