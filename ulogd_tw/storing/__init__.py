"""Stores rows: many at a time, repeated until they are safe.

Batches of an output go in, stored rows come out. `GatheringOutput` is the base of all outputs that gather: it writes in
a thread, repeats what failed, and keeps rows that cannot be stored as dead letters (`Refused`, `Fault`). `SQLOutput` is
its subclass for databases: columns for keys, one transaction a batch. A subclass of `Database` adds one kind of
database: its statements, its types, and a `Fault` for each of its errors.
"""

from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.gathering import GatheringOutput, gathering_options
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.sql_output import SQLOutput

__all__ = ["Database", "Fault", "GatheringOutput", "Refused", "SQLOutput", "TableError", "gathering_options"]
