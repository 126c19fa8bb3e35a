"""Files of Parquet with rows of address translation, as PARQUET writes them, from dictionaries."""

import uuid
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple


class StoredFile(NamedTuple):
    """A file with the hour and the earliest start (ms) of its rows."""

    path: Path
    hour: int
    start: int

    def overlaps(self, since, until):
        """As the directory of a store says it, from the name of the file."""
        return (self.hour + 1) * HOUR > since * 1000 and self.start < until * 1000


TYPES = {
    "Address": "UUID", "addr": "UUID", "exporter": "UUID", "_ipv4": "UUID", "Port": "USMALLINT", "port": "USMALLINT",
    "Reason": "UTINYINT", "protocol": "UTINYINT", "protocolIdentifier": "UTINYINT", "Milliseconds": "UBIGINT",
    "Microseconds": "UBIGINT", "arrival": "UBIGINT", "vent": "UTINYINT", "Start": "USMALLINT", "End": "USMALLINT",
    "Size": "USMALLINT", "NumPorts": "USMALLINT", "Id": "UINTEGER", "FID": "UINTEGER", "ID": "UINTEGER",
    "ct.event": "UINTEGER",
}  # fmt: skip
HOUR = 3_600_000


def number(address):
    """An address of either family as 128 bits."""
    found = ip_address(address)
    return int(found) if found.version == 6 else int(found) | 0xFFFF << 32


def type_of(name):
    """The type of a column by the end of its name."""
    return next(kind for end, kind in TYPES.items() if name.endswith(end))


def _literal(value, kind):
    if value is None:
        return f"NULL::{kind}"
    return f"'{uuid.UUID(int=number(value))}'::UUID" if kind == "UUID" else f"{value}::{kind}"


def write(connection, path, rows):
    """A file with these rows; its `StoredFile`, in the hour of the last."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {name: type_of(name) for name in names}
    lines = ", ".join("(" + ", ".join(_literal(row.get(name), kinds[name]) for name in names) + ")" for row in rows)
    quoted = ", ".join(f'"{name}"' for name in names)
    connection.execute(f"COPY (SELECT * FROM (VALUES {lines}) r({quoted})) TO '{path}' (FORMAT parquet)")
    times = [time for row in rows for name, time in row.items() if name.endswith("Milliseconds") and time is not None]
    return StoredFile(path, max(times) // HOUR, min(times) // 1000 * 1000)
