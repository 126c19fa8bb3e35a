"""CSVIN: flow records from a text file, one a line. A template of an input."""

import ipaddress
from itertools import islice

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.counters import Fault
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Option, boolean
from ulogd_tw.core.paths import input_file
from ulogd_tw.core.plugin import FLOW, Input

_NAMES = ("sourceIPv4Address", "destinationIPv4Address", "protocolIdentifier", "packetDeltaCount", "octetDeltaCount")
_KEYS = tuple(known(name) for name in _NAMES)
_SCHEMA = Schema(_KEYS)
_ROWS = 4096
"""Lines of one batch: large enough to work by column, small enough to leave the reactor its turn."""


class CSVIN(Input):
    """Reads flow records from a file with source,destination,protocol,packets,octets on each line (IPv4)."""

    name = "CSVIN"
    otype = FLOW
    provides = _KEYS
    options = (
        Option("file", input_file, None, "Path of the file to read.", mandatory=True),
        Option("exit", boolean, False, "1: end the service once the file is read and all rows are written."),
    )
    counts = (Fault("line", "lines", "Lines that are not five fields of a flow."),)

    def __init__(self, instance, config=None):
        super().__init__(instance, config)
        self._file = None
        self._begun = self._paused = False

    @property
    def exits(self):
        """Whether the service ends after the last row."""
        return self.config.exit

    def open(self):
        """Open the file. A StartError says why a stack cannot run, and what to do."""
        try:
            self._file = open(self.config.file, encoding="ascii", errors="replace")
        except OSError as error:
            raise StartError(f"file {self.config.file}: {error.strerror}", "make it readable for the service") from None

    def begin(self):
        """All plugins are open: rows may go out from now on."""
        self._begun = True

    def pause(self):
        """An output below is slow. A file can wait, so nothing is lost."""
        self._paused = True

    def resume(self):
        """The output has room again."""
        self._paused = False

    def wake(self, now):
        """Called by the service when its time has come: emit a batch; the seconds until the next call."""
        if not self._begun or self._paused:
            return 0.1
        if self.at_end:
            return None
        lines = list(islice(self._file, _ROWS))
        if lines:
            self._emit(lines, now)
            return 0.0
        self.at_end = True
        self.ended()
        return None

    def stop(self):
        """Close the file; nothing received is left inside."""
        if self._file is not None:
            self._file.close()

    def _emit(self, lines, now):
        rows = [row for row in map(self._row, lines) if row]
        self.counters.rows_received += len(rows)
        if rows:
            columns = {
                key.name: np.array(values, key.type.array_dtype)
                for key, values in zip(_KEYS, zip(*rows, strict=True), strict=True)
            }
            self.emit(Batch(_SCHEMA, columns, n=len(rows), now=now, held=True))

    def _row(self, line):
        """The numbers of a line, None for a wrong one: what a file says must not end the service."""
        try:
            source, destination, protocol, packets, octets = line.split(",")
            ends = (int(ipaddress.IPv4Address(word.strip())) for word in (source, destination))
            row = (*ends, int(protocol), int(packets), int(octets))
            fits = row[2] < 1 << 8 and max(row[3:]) < 1 << 64 and min(row) >= 0
        except ValueError:
            fits = False
        if not fits:
            self.counters.errors["line"] += 1
            return None
        return row
