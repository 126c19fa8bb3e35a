"""GPRINT: one line a row, ``key=value`` separated by commas."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ulogd_tw.core import text
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.options import Option, boolean
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, SUM
from ulogd_tw.writing.objects import MOST_SCHEMAS, printed
from ulogd_tw.writing.text import SYNC, TextOutput, file_option


class GPRINT(TextOutput):
    """Writes all keys of a row as ``key=value,key=value``, one line a row.

    Addresses of both families are text, without IP2STR (ulogd2 prints four octets of an IPv6 address). ulogd2's keys
    with raw octets are left out; octets of IPFIX elements are hexadecimal. Control characters in a string are written
    as backslash escapes.
    """

    name = "GPRINT"
    itype = RAW | PACKET | FLOW | SUM
    options = (
        file_option("/var/log/ulogd_gprint.log"),
        SYNC,
        Option(
            "timestamp",
            boolean,
            False,
            "1: begin each line with timestamp=YYYY/MM/DD-hh:mm:ss, the local time of writing.",
        ),
    )

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n", b",", b"")
        self._plans: Bounded[Schema, list[tuple[bytes, Key]]] = Bounded(MOST_SCHEMAS)

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
            plan = self._plans[schema] = [(f"{key.name}=".encode(), key) for key in printed(schema)]
        return plan
