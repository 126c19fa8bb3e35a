"""Messages from records (RFC 7011 sections 3.1 and 3.3), many at a time.

`MessageBuilder` packs records of any templates into Messages of a largest length, without what differs between
collectors: `Messages.stamped` puts Export Time, Sequence Number and Observation Domain into a copy, so that records
are encoded once for all collectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.message import MAX_LENGTH, SET_HEADER
from ulogd_tw.ipfix.template import Template, encode_record, record_ends
from ulogd_tw.ipfix.wire_format import IPFIX, WireFormat


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
    form: WireFormat = IPFIX

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

    @property
    def counted(self) -> int:
        """How far these take the Sequence Number on."""
        return self.form.counted(self.count, self.all_records)

    def part(self, start: int, stop: int | None = None) -> Messages:
        """Some of these Messages, without a copy."""
        return Messages(self.octets[start:stop], self.records, self.templates, self.origin, self.form)

    def records_by_template(self, templates: Mapping[int, Template]) -> Iterator[tuple[int, np.ndarray]]:
        """Template id and the octets of its records, (n, size), of templates without fields of variable length.

        Messages of one block that are more than one are alike.
        """
        for ident, start, end in _places(self.octets[0], self.form):
            size = templates[ident].least_octets
            if not templates[ident].variable:
                body = self.octets[:, start : start + (end - start) // size * size]
                yield ident, body.reshape(-1, size)

    def stamped(self, sequence: int, domain: int, now: float) -> np.ndarray:
        """A copy as it goes out. `sequence`: Data Records that were sent before (section 3.1)."""
        out = self.octets.copy()
        self.form.stamp(out, self.records, sequence, domain, now)
        return out


class MessageBuilder:
    """Packs records into Messages of at most `max_length` octets, in the order in which they come.

    The last Message stays open, and may take Sets of several templates, until it is full or `flush` is called.
    """

    def __init__(self, max_length: int, form: WireFormat = IPFIX) -> None:
        self._headers = form.size + form.set_header
        if not self._headers < max_length <= MAX_LENGTH:
            raise ValueError(f"a Message cannot have at most {plural(max_length, 'octet')}")
        self.max_length = max_length
        self.form = form
        self.too_long = 0
        """Records left out, since not even alone they fit into a Message."""
        self._sets: list[tuple[int, list[np.ndarray]]] = []
        self._length = form.size
        self._spare = form.align - 1
        """Octets that a Set may need to end where it shall."""
        self.open_records = 0
        """Records that wait in the open Message."""

    def add(self, records: Records) -> list[Messages]:
        """Take records; the Messages that became full."""
        short = records.no_longer_than(self.max_length - self._headers - self._spare)
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
        head = 0 if same else self.form.set_header + self._spare
        count = records.fitting(start, self.max_length - self._length - head)
        count = min(count, self.form.most_records - self.open_records)
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
        form, size = self.form, records.data.shape[1]
        each = min((self.max_length - self._headers - self._spare) // size, form.most_records)
        count = (len(records) - start) // each
        if not count:
            return None
        ident, octets = records.template.ident, _aligned(form, form.set_header + each * size)
        out = np.empty((count, form.size + octets), np.uint8)
        out[:, : form.size] = 0
        if form.set_header:
            out[:, form.size : self._headers] = np.frombuffer(SET_HEADER.pack(ident, octets), np.uint8)
        end = self._headers + each * size
        out[:, self._headers : end] = records.data[start : start + count * each].reshape(count, -1)
        out[:, end:] = 0
        return Messages(out, each, (ident,) if form.set_header else (), None, form)

    def flush(self) -> list[Messages]:
        """The open Message, if it has records."""
        if not self.open_records:
            return []
        form = self.form
        parts: list[Any] = [bytes(self.form.size)]
        for ident, octets in self._sets:
            length = form.set_header + sum(map(len, octets))
            if form.set_header:
                parts.append(SET_HEADER.pack(ident, _aligned(form, length)))
            parts += [*octets, bytes(_aligned(form, length) - length)]
        message = np.frombuffer(b"".join(parts), np.uint8).reshape(1, -1)
        idents = dict.fromkeys(ident for ident, _ in self._sets) if form.set_header else ()
        found = Messages(message, self.open_records, tuple(idents), None, form)
        self._sets = []
        self._length = form.size
        self.open_records = 0
        return [found]


def _aligned(form: WireFormat, octets: int) -> int:
    return -(-octets // form.align) * form.align


def recut(messages: Messages, max_length: int, templates: Mapping[int, Template]) -> list[Messages]:
    """The same records in Messages of at most `max_length` octets: a path has become narrower.

    Records that do not fit at all are left out.
    """
    builder, found = MessageBuilder(max_length, messages.form), []
    for message in messages.octets:
        for ident, body in _sets(message, messages.form):
            found += builder.add(_records(templates[ident], body))
    return found + builder.flush()


def _records(template: Template, body: np.ndarray) -> Records:
    """The records of one of our own Data Sets."""
    if not template.variable:
        size = template.least_octets
        return Records(template, body[: len(body) // size * size].reshape(-1, size))
    return Records(template, body, np.array([0, *record_ends(template, body.tobytes())], np.int64))


def _sets(message: np.ndarray, form: WireFormat) -> Iterator[tuple[int, np.ndarray]]:
    """Id and body of each Set of one of our own Messages."""
    for ident, start, end in _places(message, form):
        yield ident, message[start:end]


def _places(message: np.ndarray, form: WireFormat) -> Iterator[tuple[int, int, int]]:
    """Id of each Set of one of our own Messages, where its body begins and ends."""
    at = form.size
    if not form.set_header:
        yield form.version, at, len(message)
        return
    while at < len(message):
        ident, length = SET_HEADER.unpack(message[at : at + SET_HEADER.size].tobytes())
        yield ident, at + SET_HEADER.size, at + length
        at += length


def template_messages(
    templates: Sequence[Template], max_length: int, sequence: int, domain: int, now: float, form: WireFormat = IPFIX
) -> list[bytes]:
    """Messages with these templates and no data. In IPFIX they leave the Sequence Number as it is (section 3.1)."""
    found: list[bytes] = []
    for options in (False, True):
        groups: list[list[bytes]] = [[]]
        room = max_length - form.size - form.set_header - form.align + 1
        for record in (encode_record(t, form.version) for t in templates if t.options == options):
            if groups[-1] and sum(map(len, groups[-1])) + len(record) > room:
                groups.append([])
            groups[-1].append(record)
        for group in filter(None, groups):
            number = sequence + form.counted(len(found), 0)
            found.append(_template_message(form, form.options_set if options else form.template_set, group, number,
                                           domain, now))  # fmt: skip
    return found


def _template_message(
    form: WireFormat, set_id: int, records: list[bytes], sequence: int, domain: int, now: float
) -> bytes:
    body = b"".join(records)
    length = _aligned(form, form.set_header + len(body))
    body += bytes(length - form.set_header - len(body))
    head = form.pack(len(records), form.size + length, sequence, domain, now)
    return head + SET_HEADER.pack(set_id, length) + body
