"""The functions by name: this package's, and those registered by other packages through an entry point."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import metadata

from ulogd_tw.aggregation.functions.base import KINDS, MERGES, Function
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.keys import nearest

GROUP = "ulogd_tw.aggregate_functions"
"""The group of entry points; the name of one is that of its function."""

_built_in: dict[str, type[Function]] = {}


class FunctionError(UlogdError):
    """A function whose declaration is incomplete or wrong."""


def register(function: type[Function]) -> type[Function]:
    """Make a function of this package known. Raises `FunctionError` where its declaration is not whole."""
    check(function)
    if function.name in _built_in:
        raise FunctionError(f"{_place(function)}: there is a function {function.name} already; choose another name")
    _built_in[function.name] = function
    return function


def built_in() -> tuple[type[Function], ...]:
    """The functions of this package."""
    return tuple(_built_in.values())


def names() -> list[str]:
    """The names of all functions, those of other packages last."""
    return [*dict.fromkeys((*_built_in, *sorted(point.name for point in metadata.entry_points(group=GROUP))))]


def lookup(name: str) -> type[Function]:
    """The function of this name. ValueError where there is none, or where it cannot be used."""
    if name in _built_in:
        return _built_in[name]
    for point in metadata.entry_points(group=GROUP, name=name):
        return _load(point)
    near = nearest(name, names())
    raise ValueError(
        f"there is no function {name}"
        + (f"; did you mean {near}?" if near else f"; functions are {', '.join(names())}")
    )


def _load(point: metadata.EntryPoint) -> type[Function]:
    """The class of an entry point; whatever a foreign package raises becomes a ValueError."""
    try:
        function = point.load()
        check(function)
    except Exception as error:
        text = str(error) if isinstance(error, FunctionError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the function {point.name} cannot be loaded from {point.value}: {text}") from error
    if function.name != point.name:
        raise ValueError(f"{point.value} has the name {function.name}; its entry point must have the same name")
    return function


def check(function: object) -> None:
    """Raise `FunctionError` with all that the declaration of a function lacks."""
    if not (inspect.isclass(function) and issubclass(function, Function)):
        raise FunctionError(f"{function!r} is not a function (not a subclass of Function)")
    wrong = [*_undeclared(function), *_unwritten(function)] or [*_impossible(function)]
    if wrong:
        raise FunctionError(f"{_place(function)} cannot be registered: {'; '.join(wrong)}")


def _undeclared(function: type[Function]) -> Iterator[str]:
    for name in ("name", "help", "kinds", "merged_by", "bounded"):
        if not hasattr(function, name):
            yield f"{name} is not declared"


def _unwritten(function: type[Function]) -> Iterator[str]:
    written = {name for class_ in function.__mro__ if class_ not in (Function, object) for name in vars(class_)}
    for name in ("result_key", "take"):
        if name not in written:
            yield f"the method {name} is missing"
    if function.ufunc is None and "join" not in written:
        yield "ufunc or the method join is missing, to merge two states"
    if "result" not in written and (function.width > 1 or function.state_type):
        yield "the method result is missing, to turn states into values"


def _impossible(function: type[Function]) -> Iterator[str]:
    if not function.name.isidentifier():
        yield f"{function.name!r} is not a name"
    if not function.kinds or set(function.kinds) - set(KINDS):
        yield f"kinds has to be some of {', '.join(KINDS)}"
    if function.merged_by not in MERGES:
        yield f"merged_by has to be one of {', '.join(MERGES)}"
    if not isinstance(function.bounded, bool):
        yield "bounded has to be True or False"


def _place(function: type[Function]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
