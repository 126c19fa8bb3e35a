"""GPRINT: one line a row, ``key=value`` with commas between."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ulogd_tw.core import text
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key, registry
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.options import Option, boolean
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, SUM
from ulogd_tw.writing.text import SYNC, TextOutput, file_option

MOST_SCHEMAS = 1024
"""Schemas (templates of exporters) whose plan is kept."""


def printed(schema: Schema, raw: bool = False) -> list[Key]:
    """The keys of a schema that are printed. ulogd2 leaves out its raw keys (``raw.pkt``); unless `raw`, so do we.

    Copies that a stack made for ``key@instance`` are no keys of their own.
    """
    left_out = () if raw else {k.name for k in registry.ulogd.values() if k.type.kind == "octets"}
    return [key for key in schema.values() if key.name not in left_out and "@" not in key.name]


class GPRINT(TextOutput):
    """Print every key of a row as ``key=value,key=value``, a line each.

    Addresses are text in both families, also without IP2STR (ulogd2 prints an IPv6 address as four of its octets). The
    keys of ulogd2 that hold raw octets are left out, those of IPFIX are hexadecimal. Control characters
    in a string are printed as backslash escapes.
    """

    name = "GPRINT"
    itype = RAW | PACKET | FLOW | SUM
    options = (
        file_option("/var/log/ulogd_gprint.log"),
        SYNC,
        Option("timestamp", boolean, False, "1: begin lines with timestamp=YYYY/MM/DD-hh:mm:ss, local time of output"),
    )

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n", b",", b"")
        self._plans: dict[Schema, list[tuple[bytes, Key]]] = {}

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        fields = [
            ColumnField(piece, batch.columns[key.name], batch.missing.get(key.name), key, text.PLAIN)
            for piece, key in self._plan(batch.schema)
        ]
        if self.config.timestamp:
            now = time.strftime("timestamp=%Y/%m/%d-%H:%M:%S", time.localtime(batch.now))
            fields.insert(0, Field(now.encode()))
        return self._lines.render(fields, batch.n)

    def _plan(self, schema: Schema) -> list[tuple[bytes, Key]]:
        plan = self._plans.get(schema)
        if plan is None:
            if len(self._plans) >= MOST_SCHEMAS:
                self._plans.clear()
            plan = self._plans[schema] = [(f"{key.name}=".encode(), key) for key in printed(schema)]
        return plan
