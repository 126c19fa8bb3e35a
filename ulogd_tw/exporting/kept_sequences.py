"""The Sequence Numbers of an exporter's datagram collectors over a restart, in a file in memory.

A collector that knows its exporters by their address then sees no restart; over TCP and SCTP each session begins at 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from ulogd_tw.core.mapped import MappedWords, read, split
from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.udp import DatagramCollector

VERSION = 1
_KNOWN, _NUMBER = 1 << 32, 0xFFFFFFFF
_MOST_OCTETS = 4 << 20


class KeptSequences:
    """The file at `path` with the number of each collector, by its URL and Observation Domain. Raises OSError."""

    def __init__(self, path: str, collectors: Iterable[Collector], former: dict[str, int]) -> None:
        found = [collector for collector in collectors if isinstance(collector, DatagramCollector)]
        names = [_name(collector) for collector in found]
        head = json.dumps({"ulogd_tw": "sequences", "version": VERSION, "collectors": names}).encode()
        self._file = MappedWords(path, len(head).to_bytes(8, "little") + head, len(found))
        self._collectors = found
        for place, collector in enumerate(found):
            collector.sequence = former.get(names[place], 0)
            collector.note = partial(self.note, place)
            collector.note(collector.sequence)

    def note(self, place: int, sequence: int) -> None:
        """The next message of this collector has this number."""
        self._file.words[place] = _KNOWN | sequence & _NUMBER

    def close(self) -> None:
        """Let go of the file, which stays, with the numbers of the end."""
        for collector in self._collectors:
            collector.note(collector.sequence)
            collector.note = lambda sequence: None
        self._file.close()


def _name(collector: Collector) -> str:
    return f"{collector.settings.domain} {collector.url}"


def load(path: str) -> dict[str, int]:
    """The numbers that an earlier run has left. Raises OSError, and ValueError for a file that is not one of these."""
    try:
        octets = read(path, _MOST_OCTETS)
    except FileNotFoundError:
        return {}
    length = int.from_bytes(octets[:8], "little")
    try:
        head = json.loads(octets[8 : 8 + length])
        found, names = (head["ulogd_tw"], head["version"]), [str(name) for name in head["collectors"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is damaged") from None
    if found != ("sequences", VERSION):
        raise ValueError(f"it is of another kind or release; this one reads version {VERSION}")
    words = split(octets, 8 + length)
    if len(words) < len(names):
        raise ValueError("it is cut")
    return {name: word & _NUMBER for name, word in zip(names, words, strict=False) if word & _KNOWN}
