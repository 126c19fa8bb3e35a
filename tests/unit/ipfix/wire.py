"""Messages written with struct alone, a decoder that reads them record by record, and what tests of decoding share."""

import ipaddress
import socket
import struct
from collections import Counter

from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import CONTEXT, known
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.types import IPV6, MICROSECONDS
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session

CONTEXT_NAMES = frozenset(key.name for key in CONTEXT)
VARIABLE = 65535


def a_set(ident, *records):
    """A Set of these records."""
    body = b"".join(records)
    return struct.pack("!HH", ident, 4 + len(body)) + body


def specifier(field):
    """A Field Specifier of (element, length) or (element, length, enterprise)."""
    if len(field) == 3:
        return struct.pack("!HHI", field[0] | 0x8000, field[1], field[2])
    return struct.pack("!HH", *field)


def template(ident, *fields):
    """A Template Record."""
    return struct.pack("!HH", ident, len(fields)) + b"".join(map(specifier, fields))


def options_template(ident, scopes, *fields):
    """An Options Template Record whose first `scopes` fields are the scope."""
    return struct.pack("!HHH", ident, len(fields), scopes) + b"".join(map(specifier, fields))


def message(*sets, number=0, domain=1, export_time=1000, version=10, length=None):
    """A Message; `length` may lie."""
    body = b"".join(sets)
    length = 16 + len(body) if length is None else length
    return struct.pack("!HHIII", version, length, export_time, number & 0xFFFFFFFF, domain) + body


def varying(octets, long=False):
    """A value of variable length with its length, in the form of one octet where that is possible."""
    if long or len(octets) > 254:
        return b"\xff" + struct.pack("!H", len(octets)) + octets
    return bytes([len(octets)]) + octets


class Collected:
    """A decoder with one session, and all that came out of it."""

    def __init__(self, wanted=ALL, reliable=True, peer="192.0.2.1", **arguments):
        self.counters = Counters("test")
        self.decoder = Decoder(wanted, self.counters, **arguments)
        self.session = Session(peer, 5000, reliable=reliable)

    def feed(self, *messages, now=2000.0):
        for octets in messages:
            self.decoder.feed(self.session, octets, now)
        return self

    def batches(self, *messages, now=2000.0):
        """Feed these and drain."""
        self.feed(*messages, now=now)
        found = self.decoder.drain(now)
        for batch in found:
            check(batch)
        return found

    def rows(self, *messages):
        """Feed these and drain: plain rows without the keys of the context."""
        return [without_context(row) for batch in self.batches(*messages) for row in batch.rows()]

    @property
    def errors(self):
        return dict(self.counters.errors)

    @property
    def lost(self):
        return self.counters.lost["sequence"]

    @property
    def kinds(self):
        """The kinds of the events so far."""
        return [event.kind for event in self.decoder.events]


def check(batch):
    """What every batch must be: columns of n rows in the types of the schema, native, one for each key."""
    assert batch.n > 0, batch
    assert set(batch.columns) == set(batch.schema), batch
    assert set(batch.missing) <= set(batch.schema), batch
    for name, column in batch.columns.items():
        assert len(column) == batch.n, (name, len(column), batch.n)
        key = batch.schema[name]
        if key.type.dtype is not None:
            # The very object: another dtype object of the same type is slow in ufuncs.
            assert column.dtype.char == key.type.dtype.char and column.dtype.isnative, (name, column.dtype)
            assert column.shape == ((batch.n, 2) if key.type.kind == "ipv6" else (batch.n,)), (name, column.shape)
    for name, mask in batch.missing.items():
        assert mask.shape == (batch.n,) and mask.dtype == bool, name


def without_context(row):
    """The keys of a row that came from fields of its record."""
    return {name: value for name, value in row.items() if name not in CONTEXT_NAMES}


def ipv4(text):
    """An address as a number."""
    return int(ipaddress.IPv4Address(text))


def ipv6(text):
    """An address as a number."""
    return int(ipaddress.IPv6Address(text))


def hexed(text):
    """Octets of hexadecimal text."""
    return bytes.fromhex(text)


COUNTER = template(256, (1, 4))
"""A template of one octetDeltaCount of four octets."""


def counts(*values, number=0, **more):
    """A Message of records of `COUNTER`."""
    return message(a_set(256, *(struct.pack("!I", v) for v in values)), number=number, **more)


def counts_of(rows):
    """The octetDeltaCount of each row."""
    return [row["octetDeltaCount"] for row in rows]


TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
"""What a decoder makes of times of other forms."""


def without_our_times(rows, expected):
    """Rows as in `reference` without the absolute times that no record of their template has by itself."""
    own = {(tid, name) for _, tid, _, fields in expected for name, _ in fields if name in TIMES}
    found = Counter()
    for (domain, tid, kind, fields), n in rows.items():
        found[domain, tid, kind, tuple(f for f in fields if f[0] not in TIMES or (tid, f[0]) in own)] += n
    return found


def as_people_write(name, value):
    """A value of the reference, where it has the octets of what we show as people write it."""
    bare = name.partition("#")[0]
    if bare == "applicationId" and len(value) > 2:
        if value[:2] == "14" and len(value) > 10:  # an enterprise number stands before the selector
            return f"20:{int(value[2:10], 16)}:{int(value[10:], 16)}"
        return f"{int(value[:2], 16)}:{int(value[2:], 16)}"
    if bare == "mplsTopLabelStackSection" or bare.startswith("mplsLabelStackSection") and bare[21:]:
        return int(value[:5], 16) if len(value) == 6 else value
    if (key := known(bare)) is not None and key.type is MICROSECONDS and int(value, 16):
        seconds, fraction = int(value[:8], 16) - 2_208_988_800, int(value[8:], 16)
        return (seconds + (seconds < 0) * (1 << 32)) * 10**6 + (fraction * 10**6 + (1 << 31) >> 32)
    if key is not None and key.type is MICROSECONDS:
        return 0
    if bare == "mplsVpnRouteDistinguisher" and value.startswith("0000"):
        return f"{int(value[4:8], 16)}:{int(value[8:], 16)}"
    if bare == "mplsVpnRouteDistinguisher" and value.startswith("0002"):
        return f"{int(value[4:12], 16)}:{int(value[12:], 16)}"
    if key is not None and key.type is IPV6 and "." not in value:  # the reference has groups where IPv4 is in them
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, value))
    return value


def without_layers(rows):
    """Rows as in `reference`; of templates with several layers without saying which has the plain names."""
    found = Counter()
    for (*place, fields), n in rows.items():
        if any(name == "protocolIdentifier#2" for name, _ in fields):
            bare = ((name.partition("#")[0], value) for name, value in fields if not name.startswith("tunnel."))
            fields = tuple(sorted(bare, key=repr))
        found[(*place, fields)] += n
    return found
