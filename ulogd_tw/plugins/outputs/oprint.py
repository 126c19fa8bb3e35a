"""OPRINT: a boundary line for each row, then one line a key."""

from __future__ import annotations

from collections.abc import Iterator

from ulogd_tw.core import text
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.plugin import FLOW, PACKET
from ulogd_tw.writing.objects import printed
from ulogd_tw.writing.text import SYNC, TextOutput, file_option

BOUNDARY = b"===>PACKET BOUNDARY\n"


def boundaries(octets: bytes | bytearray, place: int) -> tuple[int, int]:
    """The beginning of the record at a place, and the number of complete records before it (a `text.Cut`)."""
    if place == len(octets):
        return place, octets.count(BOUNDARY)
    start = max(octets.rfind(BOUNDARY, 0, place + len(BOUNDARY)), 0)
    return start, octets.count(BOUNDARY, 0, start)


class OPRINT(TextOutput):
    """Writes ``===>PACKET BOUNDARY`` for each row, and then ``key=value`` on a line for each of its keys.

    Addresses are in network order (ulogd2 prints 1.0.77.10 for 10.77.0.1), and raw octets are hexadecimal (ulogd2
    prints ``default``). Control characters in a string are written as backslash escapes.
    """

    name = "OPRINT"
    itype = PACKET | FLOW
    options = (file_option("/var/log/ulogd_oprint.log"), SYNC)
    cut = staticmethod(boundaries)

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n" + BOUNDARY, b"\n", b"")

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        fields = [
            ColumnField(f"{key.name}=".encode(), batch.columns[key.name], batch.missing.get(key.name), key, text.PLAIN)
            for key in printed(batch.schema, raw=True)
        ]
        return self._lines.render(fields, batch.n)
