"""Messages of netlink: what the kernel finds in them is what NumPy and Python find, to the bit."""

from random import Random

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.kernels import SKIP
from tests.unit.netfilter import logged, messages
from ulogd_tw import kernels
from ulogd_tw.core.plugin import ALL
from ulogd_tw.kernels import netlink
from ulogd_tw.netfilter import conntrack, nflog_decoder, values
from ulogd_tw.netfilter.grammar import IPV4
from ulogd_tw.transports.netlink import nlmsg

SEEDS = st.integers(0, 2**32).map(Random)
LOGGED = frozenset(key.name for key in (*nflog_decoder.KEYS, *nflog_decoder.CONNECTION_KEYS))
CHANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 600), st.binary(max_size=4)), max_size=5)


def changed(whole, changes):
    """The messages, some with other octets somewhere, but for their lengths."""
    whole = list(map(bytearray, whole))
    for number, at, octets in changes:
        message = whole[number % len(whole)]
        at = 4 + at % (len(message) - 4)
        message[at : at + len(octets)] = octets[: len(message) - at]
    return list(map(bytes, whole))


class NetlinkTestCase(SynchronousTestCase):
    """Without the extension there is nothing to compare."""

    if kernels.lib is None:
        skip = SKIP

    def both(self, module, call):
        """The results with the kernel and with NumPy."""
        found = []
        for lib in (kernels.lib, None):
            self.patch(module, "lib", lib)
            found.append(call())
        return found

    def check(self, decoder, octets, starts, lengths):
        """The messages have the same layouts and values either way; some of their layouts are known."""
        layouts = decoder.layouts
        there = layouts.octets
        rows = np.stack([octets[start : start + there] for start in starts.tolist()])
        ids, unknown = layouts._compiled(octets, starts, lengths, there)
        expected, others = layouts._match(rows, lengths)
        self.assertEqual((expected.tolist(), sorted(others)), (ids.tolist(), unknown))
        self.assertEqual(ids.dtype, expected.dtype)
        for family, tables in layouts.places.items():
            known = np.flatnonzero((ids > 0) & (layouts.family[ids] == family))
            for places in tables if len(known) else ():
                made, by_numpy = self.both(
                    values,
                    lambda p=places, k=known, f=family: values.Values(f, (p, p), octets, starts[k], ids[k])._values,
                )
                self.assertEqual({1, 2, 4, 8}, made.keys())
                for size, column in by_numpy.items():
                    self.assertEqual((column.dtype, column.tolist()), (made[size].dtype, made[size].tolist()))


class LayoutTests(NetlinkTestCase):
    """`Layouts._compiled` beside `_match`, and the values of `Values`."""

    @given(SEEDS, st.integers(1, 40), CHANGES)
    def test_conntrack(self, random, n, changes):
        """Flows of any attributes, some of them changed so that they are of no known layout."""
        known = [messages.any_message(random) for _ in range(n)]
        decoder = conntrack.Decoder(ALL)
        for message in known:
            decoder.decode(*messages.slab([message], 1024), 1000.0)
        rows, lengths = messages.slab(changed(known, changes), 1024)
        starts = np.arange(0, rows.size, rows.shape[1], np.int64)
        self.check(decoder, np.append(rows.reshape(-1), np.zeros(4096, np.uint8)), starts, lengths)

    @given(SEEDS, st.integers(1, 40), CHANGES)
    def test_logged_packets(self, random, n, changes):
        """Packets of any length behind any attributes."""
        known = [logged.any_packet(random) for _ in range(n)]
        decoder = nflog_decoder.Decoder(LOGGED)
        for message in known:
            decoder.decode(*logged.together([message]), 1000.0)
        octets, starts, lengths = logged.together(changed(known, changes), gap=random.choice((0, 3)))
        octets = np.concatenate([octets, np.zeros(4096, np.uint8)])
        self.check(decoder, octets, starts, lengths)

    def test_lengths(self):
        """The length received, that of the message and that of its packet, which ends it, have to agree."""
        whole = logged.packet(2, logged.header(0x800, 1), logged.attr(12, bytes(4)), logged.attr(9, b"packet"))
        at = len(whole) - 12
        many = [
            (said.to_bytes(4, "little") + whole[4:at] + size.to_bytes(2, "little") + whole[at + 2 :], received)
            for said in range(at, at + 12)
            for received in {said, at + 4}
            for size in range(12)
        ]
        decoder = nflog_decoder.Decoder(LOGGED)
        decoder.decode(*logged.together([whole]), 1000.0)
        octets, starts, _ = logged.together([message for message, _ in many])
        octets = np.concatenate([octets, np.zeros(4096, np.uint8)])
        self.check(decoder, octets, starts, np.array([received for _, received in many]))

    def test_outside(self):
        """A message that does not lie in its memory, and a value outside of it, are not read."""
        decoder = conntrack.Decoder(ALL)
        rows, lengths = messages.slab(messages.corpus()[:30])
        decoder.decode(rows, lengths, 1000.0)
        octets, layouts = rows.reshape(-1), decoder.layouts
        for wrong in (-1, len(octets) - layouts.octets + 1, 1 << 62):
            with self.assertRaises(AssertionError):
                layouts._compiled(octets, np.full(20, wrong), lengths[:20], layouts.octets)
        words = layouts.places[IPV4][0].words
        sizes = [block.stop - block.start for block in map(layouts.places[IPV4][0].block.get, (8, 4, 2, 1))]
        ids, bases = np.ones(1, np.intp), np.zeros(1, np.int64)
        for outside in ((octets[:8], bases, ids), (octets, bases - 1, ids), (octets, bases + len(octets), ids),
                        (octets, bases, ids - 2), (octets, bases, ids + words.shape[1])):  # fmt: skip
            with self.assertRaises(AssertionError):
                netlink.values(*outside, words, sizes)


class DatagramTests(NetlinkTestCase):
    """`nlmsg.places` with the kernel and without."""

    @given(st.lists(st.lists(st.one_of(st.integers(0, 40), st.binary(max_size=20)), max_size=5), max_size=6))
    def test_same_as_python(self, datagrams):
        """Messages, whole and cut, and other octets between them."""
        views = []
        for parts in datagrams:
            octets = b"".join(part if isinstance(part, bytes) else _message(part) for part in parts)
            views.append(np.frombuffer(octets + bytes(-len(octets) % 4), np.uint8))
        compiled, by_python = self.both(nlmsg, lambda: nlmsg.places(views))
        self.assertEqual([plain(part) for part in by_python], [plain(part) for part in compiled])

    def test_corpus(self):
        """Recorded datagrams have the messages that their lengths say."""
        views = [np.frombuffer(datagram, np.uint8) for datagram in logged.recorded()]
        octets, starts, lengths, broken = nlmsg.places(views)
        found = [octets[a : a + n].tobytes() for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        found = [message for message in found if message[4] >= nlmsg.FIRST_TYPE or message[5]]  # not netlink's own
        self.assertEqual(([m for d in logged.recorded() for m in logged.cut(d)], 0), (found, broken))


def _message(octets):
    """A message of so many octets behind its header, padded."""
    return (16 + octets).to_bytes(4, "little") + bytes([0, 4]) + bytes(10 + octets + -octets % 4)


def plain(part):
    """An array as a list."""
    return part.tolist() if isinstance(part, np.ndarray) else part
