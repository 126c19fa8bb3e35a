"""A shape of traffic, and the programs that are measured on it: what a row of the table comes from."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import sending, traffic
from benchmarks.measuring import GLANCE, WINDOW, spent
from tests.support import free_port

OURS = "ulogd_tw"
"""Name of this program among those of a shape."""


@dataclass
class Shape:
    """What is measured: a figure a run of each program. `quick` makes it as short as it can be."""

    name: str
    title: str
    unit: str
    programs: dict
    """Maker by name."""
    more: bool = False
    """Whether a higher figure is the better one."""
    lossless: bool = True
    """Whether rows may not be lost."""
    quick: bool = False

    @property
    def window(self):
        """Seconds that a program must be idle for."""
        return GLANCE if self.quick else WINDOW

    def measure(self, make):
        """(figure, part of the rows that came through or None) of one run."""
        raise NotImplementedError

    def close(self):
        """Remove what the runs have shared."""


@dataclass
class Collecting(Shape):
    """Records over UDP at a rate, for some seconds."""

    messages: Callable = traffic.ipfix
    rate: int = 0
    seconds: float = 2.5
    share: bool = False
    """Whether the figure is a share of a core, instead of CPU seconds a million records that came through."""

    @property
    def n(self):
        """Records of a run."""
        return max(self.rate // 10, 280) if self.quick else int(self.rate * self.seconds)

    @property
    def pace(self):
        """Records a second; a quick run is none of a high rate, at which a busy machine loses some."""
        return min(self.rate, 100_000) if self.quick else self.rate

    @cached_property
    def files(self):
        """(folder, its messages with templates, those with records, how many of each), made once."""
        folder = tempfile.TemporaryDirectory(prefix="utw-bench-")
        made = list(self.messages(self.n))
        parts = [[m for m in made if traffic.tells_templates(m[1]) == told] for told in (True, False)]
        paths = [Path(folder.name) / name for name in ("templates", "records")]
        return folder, *paths, *map(sending.write, paths, parts)

    def measure(self, make):
        """Templates first, which are not counted; then the records."""
        _, templates, records, _, count = self.files
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as folder:
            port = free_port("udp")
            place, collector = f"127.0.0.1:{port}", make(Path(folder), port)
            try:
                collector.daemon.start()
                with sending.Sender(place, 2000, templates, count * self.pace / self.n, records) as sender:
                    sender.send()
                    used, seconds = spent(collector.daemon.pid, sender.send, self.window)
            finally:
                collector.stop()
            rows = collector.rows()
        through = max(self.n if rows is None else rows, 1)  # what is lost has cost little
        value = used / seconds * 100 if self.share else used / through * 1e6
        return value, None if rows is None else rows / self.n

    def close(self):
        """Remove the messages."""
        if "files" in vars(self):
            self.files[0].cleanup()
