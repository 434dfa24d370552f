"""The application: found by name, with a suggestion when there is none of that name."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from meinheld.cli.options import Options
from meinheld.cli.words import (
    ApplicationError,
    Refusal,
    a_kind,
    application_frames,
    describe,
    did_you_mean,
)


def load(options: Options) -> tuple[Callable[..., Any], str]:
    """Import the application; return it and the name it is known by."""
    enter(options.chdir)
    module = import_module(options.module)
    found, attribute = find_attribute(module, options)
    name = f"{options.module}:{attribute}"
    if options.factory:
        found = call_factory(found, name)
        name += "()"
    check_application(found, name, options.factory)
    return found, name


def enter(directory: str | None) -> None:
    """Go to the directory and import from it before anywhere else."""
    try:
        if directory is not None:
            os.chdir(directory)
        here = os.getcwd()
    except OSError as error:
        raise Refusal(f"cannot go to directory {directory or '.'}: {error.strerror}") from None
    sys.path.insert(0, here)


def import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        # With frames of its own the application did run: what is missing is a
        # module that it imports, and that is its own error.
        if application_frames(error.__traceback__) is None:
            raise Refusal(module_not_found(name, error)) from None
        raise ApplicationError(f"cannot import {name}: {describe(error)}", error) from None
    except BaseException as error:
        raise ApplicationError(f"cannot import {name}: {describe(error)}", error) from None


def module_not_found(name: str, error: ModuleNotFoundError) -> str:
    """Say which part of a dotted name is missing and which name comes nearest."""
    missing = error.name or name
    parent, _, last = missing.rpartition(".")
    if not parent:
        here = os.getcwd()
        hint = did_you_mean(last, module_names([here]))
        return f"no module named {last!r} in {here} or on sys.path{hint}"
    directories = getattr(sys.modules.get(parent), "__path__", None)
    if directories is None:
        return f"{parent!r} is a module, not a package{did_you_mean(last, [last], parent + ':')}"
    hint = did_you_mean(last, module_names(directories), parent + ".")
    return f"no module named {last!r} in package {parent!r}{hint}"


def module_names(directories: Iterable[str]) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(list(directories))]


def find_attribute(module: ModuleType, options: Options) -> tuple[Any, str]:
    """Follow the attribute that is asked for, or try the usual names."""
    usual = ("create_app", "make_app") if options.factory else ("app", "application")
    wanted = (options.attribute,) if options.attribute else usual
    for attribute in wanted:
        found: Any = module
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError:
            continue
        return found, attribute
    names = " or ".join(repr(attribute) for attribute in wanted)
    raise Refusal(f"module {options.module!r} has no {names}{nearest_callable(module, wanted[0])}")


def nearest_callable(module: ModuleType, wanted: str) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and (
            not inspect.isroutine(value)
            and not inspect.isclass(value)
            or getattr(value, "__module__", module.__name__) == module.__name__
        )
    ]
    prefix = f"{module.__name__}:"
    return did_you_mean(wanted, own, prefix) or (
        f"; its callables are {', '.join(own[:5])}" if own else "; it defines no callable"
    )


def call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise Refusal(f"{name} is {a_kind(factory)}; --factory needs a callable")
    if not accepts(factory, 0):
        raise Refusal(f"{name} cannot be called without arguments, as --factory does")
    try:
        return factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ApplicationError(f"cannot create {name}(): {describe(error)}", error) from None


def check_application(found: Any, name: str, made: bool) -> None:
    if not callable(found):
        raise Refusal(f"{name} is {a_kind(found)}; a WSGI application is a callable")
    if not accepts(found, 2):
        hint = "; is it a --factory?" if not made and accepts(found, 0) else ""
        raise Refusal(f"{name} does not take the two arguments environ, start_response{hint}")


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether the callable takes that many positional arguments, if it says."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True
