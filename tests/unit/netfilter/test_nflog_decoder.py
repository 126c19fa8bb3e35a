"""Logged packets to batches."""

from collections import Counter
from dataclasses import replace
from random import Random
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.netfilter.logged import (
    CONNECTION,
    any_packet,
    corpus,
    cut,
    header,
    packet,
    recorded,
    row,
    together,
)
from tests.unit.netfilter.messages import attr, be, flow_tuple, nest, ports
from ulogd_tw.core.keys import known, registry
from ulogd_tw.netfilter import layout, nflog, nflog_decoder
from ulogd_tw.netfilter.nflog_decoder import CONNECTION_KEYS, KEYS, Decoder, Sequence

NOW = 1795394676.25
WANTED = frozenset((*(key.name for key in KEYS), *CONNECTION))

PING = bytes.fromhex("45000054d7a9400040011b4a0a0900010a0900020800d3f51234000100")


def decode(messages, wanted=WANTED, decoder=None, gap=0, **more):
    """(batches, refused) of these messages in one call."""
    decoder = decoder or Decoder(wanted, **more)
    return decoder.decode(*together(messages, gap), NOW), decoder.refused


def rows(batches):
    """All rows of these batches."""
    return [r for batch in batches for r in batch.rows()]


def by_family(messages):
    """Expected rows of messages: those of each family in order."""
    return [row(m, NOW) for family in range(11) for m in messages if m[16] == family]


class DecoderTests(SynchronousTestCase):
    """Messages written by hand from the kernel's header."""

    def test_everything(self):
        """Each attribute of a packet comes out under its key, with ulogd2's meaning."""
        message = packet(
            2, header(0x800, 1), attr(10, b"drop: \0"), attr(4, be(4, 3)), attr(5, be(4, 4)), attr(2, be(4, 0x2A)),
            attr(8, be(2, 6) + bytes(2) + bytes.fromhex("5638718727750000")),
            attr(15, be(2, 1)), attr(17, be(2, 14)), attr(16, bytes.fromhex("4ef780fbb7b55638718727750800")),
            attr(3, be(8, 1795394670) + be(8, 123456)), attr(11, be(4, 1000)), attr(14, be(4, 100)),
            attr(12, be(4, 7)), attr(13, be(4, 9)), nest(20, attr(2, be(2, 0xA007)), attr(1, be(2, 0x8100))),
            attr(9, PING),
        )  # fmt: skip
        (batch,), refused = decode([message], label=1)
        self.assertEqual(refused, Counter())
        self.assertEqual(list(batch.rows()), [{
            "raw.mac": bytes.fromhex("4ef780fbb7b55638718727750800"), "raw.pkt": PING, "raw.pktlen": len(PING),
            "raw.pktcount": 1, "oob.prefix": b"drop: ", "oob.time.sec": 1795394670, "oob.time.usec": 123456,
            "oob.mark": 0x2A, "oob.ifindex_in": 3, "oob.ifindex_out": 4, "oob.hook": 1, "raw.mac_len": 14,
            "oob.seq.local": 7, "oob.seq.global": 9, "oob.family": 2, "oob.protocol": 0x800, "oob.uid": 1000,
            "oob.gid": 100, "raw.label": 1, "raw.type": 1, "raw.mac.saddr": bytes.fromhex("563871872775"),
            "raw.mac.addrlen": 6, "dot1qVlanId": 7, "dot1qPriority": 5,
        }])  # fmt: skip

    def test_next_to_nothing(self):
        """What the kernel does not send is not there, but for the mark, 0, and the time, that of its arrival."""
        (batch,), _ = decode([packet(10, header(0x86DD, 3))])
        self.assertEqual(list(batch.rows()), [{
            "raw.pktcount": 1, "oob.time.sec": 1795394676, "oob.time.usec": 250000, "oob.mark": 0, "oob.hook": 3,
            "oob.family": 10, "oob.protocol": 0x86DD, "raw.label": 0,
        }])  # fmt: skip

    def test_connection(self):
        """The connection of a packet has NFCT's keys; a packet of none has none of them."""
        a, b = b"\x0a\0\0\1", b"\x0a\0\0\2"
        tracked = nest(
            18, flow_tuple(1, a, b, 6, *ports(1, 2)), flow_tuple(2, b, a, 6, *ports(2, 1)), attr(12, be(4, 77)),
            attr(3, be(4, 0x18A)), attr(18, be(2, 5)),
        )  # fmt: skip
        messages = [
            packet(2, header(0x800, 1), tracked, attr(19, be(4, 2)), attr(9, PING)),
            packet(2, header(0x800, 1), attr(9, PING)),
        ]
        (batch,), _ = decode(messages, {key.name for key in CONNECTION_KEYS})
        first, second = batch.rows()
        chosen = {"ct.id": 77, "ct.mark": 0, "ct.status": 0x18A, "ct.zone": 5, "orig.ip.saddr": 0x0A000001,
                  "reply.l4.dport": 1}  # fmt: skip
        self.assertEqual({key: first[key] for key in chosen}, chosen)
        self.assertEqual(second, {})
        self.assertNotIn("flow.start.sec", first)

    def test_keys(self):
        """The keys are ulogd2's in ulogd2's order, then ours, all of the table's types."""
        ulogd2 = [key.name for key in KEYS if key.name in registry.ulogd]
        self.assertEqual(ulogd2, [
            "raw.mac", "raw.pkt", "raw.pktlen", "raw.pktcount", "oob.prefix", "oob.time.sec", "oob.time.usec",
            "oob.mark", "oob.ifindex_in", "oob.ifindex_out", "oob.hook", "raw.mac_len", "oob.seq.local",
            "oob.seq.global", "oob.family", "oob.protocol", "oob.uid", "oob.gid", "raw.label", "raw.type",
            "raw.mac.saddr", "raw.mac.addrlen",
        ])  # fmt: skip
        for batch in decode(cut(recorded()[0]))[0]:
            for key in batch.schema.values():
                self.assertEqual(key, known(key.name))
                if key.type.dtype is not None:
                    self.assertEqual(batch.columns[key.name].dtype, key.type.dtype, key.name)

    def test_only_what_is_wanted(self):
        """Only wanted keys become columns."""
        for wanted in ({"oob.prefix"}, {"raw.pkt", "oob.mark"}, set()):
            for batch in decode(cut(recorded()[1]), wanted)[0]:
                self.assertLessEqual(set(batch.columns), wanted)

    def test_refused(self):
        """Messages of other kinds are counted by what is wrong with them."""
        good = packet(2, header(0x800, 1), attr(9, PING))
        wrong = {
            "type": good[:4] + b"\1\4" + good[6:],
            "family": packet(77, header(0x800, 1)),
            "attribute missing": packet(2, attr(10, b"x\0")),
            "attribute size": packet(2, attr(1, b"\x08\0\1")),
            "attribute length": packet(2, header(0x800, 1), b"\xff\0\x09\0abcd"),
            "length": packet(2)[:16],
        }
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                for reason, octets in wrong.items():
                    batches, refused = decode([good, octets, good])
                    self.assertEqual(refused, {reason: 1})
                    self.assertEqual(rows(batches), [row(good, NOW)] * 2)


class LayoutTests(SynchronousTestCase):
    """Many messages of layouts that are known."""

    def messages(self, prefix):
        return [
            packet(2, header(n, 1), *prefix, attr(2, be(4, n * 0x01010101)), attr(9, bytes(n % 50 + 1)))
            for n in range(60)
        ]

    def test_none_is_looked_at_alone(self):
        """Whatever the values and however long the packets, messages of a known layout are found together."""
        for prefix in ([], [attr(10, b"in\0")], [attr(10, b"a longer prefix: \0")]):
            messages = self.messages(prefix)
            decoder = Decoder(WANTED)
            decode(messages[:1], decoder=decoder)
            with patch.object(decoder.layouts, "identify", side_effect=AssertionError):
                batches, _ = decode(messages, decoder=decoder)
            self.assertEqual(rows(batches), [row(m, NOW) for m in messages])

    def test_length_of_the_packet(self):
        """Of known layouts, too, a message is refused whose packet does not end with it."""
        messages = self.messages([])
        decoder = Decoder(WANTED)
        decode(messages, decoder=decoder)
        place = messages[0].index(b"\5\0\x09\0")
        for size in (0, 3, 100, 0xFFFF):
            wrong = messages[0][:place] + size.to_bytes(2, "little") + messages[0][place + 2 :]
            decoder.refused.clear()
            batches, refused = decode([*messages[1:], wrong], decoder=decoder)
            self.assertEqual((refused, sum(b.n for b in batches)), ({"attribute length": 1}, 59))


class RecordedTests(SynchronousTestCase):
    """What a kernel has sent."""

    def test_recorded(self):
        """Rules of four families, in and out: all packets, each as by the rules, none refused."""
        messages = [message for datagram in recorded() for message in cut(datagram)]
        self.assertEqual(Counter(m[16] for m in messages).keys(), {2, 3, 5, 10})
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(WANTED)
                batches, refused = decode(messages, decoder=decoder)
                self.assertEqual(rows(batches), by_family(messages))
                self.assertEqual((refused, decoder.lost()), ({}, 0))
        self.assertEqual(sorted(r["oob.seq.local"] for r in rows(batches)), list(range(len(messages))))

    def test_corpus(self):
        """The corpus, datagram by datagram, needs one layout."""
        decoder = Decoder(WANTED)
        for datagram in corpus():
            batches, refused = decode(cut(datagram), decoder=decoder)
            self.assertEqual(rows(batches), [row(m, NOW) for m in cut(datagram)])
        self.assertEqual((decoder.layouts.learnt, refused), (1, {}))


class SequenceTests(SynchronousTestCase):
    """What the numbers of packets tell of those that did not come."""

    def test_gaps(self):
        """Numbers that are left out are lost, from 0 on, over the wrap too; the order within a read does not matter."""
        sequence = Sequence()
        for numbers, missing in (
            ([2, 3], 2), ([5, 4], 0), ([], 0), ([9], 3), ([0x60000000], 0x60000000 - 10),
            ([0xC0000000], 0x5FFFFFFF), ([0xFFFFFFFE], 0x3FFFFFFD), ([0, 0xFFFFFFFF], 0), ([3], 2),
        ):  # fmt: skip
            sequence.take(np.array(numbers, np.uint32))
            self.assertEqual(sequence.missing(), missing, numbers)

    def test_numbers_that_go_back(self):
        """A number that was there already, or an older one, is no loss."""
        sequence = Sequence()
        for numbers in ([0, 1, 2], [1], [2, 0]):
            sequence.take(np.array(numbers, np.uint32))
            self.assertEqual(sequence.missing(), 0)

    def test_groups(self):
        """Each group counts for itself, over all families."""

        def one(group, family, number):
            return packet(family, header(0x800, 1), attr(12, be(4, number)), group=group)

        decoder = Decoder({"oob.mark"})
        decode([one(5, 2, 0), one(6, 2, 0), one(5, 10, 1), one(5, 2, 2), one(6, 10, 3)], decoder=decoder)
        self.assertEqual((decoder.lost(), decoder.lost()), (2, 0))
        decode([one(5, 2, 4)], decoder=decoder)
        self.assertEqual(decoder.lost(), 1)


# From a seed, because a strategy for each attribute takes hypothesis a minute.
MESSAGES = st.integers(0, 2**32).map(lambda seed: any_packet(Random(seed)))


class PropertyTests(SynchronousTestCase):
    """Any message, well formed or not."""

    @given(st.lists(MESSAGES, min_size=1, max_size=6), st.data())
    def test_all_at_once_is_one_by_one(self, different, data):
        """However many of whatever layouts come at once, in both ways of matching, each row is as by the rules."""
        last = len(different) - 1
        chosen = [different[i] for i in data.draw(st.lists(st.integers(0, last), min_size=1, max_size=40))]
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(WANTED)
                for gap in (0, 3):
                    batches, refused = decode(chosen, decoder=decoder, gap=gap)
                    self.assertEqual(rows(batches), by_family(chosen))
                    self.assertEqual(refused, {})

    @given(st.lists(MESSAGES, min_size=1, max_size=8))
    def test_more_layouts_than_are_learnt(self, different):
        """Messages beyond the bound are decoded alike, and the tables stay bounded."""
        few_layouts = replace(nflog.GRAMMAR, layouts=3)
        with patch.object(nflog_decoder, "GRAMMAR", few_layouts), patch.object(layout, "MOST_OF_A_HEAD", 1):
            for few in (0, 100):
                with patch.object(layout, "FEW", few):
                    decoder = Decoder(WANTED)
                    for _ in range(2):
                        self.assertEqual(rows(decode(different, decoder=decoder)[0]), by_family(different))
                    self.assertLessEqual(decoder.layouts.learnt, 3)

    @given(st.lists(st.tuples(MESSAGES, st.integers(0, 600), st.integers(0, 600), st.binary(max_size=4)), min_size=1))
    def test_damaged(self, damaged):
        """Cut and patched messages become rows or are counted: never another exception, never silence."""
        spoiled = []
        for octets, short, at, patched in damaged:
            octets = bytearray(octets)
            at %= len(octets)
            octets[at : at + len(patched)] = patched
            spoiled.append(bytes(octets[: max(16, len(octets) - short % len(octets))]))
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(WANTED)
                decode([octets for octets, *_ in damaged], decoder=decoder)
                batches, refused = decode(spoiled, decoder=decoder)
                self.assertEqual(sum(b.n for b in batches) + refused.total(), len(spoiled))
                alone = [decode([octets])[0] for octets in spoiled]
                alone.sort(key=lambda found: found[0].columns["oob.family"][0] if found else 0)
                self.assertEqual(rows(batches), [r for found in alone for r in rows(found)])

    @given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=50))
    def test_garbage(self, garbage):
        """Random octets are counted as refused."""
        batches, refused = decode(garbage)
        self.assertEqual(sum(b.n for b in batches) + refused.total(), len(garbage))

    def test_every_cut(self):
        """A message cut anywhere, with its length set right, is refused or has only what is before the cut."""
        for whole in cut(recorded()[2])[:3]:
            for end in range(20, len(whole)):
                short = end.to_bytes(4, "little") + whole[4:end]
                batches, refused = decode([short])
                self.assertEqual(sum(b.n for b in batches) + refused.total(), 1)
                if batches:
                    self.assertEqual(rows(batches), [row(short, NOW)])
