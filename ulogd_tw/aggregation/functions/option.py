"""The option `functions` of AGGREGATE: its text, and the meaning of its words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ulogd_tw.aggregation.functions.base import NUMBERS, Function, FunctionSpec
from ulogd_tw.aggregation.functions.registry import built_in, lookup
from ulogd_tw.core.keys import known, nearest, registry


def option_text() -> str:
    """The text of the option, from the declarations of the functions."""
    functions = ", ".join(_described(function) for function in built_in())
    return (
        f"Further columns, such as p95=quantile(octetDeltaCount,0.95) or max(octetDeltaCount); without a name a "
        f"column is called FUNCTION_KEY. Functions: {functions}."
    )


def _described(function: type[Function]) -> str:
    example = function.name if function.argument is None else f"{function.name}(KEY,{function.argument})"
    return f"{example} ({function.help})" if function.help else example


def parse(text: str) -> list[FunctionSpec]:
    """The functions of the option. ValueError with what is wrong with the first wrong word."""
    found = []
    for word in _words(text):
        match = re.fullmatch(r"(?:([\w.]+)=)?(\w+)\(([^(),]*)(?:,([^(),]*))?\)", word)
        if match is None:
            raise ValueError(
                f"{word!r} is not of the form FUNCTION(KEY), such as max(octetDeltaCount) or "
                "p95=quantile(octetDeltaCount,0.95)"
            )
        found.append(_spec(word, *match.groups()))
    names = [spec.name for spec in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two functions are called {name}; name one of them: other={name.partition('_')[0]}(...)")
    return found


def unsaved(saved: list[Any]) -> FunctionSpec:
    """The function of `FunctionSpec.saved`. ValueError where it is not there any more."""
    name, function_name, of, argument = saved
    function, key = lookup(str(function_name)), known(str(of).partition("@")[0])
    if key is None or key.type.kind not in function.kinds:
        raise ValueError(f"there is no {function_name}({of}) any more")
    return FunctionSpec(str(name), function, str(of), key, None if function.argument is None else float(argument))


def _words(text: str) -> Iterator[str]:
    """The functions, with commas or blanks between them; those within brackets belong to them."""
    for word in re.split(r"[\s,]+(?![^(]*\))", text.strip()):
        if word:
            yield re.sub(r"\s", "", word)


def _spec(word: str, name: str | None, function_name: str, of: str, argument: str | None) -> FunctionSpec:
    function = lookup(function_name)
    key = known(of.partition("@")[0])
    if key is None:
        near = nearest(of, registry.names())
        raise ValueError(f"{word}: there is no key {of!r}" + (f"; did you mean {near}?" if near else ""))
    if key.type.kind not in function.kinds:
        wrong = "is not a number" if set(function.kinds) <= set(NUMBERS) else f"is not a key for {function_name}"
        raise ValueError(f"{word}: {of} {wrong}")
    number = _argument(word, function, of, argument)
    return FunctionSpec(name or f"{function_name}_{of}", function, of, key, number)


def _argument(word: str, function: type[Function], of: str, argument: str | None) -> float | None:
    """The number behind the key. ValueError where it is missing, wrong or too much."""
    if function.argument is None:
        if argument is None:
            return None
        others = " and ".join(_argued(other, of) for other in built_in() if other.argument is not None)
        raise ValueError(f"{word}: {function.name} takes nothing after its key; {others}")
    if argument is None:
        raise ValueError(f"{word}: {_argued(function, of)}")
    try:
        return function.read_argument(argument)
    except ValueError as error:
        raise ValueError(f"{word}: {error}") from None


def _argued(function: type[Function], of: str) -> str:
    return f"a {function.name} has a {function.argument_name}: {function.name}({of},{function.argument})"
