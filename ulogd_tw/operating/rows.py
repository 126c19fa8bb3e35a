"""Rows as lines of JSON, for the few that somebody looks at."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

from ulogd_tw.core.batch import Batch, plain_values
from ulogd_tw.core.readable import readable
from ulogd_tw.core.text import ipv6_text
from ulogd_tw.core.types import Type


def row_lines(batch: Batch) -> list[str]:
    """Each row as a JSON object in canonical values, without missing ones. For the few rows of a tap."""
    values = []
    for name, key in batch.schema.items():
        held, shown = readable(batch.columns[name], key)
        column = [_canonical(value, shown.type) for value in plain_values(held, shown)]
        missing = batch.missing.get(name)
        if missing is not None:
            column = [None if gone else value for value, gone in zip(column, missing, strict=True)]
        values.append(column)
    return [
        json.dumps({name: value for name, value in zip(batch.schema, row, strict=True) if value is not None})
        for row in zip(*values, strict=True)
    ]


def _canonical(value: Any, type_: Type) -> Any:
    """Addresses as text, octets as hexadecimal digits, strings as text, lists and numbers as they are."""
    if type_.kind == "ipv4":
        return str(IPv4Address(value))
    if type_.kind == "ipv6":
        return ipv6_text(value)
    if type_.kind == "mac":
        return ":".join(f"{octet:02x}" for octet in value.to_bytes(6, "big"))
    if type_.kind == "list":
        return json.loads(value)
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "backslashreplace") if type_.kind == "string" else value.hex()
    return value
