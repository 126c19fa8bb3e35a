"""Rows for ClickHouse: columns become its Native format, which is sent over HTTP and read by its columns' types.

`native` writes octets, `types` reads the names of types, `values` turns columns of a batch into those of a table,
`ordering` sorts them. `client` speaks HTTP, `faults` knows the errors, `schema` and `rollups` the statements, and
`database` stores batches.
"""
