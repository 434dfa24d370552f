"""A WSGI server in which every request runs in a coroutine and can suspend anywhere.

What `meinheld.server` offers is here too, as it was in the versions of old; and `meinheld.mlogging`,
which is imported when it is first asked for, since that sets its loggers.
"""

import importlib
from types import ModuleType

from meinheld import _interpreter  # noqa: F401, I001  it comes first: it says why nothing else loads
from meinheld import server
from meinheld._meinheld import __version__
from meinheld.server import *  # noqa: F403

__all__ = ["__version__", *server.__all__]


def __getattr__(name: str) -> ModuleType:
    if name == "mlogging":
        return importlib.import_module("meinheld.mlogging")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
