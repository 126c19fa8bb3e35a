"""Writes rows into tables of databases: columns for keys, one transaction a batch, retries.

Batches of an output go in, committed rows come out. `SQLOutput` is the part of SQLITE3 and MYSQL in the reactor: it
chooses columns for keys and repeats a batch until it is stored. A subclass of `Database` adds one kind of database: its
statements, its types, and a `Fault` for each of its errors. Rows that do not fit the table are collected in `Refused`.
"""

from ulogd_tw.storing.database import Database, Fault, Refused
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.sql_output import SQLOutput

__all__ = ["Database", "Fault", "Refused", "SQLOutput", "TableError"]
