"""Messages for an unreachable collector, on disk: IPFIX files (RFC 5655) in a directory, oldest first.

A file has its templates before their data, so that any reader of IPFIX understands it. A file left by a killed process
is cut back to its last complete Message.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ulogd_tw.core import durable
from ulogd_tw.core.errors import MessageError
from ulogd_tw.ipfix.builder import Messages, template_messages
from ulogd_tw.ipfix.message import (
    FIRST_DATA_SET,
    HEADER,
    MAX_LENGTH,
    OPTIONS_TEMPLATE_SET,
    SET_HEADER,
    TEMPLATE_SET,
    cut_sets,
    whole_messages,
)
from ulogd_tw.ipfix.record_encoder import FIRST_IDENT
from ulogd_tw.ipfix.template import Template, parse_set, record_ends
from ulogd_tw.transports.url import Url

FILE_OCTETS = 1 << 20
"""A file ends when it has so many octets: what is sent twice after a kill is one file at most."""


@dataclass(eq=False, slots=True)
class SpoolFile:
    """One file: what is in it, when its newest records came, and whether somebody sends it now."""

    path: Path
    octets: int = 0
    records: int = 0
    newest: float = 0.0
    taken: bool = False
    sent: int = 0
    """Records at its beginning that have arrived."""


def place_of(directory: str | Path, instance: str, url: Url) -> Path:
    """The directory of one collector of an exporter."""
    return Path(directory) / "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{instance}-{url}")


def records_kept(path: Path) -> int:
    """The records in a file of a spool; 0 where it cannot be read."""
    try:
        octets = path.read_bytes()
    except OSError:
        return 0
    return sum(messages.all_records for messages in _messages(octets[: whole_messages(octets)[1]], {}, None))


class MessageSpool:
    """The files of one collector. Only one thread uses it at a time."""

    def __init__(self, directory: Path, most_octets: int, most_age: float) -> None:
        self._directory = directory
        self._most_octets = most_octets
        self._most_age = most_age
        self._files: deque[SpoolFile] = deque()
        self._open: SpoolFile | None = None
        self._told: set[int] = set()
        self._number = 0

    @classmethod
    def of(cls, directory: str, instance: str, url: Url, most_octets: int, most_age: float) -> MessageSpool:
        """The spool of one collector of an exporter."""
        return cls(place_of(directory, instance, url), most_octets, most_age)

    @property
    def records(self) -> int:
        """Records waiting here, without those already delivered."""
        return sum(file.records - file.sent for file in self._files)

    @property
    def octets(self) -> int:
        return sum(file.octets for file in self._files)

    def __bool__(self) -> bool:
        return any(not file.taken for file in self._files)

    def open(self, now: float, steady: float) -> None:
        """Make the directory, and find what an earlier run left. Raises OSError.

        `now` is the wall clock, which files have their time from; `steady` the clock of `append` and `trim`.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._directory.glob("*.ipfix")):
            octets = path.read_bytes()
            count, whole = whole_messages(octets)
            if not count:
                path.unlink()
                continue
            if whole < len(octets):
                os.truncate(path, whole)
            records = sum(messages.all_records for messages in _messages(octets[:whole], {}, None))
            age = max(now - path.stat().st_mtime, 0.0)
            self._files.append(SpoolFile(path, whole, records, steady - age))
            self._number = max(self._number, int(path.stem) + 1 if path.stem.isdecimal() else 0)

    def append(
        self, blocks: Sequence[Messages], templates: Mapping[int, Template], domain: int, now: float, steady: float
    ) -> None:
        """Write these blocks, exported `now`; they are on the disk when it returns. Raises OSError."""
        file = self._open
        if file is None or file.octets >= FILE_OCTETS or file.taken:
            file = SpoolFile(self._directory / f"{self._number:012d}.ipfix")
            self._number += 1
            self._told = set()
        parts: list[bytes] = []
        sequence = file.records
        for block in blocks:
            new = [templates[ident] for ident in block.templates if ident not in self._told]
            self._told.update(template.ident for template in new)
            parts += template_messages(new, MAX_LENGTH, sequence, domain, now)
            parts.append(block.stamped(sequence, domain, now).tobytes())
            sequence += block.all_records
        octets = b"".join(parts)
        self._open = None  # until it is written whole
        try:
            with open(file.path, "r+b" if file.octets else "wb", opener=durable.private) as out:
                out.seek(file.octets)
                out.write(octets)
                out.truncate()
                durable.settle(out)
            if not file.octets:
                durable.settle_names(self._directory)
        except OSError:
            self._told = set()
            raise
        if not file.octets:
            self._files.append(file)
        file.octets += len(octets)
        file.records, file.newest = sequence, steady
        self._open = file

    def take(self, templates: dict[int, Template]) -> tuple[SpoolFile, list[Messages]] | None:
        """The oldest file not being sent, with its undelivered Messages; None if there is none.

        `templates` gets the templates of these Messages.
        """
        file = next((file for file in self._files if not file.taken), None)
        if file is None:
            return None
        if file is self._open:
            self._open = None
        found, skip = [], file.sent
        for messages in _messages(file.path.read_bytes(), templates, file):
            if skip >= messages.all_records:
                skip -= messages.all_records
                continue
            found.append(messages)
        file.taken = True
        return file, found

    def done(self, file: SpoolFile) -> None:
        """All of a file has arrived."""
        file.path.unlink(missing_ok=True)
        self._files.remove(file)

    def back(self, file: SpoolFile, left: int) -> None:
        """The last `left` records of a file that was taken have not arrived."""
        file.taken = False
        file.sent = max(file.records - left, 0)

    def trim(self, steady: float) -> Counter[str]:
        """Give up the oldest files beyond the bounds; records by reason."""
        given_up: Counter[str] = Counter()
        while self._files and not self._files[0].taken:
            oldest = self._files[0]
            if steady - oldest.newest > self._most_age:
                reason = "spool_age"
            elif self.octets > self._most_octets:
                reason = "spool_size"
            else:
                break
            given_up[reason] += oldest.records - oldest.sent
            if oldest is self._open:
                self._open = None
            self.done(oldest)
        return given_up


def _messages(octets: bytes, templates: dict[int, Template], origin: SpoolFile | None) -> Iterator[Messages]:
    """The Messages with data, each a block; their templates go into `templates`."""
    known: dict[int, Template] = {}
    renumbered: dict[int, int] = {}
    at = 0
    while at + HEADER.size <= len(octets):
        length = int.from_bytes(octets[at + 2 : at + 4], "big")
        message = bytearray(octets[at : at + length])
        at += length
        records, idents = 0, []
        try:
            for set_id, start, end in cut_sets(bytes(message)):
                if set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
                    for one in parse_set(set_id, bytes(message[start:end])):
                        if isinstance(one, Template):
                            known[one.ident] = one
                            renumbered[one.ident] = _number(one, templates)
                elif set_id >= FIRST_DATA_SET and set_id in known:
                    records += len(record_ends(known[set_id], bytes(message[start:end])))
                    idents.append(renumbered[set_id])
                    SET_HEADER.pack_into(message, start - SET_HEADER.size, idents[-1], end - start + SET_HEADER.size)
        except MessageError:
            return
        if records:
            row = np.frombuffer(message, np.uint8).reshape(1, -1)
            yield Messages(row, records, tuple(dict.fromkeys(idents)), origin)


def _number(template: Template, templates: dict[int, Template]) -> int:
    """The number that a template of an earlier run has in this one, where another may have its number."""
    ident = template.ident
    while templates.setdefault(ident, replace(template, ident=ident)) != replace(template, ident=ident):
        ident = ident + 1 if ident < MAX_LENGTH else FIRST_IDENT
    return ident
