"""Conntrack messages to batches."""

import ipaddress
import json
import socket
from collections import Counter
from dataclasses import replace
from itertools import permutations
from random import Random
from unittest import SkipTest
from unittest.mock import patch

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.netfilter.messages import (
    DESTROY,
    NEW,
    UPDATE,
    any_message,
    attr,
    be,
    corpus,
    counters,
    flow_tuple,
    message,
    nest,
    ports,
    row,
    slab,
)  # fmt: skip
from ulogd_tw.core import types
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.netfilter import conntrack, layout
from ulogd_tw.netfilter.conntrack import KEYS, Decoder
from ulogd_tw.netfilter.ctnetlink import GRAMMAR

NOW = 1795394676.25
_ULOGD2 = set(registry.ulogd)
CLIENT, SERVER, PUBLIC = b"\x0a\x00\x00\x01", b"\xc0\x00\x02\x07", b"\xcb\x00\x71\x05"
START, STOP = 1795394674_120_456_789, 1795394676_082_111_222

FTP = message(
    DESTROY, 2,
    flow_tuple(1, CLIENT, SERVER, 6, *ports(40000, 20)),
    flow_tuple(2, SERVER, PUBLIC, 6, *ports(20, 1025)),
    attr(12, be(4, 0xDEADBEEF)), attr(3, be(4, 0x38E)), attr(7, be(4, 119)),
    counters(9, 5, 513), counters(10, 3, 2**40),
    nest(20, attr(1, be(8, START)), attr(2, be(8, STOP))),
    nest(4, nest(1, attr(1, b"\x08"), attr(2, b"\x0a"), attr(3, b"\x07"), attr(4, b"\x23\x00"), attr(5, b"\x2b\x00"))),
    nest(5, attr(1, b"ftp\0")), attr(8, be(4, 0x42)), attr(18, be(2, 7)), attr(11, be(4, 1)),
    attr(22, bytes(range(16))), nest(19, attr(1, b"system_u:object_r:unlabeled_t\0")),
    nest(14, *[flow_tuple(1, CLIENT, SERVER, 6, *ports(40001, 21))[4:]]),
    attr(27, be(8, STOP + 5)),
)  # fmt: skip
"""A data connection of FTP through NAT, with everything that a kernel may send about a TCP flow."""


def decode(messages, wanted=ALL, decoder=None):
    """(batches, refused) of these messages in one call."""
    decoder = decoder or Decoder(wanted)
    batches = decoder.decode(*slab(messages, max(512, -(-max(map(len, messages)) // 8) * 8)), NOW)
    return batches, decoder.refused


def rows(batches):
    """All rows of these batches."""
    return [r for batch in batches for r in batch.rows()]


def by_family(messages):
    """Expected rows of messages: those of IPv4 in order, then those of IPv6."""
    return [row(m, NOW) for family in (2, 10) for m in messages if m[16] == family]


class DecoderTests(SynchronousTestCase):
    """Messages written by hand from the kernel's header."""

    def test_everything(self):
        """Each attribute of a TCP flow comes out under its key."""
        (batch,), refused = decode([FTP])
        self.assertEqual(refused, Counter())
        (found,) = batch.rows()
        self.assertEqual(found, {
            "orig.ip.saddr": 0x0A000001, "orig.ip.daddr": 0xC0000207, "orig.ip.protocol": 6,
            "orig.l4.sport": 40000, "orig.l4.dport": 20, "orig.raw.pktlen": 513, "orig.raw.pktcount": 5,
            "reply.ip.saddr": 0xC0000207, "reply.ip.daddr": 0xCB007105, "reply.ip.protocol": 6,
            "reply.l4.sport": 20, "reply.l4.dport": 1025, "reply.raw.pktlen": 2**40, "reply.raw.pktcount": 3,
            "ct.mark": 0x42, "ct.id": 0xDEADBEEF, "ct.event": 4,
            "flow.start.sec": 1795394674, "flow.start.usec": 120456,
            "flow.end.sec": 1795394676, "flow.end.usec": 82111, "oob.family": 2, "oob.protocol": 0,
            "flowStartMilliseconds": 1795394674120, "flowEndMilliseconds": 1795394676082,
            "observationTimeMilliseconds": 1795394676082,
            "postNATSourceAddress": 0xCB007105, "postNATDestinationAddress": 0xC0000207,
            "postNAPTSourceTransportPort": 1025, "postNAPTDestinationTransportPort": 20,
            "octetDeltaCount": 513, "packetDeltaCount": 5,
            "reverseOctetDeltaCount": 2**40, "reversePacketDeltaCount": 3,
            "ct.status": 0x38E, "ct.timeout": 119, "ct.use": 1, "ct.zone": 7,
            "ct.labels": bytes(range(16)), "ct.helper": b"ftp", "ct.secctx": b"system_u:object_r:unlabeled_t",
            "ct.tcp.state": 8, "ct.tcp.wscale.orig": 10, "ct.tcp.wscale.reply": 7,
            "ct.tcp.flags.orig": 0x23, "ct.tcp.flags.reply": 0x2B,
            "ct.master.saddr": 0x0A000001, "ct.master.daddr": 0xC0000207, "ct.master.protocol": 6,
            "ct.master.sport": 40001, "ct.master.dport": 21,
        })  # fmt: skip

    def test_sctp_and_dccp(self):
        """Their states are kept apart from TCP's."""
        tuples = [flow_tuple(k, CLIENT, SERVER, 132, *ports(1, 2)) for k in (1, 2)]
        vtags = attr(2, be(4, 0x01020304)), attr(3, be(4, 0xF1F2F3F4))
        sctp = message(UPDATE, 2, *tuples, nest(4, nest(3, attr(1, b"\x04"), *vtags)))
        dccp = message(UPDATE, 2, *tuples, nest(4, nest(2, attr(1, b"\5"), attr(2, b"\1"), attr(3, be(8, 1 << 47)))))
        first, second = rows(decode([sctp, dccp])[0])
        self.assertEqual(
            [first.get(f"ct.sctp.{n}") for n in ("state", "vtag.orig", "vtag.reply")], [4, 0x01020304, 0xF1F2F3F4]
        )
        self.assertEqual([second.get(f"ct.dccp.{n}") for n in ("state", "role", "handshake_seq")], [5, 1, 1 << 47])
        self.assertNotIn("ct.tcp.state", first | second)

    def test_icmp_has_no_ports(self):
        """ICMP flows have type, code and identifier; ports are missing, not 0, as in ulogd2."""
        echo = attr(4, be(2, 77)), attr(5, b"\x08"), attr(6, b"\x00")
        echo6 = attr(7, be(2, 78)), attr(8, b"\x80"), attr(9, b"\x00")
        six = ipaddress.ip_address("fd77::1").packed
        found = rows(decode([
            message(DESTROY, 2, flow_tuple(1, CLIENT, SERVER, 1, *echo)),
            message(DESTROY, 10, flow_tuple(1, six, six, 58, *echo6)),
        ])[0])  # fmt: skip
        for one in found:
            self.assertFalse({"orig.l4.sport", "orig.l4.dport", "postNAPTSourceTransportPort"} & set(one))
        self.assertEqual([found[0][f"icmp.{n}"] for n in ("type", "code", "id")], [8, 0, 77])
        self.assertEqual([found[1][f"icmpv6.{n}"] for n in ("type", "code", "id")], [128, 0, 78])
        self.assertEqual(found[1]["orig.ip.saddr"], int(ipaddress.ip_address("fd77::1")))

    def test_what_the_kernel_did_not_send(self):
        """Counters and the start are missing, never 0; the mark and the zone, whose absence means 0, are 0."""
        (found,) = rows(decode([message(DESTROY, 2, flow_tuple(1, CLIENT, SERVER, 17, *ports(1, 2)))])[0])
        self.assertFalse([name for name in found if ".raw." in name or "tart" in name or name.startswith("reply.")])
        self.assertEqual((found["ct.mark"], found["ct.zone"]), (0, 0))

    def test_times_without_the_kernels(self):
        """The receive time ends a DESTROY and begins a NEW that carry none; nothing else gets it."""
        tuples = flow_tuple(1, CLIENT, SERVER, 17, *ports(1, 2))
        new, update, destroy = rows(decode([message(e, 2, tuples) for e in (NEW, UPDATE, DESTROY)])[0])
        self.assertEqual((new["flow.start.sec"], new["flow.start.usec"]), (1795394676, 250000))
        self.assertEqual(destroy["flowEndMilliseconds"], 1795394676250)
        self.assertFalse({"flow.end.sec", "flowEndMilliseconds"} & set(new))
        self.assertFalse({"flow.start.sec", "flowStartMilliseconds"} & set(destroy))
        self.assertFalse([name for name in update if name.startswith("flow")])

    def test_event_time_before_receive_time(self):
        """The kernel's time of the event (6.14) goes before ours."""
        tuples = flow_tuple(1, CLIENT, SERVER, 17, *ports(1, 2))
        new, destroy = rows(decode([message(e, 2, tuples, attr(27, be(8, START))) for e in (NEW, DESTROY)])[0])
        self.assertEqual((new["flowStartMilliseconds"], destroy["flowEndMilliseconds"]), (START // 10**6,) * 2)

    def test_counters_of_32_bits(self):
        """The old counters widen into the same keys; 64-bit ones go before them."""
        tuples = flow_tuple(1, CLIENT, SERVER, 17, *ports(1, 2))
        old = nest(9, attr(3, be(4, 9)), attr(4, be(4, 0xFFFFFFFF)))
        both = nest(9, attr(3, be(4, 9)), attr(4, be(4, 10)), attr(1, be(8, 1 << 33)), attr(2, be(8, 1 << 34)))
        found = rows(decode([message(DESTROY, 2, tuples, a) for a in (old, both, counters(9, 1, 2))])[0])
        self.assertEqual([r["orig.raw.pktcount"] for r in found], [9, 1 << 33, 1])
        self.assertEqual([r["orig.raw.pktlen"] for r in found], [0xFFFFFFFF, 1 << 34, 2])

    def test_empty_attribute_is_padding(self):
        """Kernels that align 64-bit values put an empty attribute of CTA_STATUS's type before the event time."""
        tuples = flow_tuple(1, CLIENT, SERVER, 17, *ports(1, 2))
        (found,) = rows(decode([message(NEW, 2, tuples, attr(3, be(4, 8)), attr(3, b""), attr(27, be(8, START)))])[0])
        self.assertEqual((found["ct.status"], found["flowStartMilliseconds"]), (8, START // 10**6))

    def test_two_schemas(self):
        """All batches are of one schema for each family, whatever the layouts; addresses have the family's type."""
        decoder = Decoder(frozenset({"orig.ip.saddr", "ct.mark", "icmp.type", "icmpv6.type"}))
        messages = corpus()[::4]
        schemas = Counter()
        for start in range(0, len(messages), 100):
            for batch in decode(messages[start : start + 100], decoder=decoder)[0]:
                schemas[batch.schema] += 1
                self.assertEqual(set(batch.columns), set(batch.schema))
        self.assertEqual(len(schemas), 2)
        self.assertEqual(
            {(tuple(s), s["orig.ip.saddr"].type) for s in schemas},
            {(("orig.ip.saddr", "icmp.type", "ct.mark"), types.IPV4),
             (("orig.ip.saddr", "icmpv6.type", "ct.mark"), types.IPV6)},
        )  # fmt: skip

    def test_only_wanted_keys(self):
        """Nothing else is decoded, and rows come even when no key is wanted (a count)."""
        (batch,), _ = decode([FTP], frozenset({"ct.id"}))
        self.assertEqual(list(batch.columns), ["ct.id"])
        (batch,), _ = decode([FTP], frozenset())
        self.assertEqual((batch.n, batch.columns), (1, {}))

    def test_columns_have_their_types(self):
        """Every column has the natural width of its key's type."""
        for batch in decode(corpus()[:200] + [FTP])[0]:
            for name, key in batch.schema.items():
                if key.type.dtype is not None:
                    self.assertEqual(batch.columns[name].dtype, key.type.dtype, name)
                    self.assertTrue(batch.columns[name].dtype.isnative)
                self.assertEqual(len(batch.columns[name]), batch.n, name)

    def test_declared_keys(self):
        """The keys that are declared are those that come out."""
        given = {name for schema in Decoder(ALL).schemas.values() for name in schema}
        self.assertEqual({key.name for key in KEYS}, given)
        self.assertEqual(len(KEYS), len(given))

    def test_refused_are_counted(self):
        """What is not a conntrack entry is refused by reason, and its neighbours stay."""
        expectation = bytearray(FTP)
        expectation[5] = 2
        bridge = bytearray(FTP)
        bridge[16] = 7
        cut = bytearray(FTP)
        cut[21] = 0xFF
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                batches, refused = decode([FTP, bytes(expectation), bytes(bridge), bytes(cut), FTP[:18], FTP])
            self.assertEqual(refused, {"type": 1, "family": 1, "attribute length": 1, "length": 1})
            self.assertEqual(rows(batches), [row(FTP, NOW)] * 2)

    def test_cut_after_learning(self):
        """A message of a known layout that was cut is refused: its end is not what lies behind it in the slab."""
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(ALL)
                decode([FTP], decoder=decoder)
                for missing in (1, 4, 8, len(FTP) - 20):
                    self.assertEqual(decode([FTP[:-missing]], decoder=decoder)[0], [])
                self.assertEqual(decoder.refused, {"length": 4})

    def test_known_layouts_are_matched_at_once(self):
        """What has been learnt needs no look at single messages any more, also after longer layouts came."""
        decoder = Decoder(frozenset({"ct.id"}))
        numbers = [attr(kind, be(4, kind)) for kind in (3, 7, 8, 12)]
        messages = corpus()[::4] + [message(NEW, 2, *order) for order in permutations(numbers)]
        decode(messages, decoder=decoder)
        decode([FTP], decoder=decoder)
        with patch.object(decoder.layouts, "identify", side_effect=AssertionError), patch.object(layout, "FEW", 0):
            self.assertEqual(sum(batch.n for batch in decode([FTP, *messages], decoder=decoder)[0]), 1 + len(messages))

    def test_many_layouts_of_one_length(self):
        """The kernel could order attributes in any way; of one length, type and family only 32 are learnt."""
        numbers = [attr(kind, be(4, kind + 256)) for kind in (3, 7, 8, 11, 12)]
        alike = [message(NEW, 2, *order) for order in permutations(numbers)]
        other = message(NEW, 2, attr(3, be(4, 1)))
        for few in (0, 200):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(ALL)
                for _ in range(2):
                    batches, refused = decode([*alike, other, *alike], decoder=decoder)
                    self.assertEqual(rows(batches), by_family([*alike, other, *alike]))
                    self.assertLessEqual(decoder.layouts.learnt, 33)
                    self.assertEqual(decoder.layouts.count, decoder.layouts.learnt + 1)
                decode([other], decoder=decoder)
                self.assertEqual(decoder.layouts.learnt, 33)

    def test_nothing(self):
        """No messages, no batch."""
        self.assertEqual(Decoder(ALL).decode(*slab([]), NOW), [])


class CorpusTests(SynchronousTestCase):
    """Events recorded from a real kernel."""

    def test_row_by_row(self):
        """All at once, few at once and one by one give the rows of the rules written out for one message."""
        messages = corpus()[::7]
        self.assertEqual({m[4] for m in messages}, {0, 2})
        decoder = Decoder(ALL)
        for size in (1, 5, 40, 333, 1024):
            part = messages[: size * 4]
            found = []
            for start in range(0, len(part), size):
                batches, refused = decode(part[start : start + size], decoder=decoder)
                expected = by_family(part[start : start + size])
                self.assertEqual(rows(batches), expected)
                found += expected
            self.assertEqual((len(found), refused), (len(part), {}))

    def test_every_recorded_event(self):
        """Nothing recorded is refused, and the layouts are the 16 there are."""
        decoder = Decoder(frozenset({"ct.id"}))
        messages = corpus()
        n = sum(batch.n for batch in decode(messages, decoder=decoder)[0])
        self.assertEqual((n, decoder.refused), (len(messages), {}))
        self.assertEqual(decoder.layouts.learnt, 16)

    def test_visible_keys_of_ulogd2(self):
        """For TCP, UDP, ICMP and ICMPv6 the keys that ulogd2 printed are there, and of its keys no others."""
        printed = {}
        for line in shared_path("ulogd2", "golden", "out", "flow.json").read_text().splitlines():
            record = json.loads(line)
            names = {name for name in record if name in _ULOGD2 and not name.endswith(".str")}
            printed[record["oob.family"], record["orig.ip.protocol"]] = names
        found = {}
        echo = attr(4, be(2, 77)), attr(5, b"\x08"), attr(6, b"\x00")
        stamps = nest(20, attr(1, be(8, START)), attr(2, be(8, STOP)))
        tuples = [flow_tuple(kind, CLIENT, SERVER, 1, *echo) for kind in (1, 2)]
        icmp = message(DESTROY, 2, *tuples, counters(9, 1, 84), counters(10, 1, 84), stamps, attr(12, be(4, 1)))
        for one in rows(decode([m for m in corpus() if m[4] == 2] + [icmp])[0]):
            names = {name for name in one if name in _ULOGD2}
            found[one["oob.family"], one["orig.ip.protocol"]] = names - {"icmpv6.type", "icmpv6.code"}
        both = set(found) & set(printed)
        self.assertEqual(both, {(2, 6), (2, 17), (2, 1), (10, 17), (10, 58)})
        addresses = {f"{side}.ip.{end}" for side in ("orig", "reply") for end in ("saddr", "daddr")}
        for kind in both:
            self.assertEqual(found[kind], printed[kind] | addresses, kind)

    def test_against_pyroute2(self):
        """An independent decoder reads the same values."""
        try:
            from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
        except ImportError:
            raise SkipTest("install: pyroute2") from None
        messages = corpus()[::199]
        ours = {}
        for batch in decode(messages)[0]:
            ours |= {(r["ct.id"], r["ct.event"]): r for r in batch.rows()}
        for octets in messages:
            theirs = nfct_msg(octets)
            theirs.decode()
            found = ours[theirs.get_attr("CTA_ID"), 4 if octets[4] == 2 else 1 if octets[7] else 2]
            for side in ("ORIG", "REPLY"):
                tuple_ = theirs.get_attr(f"CTA_TUPLE_{side}")
                ip, proto = tuple_.get_attr("CTA_TUPLE_IP"), tuple_.get_attr("CTA_TUPLE_PROTO")
                name, version = side.lower(), "V4" if octets[16] == 2 else "V6"
                for key, end in (("saddr", "SRC"), ("daddr", "DST")):
                    family = socket.AF_INET if version == "V4" else socket.AF_INET6
                    address = socket.inet_pton(family, ip.get_attr(f"CTA_IP_{version}_{end}"))
                    self.assertEqual(found[f"{name}.ip.{key}"], int.from_bytes(address, "big"))
                self.assertEqual(found[f"{name}.ip.protocol"], proto.get_attr("CTA_PROTO_NUM"))
                self.assertEqual(found.get(f"{name}.l4.sport"), proto.get_attr("CTA_PROTO_SRC_PORT"))
                self.assertEqual(found.get(f"{name}.l4.dport"), proto.get_attr("CTA_PROTO_DST_PORT"))
                counted = theirs.get_attr(f"CTA_COUNTERS_{side}")
                if counted is None:
                    self.assertNotIn(f"{name}.raw.pktlen", found)
                else:
                    self.assertEqual(found[f"{name}.raw.pktlen"], counted.get_attr("CTA_COUNTERS_BYTES"))
                    self.assertEqual(found[f"{name}.raw.pktcount"], counted.get_attr("CTA_COUNTERS_PACKETS"))
            self.assertEqual(found["ct.mark"], theirs.get_attr("CTA_MARK") or 0)
            self.assertEqual(found["ct.timeout"], theirs.get_attr("CTA_TIMEOUT"))


# --- properties -----------------------------------------------------------------------------------------------------


# From a seed, because a strategy for each attribute takes hypothesis a minute.
MESSAGES = st.integers(0, 2**32).map(lambda seed: any_message(Random(seed)))


class PropertyTests(SynchronousTestCase):
    """Any message, well formed or not."""

    @given(st.lists(MESSAGES, min_size=1, max_size=6), st.data())
    def test_all_at_once_is_one_by_one(self, different, data):
        """However many of whatever layouts come at once, in both ways of matching, each row is as by the rules."""
        last = len(different) - 1
        chosen = [different[i] for i in data.draw(st.lists(st.integers(0, last), min_size=1, max_size=40))]
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(ALL)
                for _ in range(2):
                    batches, refused = decode(chosen, decoder=decoder)
                    self.assertEqual(rows(batches), by_family(chosen))
                    self.assertEqual(refused, {})

    @given(st.lists(MESSAGES, min_size=1, max_size=8))
    def test_more_layouts_than_are_learnt(self, different):
        """Messages beyond the bound are decoded alike, and the tables stay bounded."""
        with patch.object(conntrack, "GRAMMAR", replace(GRAMMAR, layouts=3)), patch.object(layout, "MOST_OF_A_HEAD", 1):
            for few in (0, 100):
                with patch.object(layout, "FEW", few):
                    decoder = Decoder(ALL)
                    for _ in range(2):
                        self.assertEqual(rows(decode(different, decoder=decoder)[0]), by_family(different))
                    self.assertLessEqual(decoder.layouts.learnt, 3)
                    self.assertEqual(decoder.layouts.count, decoder.layouts.learnt + 1)

    @given(st.lists(st.tuples(MESSAGES, st.integers(0, 600), st.integers(0, 600), st.binary(max_size=4)), min_size=1))
    def test_damaged(self, damaged):
        """Cut, patched and lengthened messages become rows or are counted: never another exception, never silence."""
        spoiled = []
        for octets, cut, at, patched in damaged:
            octets = bytearray(octets)
            at %= len(octets)
            octets[at : at + len(patched)] = patched
            spoiled.append(bytes(octets[: max(1, len(octets) - cut % len(octets))]))
        for few in (0, 100):
            with patch.object(layout, "FEW", few):
                decoder = Decoder(ALL)
                decode([octets for octets, *_ in damaged], decoder=decoder)
                batches, refused = decode(spoiled, decoder=decoder)
                self.assertEqual(sum(b.n for b in batches) + refused.total(), len(spoiled))
                alone = [decode([octets])[0] for octets in spoiled]
                alone.sort(key=lambda found: bool(found) and found[0].columns["oob.family"][0])
                self.assertEqual(rows(batches), [r for found in alone for r in rows(found)])

    @given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=50))
    def test_garbage(self, garbage):
        """Random octets are counted as refused."""
        batches, refused = decode(garbage)
        self.assertEqual(sum(b.n for b in batches) + refused.total(), len(garbage))

    def test_every_cut(self):
        """A message cut anywhere, with its length set right, is refused or has only what is before the cut."""
        for end in range(1, len(FTP)):
            cut = bytearray(FTP[:end])
            cut[:4] = end.to_bytes(4, "little")[:end]
            batches, refused = decode([bytes(cut)])
            self.assertEqual(sum(b.n for b in batches) + refused.total(), 1)
            if batches:
                self.assertEqual(rows(batches), [row(bytes(cut), NOW)])
