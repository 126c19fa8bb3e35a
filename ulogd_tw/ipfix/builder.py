"""Messages from records (RFC 7011 sections 3.1 and 3.3), many at a time.

`MessageBuilder` packs records of any templates into Messages of a largest length, without what differs between
collectors: `Messages.stamped` puts Export Time, Sequence Number and Observation Domain into a copy, so that records
are encoded once for all collectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.message import HEADER, MAX_LENGTH, OPTIONS_TEMPLATE_SET, SET_HEADER, TEMPLATE_SET, VERSION
from ulogd_tw.ipfix.template import Template, encode_record, record_ends

_HEADERS = HEADER.size + SET_HEADER.size


@lru_cache(256)
def _header_view(length: int) -> np.dtype:
    names = ["version", "length", "time", "sequence", "domain"]
    formats = [">u2", ">u2", ">u4", ">u4", ">u4"]
    return np.dtype({"names": names, "formats": formats, "offsets": [0, 2, 4, 8, 12], "itemsize": length})


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one length with `records` Data Records each, still without time, sequence and domain.

    `octets` is uint8 of shape (count, length); `templates` are the ids of the Data Sets in them. `origin` is for
    whoever handed them in.
    """

    octets: np.ndarray
    records: int
    templates: tuple[int, ...]
    origin: Any = None

    @property
    def count(self) -> int:
        return len(self.octets)

    @property
    def length(self) -> int:
        return self.octets.shape[1]

    @property
    def nbytes(self) -> int:
        return self.octets.size

    @property
    def all_records(self) -> int:
        return self.count * self.records

    def part(self, start: int, stop: int | None = None) -> Messages:
        """Some of these Messages, without a copy."""
        return Messages(self.octets[start:stop], self.records, self.templates, self.origin)

    def stamped(self, sequence: int, domain: int, now: float) -> np.ndarray:
        """A copy as it goes out. `sequence`: Data Records that were sent before (section 3.1)."""
        out = self.octets.copy()
        if self.count == 1:
            HEADER.pack_into(out.data.cast("B"), 0, VERSION, self.length, int(now) & 0xFFFFFFFF,
                             sequence & 0xFFFFFFFF, domain)  # fmt: skip
            return out
        header = out.reshape(-1).view(_header_view(self.length))
        header["version"] = VERSION
        header["length"] = self.length
        header["time"] = int(now) & 0xFFFFFFFF
        header["sequence"] = (sequence + np.arange(self.count) * self.records) & 0xFFFFFFFF
        header["domain"] = domain
        return out


class MessageBuilder:
    """Packs records into Messages of at most `max_length` octets, in the order in which they come.

    The last Message stays open, and may take Sets of several templates, until it is full or `flush` is called.
    """

    def __init__(self, max_length: int) -> None:
        if not _HEADERS < max_length <= MAX_LENGTH:
            raise ValueError(f"a Message cannot have at most {max_length} octets")
        self.max_length = max_length
        self.too_long = 0
        """Records left out, since not even alone they fit into a Message."""
        self._sets: list[tuple[int, list[np.ndarray]]] = []
        self._length = HEADER.size
        self.open_records = 0
        """Records that wait in the open Message."""

    def add(self, records: Records) -> list[Messages]:
        """Take records; the Messages that became full."""
        short = records.no_longer_than(self.max_length - _HEADERS)
        self.too_long += len(records) - len(short)
        n, full = len(short), []
        at = self._extend(short, 0) if self.open_records else 0
        while at < n:
            if self.open_records:
                full += self.flush()
            if block := self._whole(short, at):
                full.append(block)
                at += block.all_records
            at = self._extend(short, at) if at < n else at
        return full

    def _extend(self, records: Records, start: int) -> int:
        """Put what there is room for into the open Message; where to go on."""
        ident = records.template.ident
        same = bool(self._sets) and self._sets[-1][0] == ident
        head = 0 if same else SET_HEADER.size
        count = records.fitting(start, self.max_length - self._length - head)
        if count <= 0:
            return start
        octets = records.octets(start, start + count).copy()  # a view would keep the whole batch in memory
        if same:
            self._sets[-1][1].append(octets)
        else:
            self._sets.append((ident, [octets]))
        self._length += head + len(octets)
        self.open_records += count
        return start + count

    def _whole(self, records: Records, start: int) -> Messages | None:
        """All full Messages of equal records at once."""
        if records.offsets is not None:
            return None
        size = records.data.shape[1]
        each = (self.max_length - _HEADERS) // size
        count = (len(records) - start) // each
        if not count:
            return None
        out = np.empty((count, _HEADERS + each * size), np.uint8)
        out[:, : HEADER.size] = 0
        head = SET_HEADER.pack(records.template.ident, SET_HEADER.size + each * size)
        out[:, HEADER.size : _HEADERS] = np.frombuffer(head, np.uint8)
        out[:, _HEADERS:] = records.data[start : start + count * each].reshape(count, -1)
        return Messages(out, each, (records.template.ident,))

    def flush(self) -> list[Messages]:
        """The open Message, if it has records."""
        if not self.open_records:
            return []
        parts = [bytes(HEADER.size)]
        for ident, octets in self._sets:
            parts += [SET_HEADER.pack(ident, SET_HEADER.size + sum(map(len, octets))), *octets]
        message = np.frombuffer(b"".join(parts), np.uint8).reshape(1, -1)
        found = Messages(message, self.open_records, tuple(dict.fromkeys(ident for ident, _ in self._sets)))
        self._sets = []
        self._length = HEADER.size
        self.open_records = 0
        return [found]


def recut(messages: Messages, max_length: int, templates: Mapping[int, Template]) -> list[Messages]:
    """The same records in Messages of at most `max_length` octets: a path has become narrower.

    Records that do not fit at all are left out.
    """
    builder, found = MessageBuilder(max_length), []
    for message in messages.octets:
        for ident, body in _sets(message):
            found += builder.add(_records(templates[ident], body))
    return found + builder.flush()


def _records(template: Template, body: np.ndarray) -> Records:
    """The records of one of our own Data Sets."""
    if not template.variable:
        return Records(template, body.reshape(-1, template.least_octets))
    return Records(template, body, np.array([0, *record_ends(template, body.tobytes())], np.int64))


def _sets(message: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Id and body of each Set of one of our own Messages."""
    at = HEADER.size
    while at < len(message):
        ident, length = SET_HEADER.unpack(message[at : at + SET_HEADER.size].tobytes())
        yield ident, message[at + SET_HEADER.size : at + length]
        at += length


def template_messages(
    templates: Sequence[Template], max_length: int, sequence: int, domain: int, now: float
) -> list[bytes]:
    """Messages with these templates and no data; they leave the Sequence Number as it is (section 3.1)."""
    found = []
    for options in (False, True):
        group: list[bytes] = []
        for record in (encode_record(t) for t in templates if t.options == options):
            if group and _HEADERS + sum(map(len, group)) + len(record) > max_length:
                found.append(_template_message(options, group, sequence, domain, now))
                group = []
            group.append(record)
        if group:
            found.append(_template_message(options, group, sequence, domain, now))
    return found


def _template_message(options: bool, records: list[bytes], sequence: int, domain: int, now: float) -> bytes:
    body = b"".join(records)
    length = _HEADERS + len(body)
    head = HEADER.pack(VERSION, length, int(now) & 0xFFFFFFFF, sequence & 0xFFFFFFFF, domain)
    return head + SET_HEADER.pack(OPTIONS_TEMPLATE_SET if options else TEMPLATE_SET, SET_HEADER.size + len(body)) + body
