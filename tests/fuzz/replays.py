"""Targets of what replays captures: fragments, TCP connections, and the whole of PCAPIN."""

import io
from collections import Counter
from unittest.mock import patch

from twisted.logger import Logger

from tests.unit.ipfix.wire import check
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.packets import reassembly
from ulogd_tw.packets.reassembly import Fragments, Held, Stream
from ulogd_tw.plugins.inputs.pcapin import PCAPIN

_SENT = bytes((place * 7 + (place >> 8)) & 0xFF for place in range(1 << 16))
"""What all connections and datagrams carry."""
_HELD, _HELD_IN_ALL = 3000, 5000
_QUIET = Logger("fuzz", observer=lambda event: None)


def _steps(data, size):
    return (data[at : at + size] for at in range(0, len(data) - size + 1, size))


def segments(data):
    """Three connections; five octets a segment: which and whether it begins, where (2), how long (2)."""
    held = Held()
    all_ = [Stream(held) for _ in range(3)]
    first = [0xFFFFFF00, 5, 0x7FFFFFF0]
    with patch.multiple(reassembly, MOST_HELD=_HELD, MOST_HELD_IN_ALL=_HELD_IN_ALL):
        for step in _steps(data, 5):
            which, begins = step[0] % 3, step[0] >= 0xC0
            stream, place, size = all_[which], int.from_bytes(step[1:3], "big"), int.from_bytes(step[3:], "big") % 2000
            sequence = first[which] + place - begins
            _goes_on(stream, first[which], stream.take(sequence & 0xFFFFFFFF, _SENT[place : place + size], begins))
            while stream.full:
                _goes_on(stream, first[which], stream.resume())
            assert held.octets == sum(one._octets for one in all_) <= _HELD_IN_ALL
            assert stream._octets <= _HELD
            assert stream._octets == sum(128 + len(octets) for octets in stream._held.values())
    for stream in all_:
        stream.drop()
    assert held.octets == 0


def _goes_on(stream, first, found):
    """What came out is what stands in front of the next octet."""
    end = (stream._next - first) & 0xFFFFFFFF
    assert not found or _SENT[end - len(found) : end] == found, (end, found)


def fragments(data):
    """Datagrams of three sizes; five octets a piece: which and whether it is the last, where (2), how long (2)."""
    errors = Counter()
    putting = Fragments(errors)
    for number, step in enumerate(_steps(data, 5)):
        size = (100, 1600, 65535)[step[0] % 3]
        offset = int.from_bytes(step[1:3], "big") % (size + 8) & ~7
        octets = _SENT[offset : min(size, offset + int.from_bytes(step[3:], "big"))]
        more = step[0] < 0x80 and offset + len(octets) < size
        whole = putting.take((step[0] % 60,), offset, more, octets, number / 50)
        assert whole is None or whole == _SENT[: len(whole)]
    for parts in putting._waiting.values():
        assert parts.octets == sum(map(len, parts.pieces.values())) <= reassembly.MOST_DATAGRAM


def pcapin(data):
    """A file of packets through the input: every row within its octets, its clock one that can be."""
    small = {"max_sessions": 5, "max_sessions_of_address": 3, "max_domains": 4, "max_templates": 8, "max_fields": 100,
             "max_told": 10, "max_parked": 4000}  # fmt: skip
    plugin = PCAPIN("in1", Options(PCAPIN.all_options(), {"file": (__file__,), **small}))
    plugin.wanted, plugin.log, batches = ALL, _QUIET, []
    plugin.emit = batches.append
    plugin.open()
    for _ in plugin.read("capture", io.BytesIO(data)):
        plugin._hand_on()
        assert len(plugin._exporters) <= 5
    plugin.end_file()
    plugin.stop()
    assert len(plugin._connections) == plugin._connections.held.octets == 0
    assert 0 <= plugin._now < 1 << 32
    for batch in batches:
        check(batch)
    rows = sum(batch.n for batch in batches)
    assert rows + plugin.counters.dropped.total() == plugin.counters.rows_received <= len(data)
