"""The functions of AGGREGATE beside its sums: one class a function, with all of its facts.

A new function is a class in one of these modules, marked with `register`. Other packages register theirs by an entry
point of the group ``ulogd_tw.aggregate_functions``.
"""

import importlib
import pkgutil

from ulogd_tw.aggregation.functions.base import KINDS, NUMBERS, WHOLE_NUMBERS, Function, FunctionSpec
from ulogd_tw.aggregation.functions.option import option_text, parse, unsaved
from ulogd_tw.aggregation.functions.registry import check, lookup, names, register

__all__ = [
    "KINDS",
    "NUMBERS",
    "WHOLE_NUMBERS",
    "Function",
    "FunctionSpec",
    "check",
    "lookup",
    "names",
    "option_text",
    "parse",
    "register",
    "unsaved",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
