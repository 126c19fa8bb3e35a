"""PARTS: many rows at a time, each time as a new file. A template of an output that gathers."""

import errno
import os
from pathlib import Path

from ulogd_tw.core import durable
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.lines import Lines
from ulogd_tw.core.options import Option, text, words
from ulogd_tw.core.phrases import value
from ulogd_tw.core.plugin import FLOW, PACKET
from ulogd_tw.storing import Fault, GatheringOutput, Refused, gathering_options
from ulogd_tw.storing.counts import DISK, GATHERING


class PARTS(GatheringOutput):
    """Writes the values of some keys to files of a directory, one for each time; a name tells its run and number.

    GatheringOutput does the rest: rows wait for `flush` seconds, or until there are as many as in `gather`; a write
    that fails is repeated, and rows wait meanwhile. What waits at a stop goes to the spool. With state_dir, a kill
    loses no row without a count.
    """

    name = "PARTS"
    itype = PACKET | FLOW
    counts = (*GATHERING, *DISK)
    gather = Gather(rows=100_000, octets=16 << 20)
    together = True
    """`store` takes batches of several schemas in one call."""
    options = (
        Option("directory", text, None, "Directory of the files; it must exist.", mandatory=True),
        Option("keys", words, None, "Keys to write, such as sourceAddress octetDeltaCount.", mandatory=True),
        *gathering_options(flush=5.0),
    )

    def __init__(self, instance, config=None):
        super().__init__(instance, config)
        self._run = os.urandom(8).hex()

    @property
    def run(self):
        """The name of this run."""
        return self._run

    @property
    def where(self):
        """The destination, for log lines."""
        return self.config.directory

    def requests(self, wanted):
        """All keys in `keys` are mandatory: a key that no plugin above gives is a mistake of the stack."""
        return dict.fromkeys(self.config.keys, True)

    def store(self, batches, number, again):
        """In the thread: all rows are on the disk afterwards, or it raises. Repeated, it writes the same file."""

        def put(file):
            for batch in batches:
                fields = [value(found) for name in self.config.keys if (found := self.find(batch, name))]
                for octets, _ in Lines(b"\n", b"\t", b"").render(fields, batch.n):
                    file.write(octets)

        durable.write(self._path(self._run, number), put)
        return Refused()  # `Refused.add` gives rows that cannot be stored; they are counted, and kept as dead letters

    def committed(self, run, number):
        """After a kill: whether the last write of that run was done."""
        return self._path(run, number).exists()

    def meaning(self, error):
        """Rows wait while the disk is full or the directory is away; any other error is a fault of this program."""
        if not isinstance(error, OSError):
            return None
        return Fault("full" if error.errno == errno.ENOSPC else "disk", f"see to {self.config.directory}")

    def _path(self, run, number):
        return Path(self.config.directory) / f"{run}-{number}.tsv"
