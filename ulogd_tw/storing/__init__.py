"""Stores rows: many at a time, repeated until they are safe.

Batches of an output go in, stored rows come out. `GatheringOutput` is the base of all outputs that gather: it writes in
a thread, repeats what failed, and keeps rows that cannot be stored as dead letters (`Refused`, `Fault`). `SQLOutput` is
its subclass for databases: columns for keys, one transaction a batch. A subclass of `Database` adds one kind of
database: its statements, its types, and a `Fault` for each of its errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulogd_tw.storing.database import Database
    from ulogd_tw.storing.errors import TableError
    from ulogd_tw.storing.gathering import GatheringOutput, gathering_options
    from ulogd_tw.storing.refused import Fault, Refused
    from ulogd_tw.storing.sql_output import SQLOutput

__all__ = ["Database", "Fault", "GatheringOutput", "Refused", "SQLOutput", "TableError", "gathering_options"]
_PLACES = {
    "Database": "database", "Fault": "refused", "GatheringOutput": "gathering", "Refused": "refused",
    "SQLOutput": "sql_output", "TableError": "errors", "gathering_options": "gathering",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """A name for other packages, loaded when it is used: readers of a store need none of them, nor the reactor."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
