"""Questions about stored flows, and the answers of stores.

A `Question` and a filter of MATCH go in; `Asking` plans which store answers which part of it exactly, has DuckDB read
their files with the rows that are in none yet, and gives events: the columns, rows, progress, an end. `answers` writes
them as JSON, CSV or Arrow. `who_had` finds who had an outside address, from rows of address translation.
"""

__all__ = [
    "answers", "asking", "directories", "errors", "filters", "held", "nat_rows", "nat_store", "questions", "reading",
    "stores", "times", "values", "who_had",
]  # fmt: skip
"""Modules for other packages: commands and the service each need some of them."""
