"""A flow store without a server: directories of Parquet files, an hour each.

Batches of an output go in, files come out: written by `Writer`, made fewer by `compaction`, deleted by `retention`.
`files` lists those that can hold flows of a time. `Description` is store.json, which says what the columns are.
"""

from ulogd_tw.storing.parquet.description import Description
from ulogd_tw.storing.parquet.directory import StoredFile, files

__all__ = ["Description", "StoredFile", "files"]
