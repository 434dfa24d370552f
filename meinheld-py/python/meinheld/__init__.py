"""A WSGI server in which every request runs in a coroutine and can suspend anywhere."""

from meinheld._meinheld import __version__

__all__ = ["__version__"]
