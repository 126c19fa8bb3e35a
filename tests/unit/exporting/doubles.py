"""What tests of the exporter share: batches of flows, an exporter that finds their keys, a reader of its messages.

The reader is written from RFC 7011 with struct alone, and knows nothing of our codec.
"""

import struct

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Provided
from ulogd_tw.plugins.outputs.ipfix import IPFIX

V4 = {"a": 0x0A4D0001, "b": 0x0A4D0002, "nat": 0xC0000201}
V6 = {name: (0xFD77 << 48, last) for name, last in (("a", 1), ("b", 2), ("nat", 3))}


def flows(n, six=False, missing=None, without=(), **columns):
    """A batch as NFCT gives it: n ended TCP connections; keys with `__` for dots take the place of what is here.

    Address columns are values of V4 or V6, or one such value. `missing`: key -> mask.
    """
    a, b = (V6 if six else V4)["a"], (V6 if six else V4)["b"]
    values = {
        "orig.ip.saddr": a, "orig.ip.daddr": b, "orig.ip.protocol": 6, "orig.l4.sport": 1024 + np.arange(n),
        "orig.l4.dport": 443, "orig.raw.pktlen": 1000 + np.arange(n), "orig.raw.pktcount": 10, "reply.ip.saddr": b,
        "reply.ip.daddr": a, "reply.l4.sport": 443, "reply.l4.dport": 1024 + np.arange(n),
        "reply.raw.pktlen": 2**32 + np.arange(n), "reply.raw.pktcount": 20, "ct.id": 100 + np.arange(n), "ct.event": 4,
        "ct.tcp.state": 7, "flow.start.sec": 1700000000, "flow.start.usec": 250000, "flow.end.sec": 1700000005,
        "flow.end.usec": 999999,
    }  # fmt: skip
    values |= {name.replace("__", "."): column for name, column in columns.items()}
    keys, held = [], {}
    for name, column in values.items():
        if name in without:
            continue
        key = known(name) or Key(name, types.UNSIGNED8)
        if key.type is types.ADDRESS:
            key = key.typed(types.IPV6 if six else types.IPV4)
        keys.append(key)
        shape = (n, 2) if key.type is types.IPV6 else n
        held[name] = np.broadcast_to(np.asarray(column, key.type.dtype), shape)
    masks = {name.replace("__", "."): np.asarray(mask) for name, mask in (missing or {}).items()}
    return Batch(Schema(keys), held, masks, n=n, now=1700000006.0)


def exporter(*schemas, sections=None, **options):
    """An IPFIX output with these options below an input that gives these keys; `sections`: of its collectors."""
    config = Options(IPFIX.all_options(), options)
    config.sections = sections or {}
    plugin = IPFIX("exp1", config)
    found = list(plugin.mistakes())
    assert not found, found
    for schema in schemas:
        provided = Provided(schema.values())
        asked = plugin.requests_of(frozenset(schema))
        for name in () if asked is ALL else asked:
            plugin.sources.add(name, provided.recipes(name))
    return plugin


class Reader:
    """A Collecting Process for one Transport Session: `records` are (template id, {element: number}).

    An element of an enterprise is (enterprise, element); values of variable length are octets. `told` are the records
    of Options Templates, in the same form, and `scopes` the number of their scope fields by template.

    `gaps`: records that Sequence Numbers say were lost. `unreadable`: Data Sets without a template.
    """

    def __init__(self):
        self.templates = {}
        self.scopes = {}
        self.records = []
        self.told = []
        self.headers = []
        self.kinds = []
        self.gaps = []
        self.unreadable = 0
        self._next = 0
        self._rest = b""

    def stream(self, octets):
        """Octets of a TCP connection, cut anywhere."""
        self._rest += octets
        while len(self._rest) >= 4:
            (length,) = struct.unpack_from("!H", self._rest, 2)
            if len(self._rest) < length:
                return
            message, self._rest = self._rest[:length], self._rest[length:]
            self.message(message)

    def message(self, message):
        version, length, time, sequence, domain = struct.unpack_from("!HHIII", message)
        assert (version, length) == (10, len(message)), (version, length, len(message))
        self.headers.append({"length": length, "time": time, "sequence": sequence, "domain": domain})
        if sequence != self._next:
            self.gaps.append((sequence - self._next) & 0xFFFFFFFF)
        at, count, kinds = 16, 0, []
        while at < length:
            set_id, size = struct.unpack_from("!HH", message, at)
            assert 4 <= size <= length - at, (set_id, size, at, length)
            body = message[at + 4 : at + size]
            kinds.append(set_id)
            if set_id in (2, 3):
                self._learn(body, set_id == 3)
            else:
                count += self._read(set_id, body)
            at += size
        self.kinds.append(kinds)
        self._next = (sequence + count) & 0xFFFFFFFF

    def _learn(self, body, options):
        at = 0
        while at < len(body):
            ident, count = struct.unpack_from("!HH", body, at)
            assert ident >= 256 and count > 0
            at += 4
            if options:
                (self.scopes[ident],) = struct.unpack_from("!H", body, at)
                at += 2
            fields = self.templates[ident] = []
            for _ in range(count):
                element, octets = struct.unpack_from("!HH", body, at)
                at += 4
                if element & 0x8000:
                    element = (int.from_bytes(body[at : at + 4], "big"), element & 0x7FFF)
                    at += 4
                fields.append((element, octets))

    def _read(self, ident, body):
        fields = self.templates.get(ident)
        if fields is None:
            self.unreadable += 1
            return 0
        at = count = 0
        while at < len(body):
            record = {}
            for element, octets in fields:
                if octets != 65535:
                    record[element] = int.from_bytes(body[at : at + octets], "big")
                else:
                    octets, at = body[at], at + 1
                    if octets == 255:
                        octets, at = int.from_bytes(body[at : at + 2], "big"), at + 2
                    record[element] = body[at : at + octets]
                at += octets
            assert at <= len(body), (ident, len(body), at)
            (self.told if ident in self.scopes else self.records).append((ident, record))
            count += 1
        return count
