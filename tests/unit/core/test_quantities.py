"""One quantity, several elements: the table, and the amounts of rows."""

import json
import struct

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.ipfix.wire import Collected, a_set, message, template
from tests.unit.plugins.filters.test_aggregate import AggregateCase
from ulogd_tw.core import quantities
from ulogd_tw.core.amounts import Amounts
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.quantities import OCTETS, PACKETS, QUANTITIES, REPLY_OCTETS, REPLY_PACKETS
from ulogd_tw.core.resolve import Provided, Sources

# IANA's registry of IPFIX elements; reverse ones by RFC 5103.
ELEMENTS = {
    OCTETS: [(0, 1), (0, 85), (0, 231), (0, 23), (0, 171), (0, 352), (0, 353), (0, 417), (0, 420)],
    PACKETS: [(0, 2), (0, 86), (0, 298), (0, 24), (0, 172)],
    REPLY_OCTETS: [(29305, 1), (29305, 85), (0, 232), (29305, 231), (29305, 23), (29305, 171), (29305, 352),
                   (29305, 353), (29305, 417), (29305, 420)],
    REPLY_PACKETS: [(29305, 2), (29305, 86), (0, 299), (29305, 298), (29305, 24), (29305, 172)],
}  # fmt: skip
TOTALS = {85, 86, 171, 172, 353, 420}


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_elements(self):
        """Every counter is an element of IANA, or the reverse of one, in this order, and a total where IANA says so."""
        for quantity, elements in ELEMENTS.items():
            self.assertEqual([elements_ for name in quantity.names for elements_ in known(name).elements], elements)
            for counter, (_, ident) in zip(quantity.counters, elements, strict=True):
                self.assertEqual(ident in TOTALS, counter.total, counter)

    def test_needed(self):
        """Of a record with a delta, neither other counters nor what tells flows apart are read for it."""
        wanted = frozenset({"octetDeltaCount", "octetTotalCount", "postOctetDeltaCount", "initiatorOctets", "vlanId",
                            "protocolIdentifier"})  # fmt: skip
        seldom = wanted - {"protocolIdentifier"}
        for there, expected in (
            ({"octetDeltaCount", "packetDeltaCount", "postOctetDeltaCount", "vlanId"},
             wanted - {"vlanId", "postOctetDeltaCount"}),
            ({"octetTotalCount", "postOctetDeltaCount", "vlanId"}, wanted),
            ({"vlanId"}, wanted),
            ({"octetDeltaCount", "packetTotalCount"}, wanted),
            ({"initiatorOctets", "postOctetDeltaCount"}, wanted - {"vlanId", "postOctetDeltaCount"}),
        ):  # fmt: skip
            self.assertEqual(expected, quantities.needed(wanted, seldom, there), there)


class AmountTests(SynchronousTestCase):
    """The amounts of rows."""

    def amounts(self, columns, place):
        """The amount of rows with these columns of values, None where one is missing."""
        keys = [known(name) for name in columns]
        n = len(next(iter(columns.values())))
        arrays = {name: np.array([v or 0 for v in column], np.uint64) for name, column in columns.items()}
        masks = {name: np.array([v is None for v in column]) for name, column in columns.items()}
        batch = Batch(Schema(keys), arrays, {name: mask for name, mask in masks.items() if mask.any()}, n=n, now=0.0)
        sources, provided = Sources(), Provided(keys)
        for name in quantities.NAMES:
            sources.add(name, provided.recipes(name))
        return Amounts(sources.find).of(batch, place)

    @given(st.data())
    def test_row_by_row(self, data):
        """In each row the first counter with a value counts, and whether it is a total is known."""
        place = data.draw(st.integers(0, 3))
        quantity = QUANTITIES[place]
        names = data.draw(st.lists(st.sampled_from(quantity.names), unique=True))
        n = data.draw(st.integers(1, 4))
        value = st.none() | st.integers(0, 2**64 - 1)
        columns = {name: data.draw(st.lists(value, min_size=n, max_size=n)) for name in names}
        found = self.amounts(columns or {"sourceTransportPort": [1] * n}, place)
        expected = []
        for row in range(n):
            there = [counter for counter in quantity.counters if columns.get(counter.name, [None] * n)[row] is not None]
            expected.append((columns[there[0].name][row], there[0].total) if there else None)
        if found is None:
            self.assertEqual([None] * n, expected)
            return
        missing = np.zeros(n, bool) if found.missing is None else found.missing
        totals = np.zeros(n, bool) if found.totals is None else found.totals
        rows = zip(found.values.tolist(), totals.tolist(), missing.tolist(), strict=True)
        self.assertEqual(expected, [None if absent else (amount, total) for amount, total, absent in rows])


class NamesTests(SynchronousTestCase):
    """The names octets and packets as keys, as columns of databases ask for them."""

    def test_column(self):
        """They are met by the first counter of a batch, and by nothing that counts something else."""
        for counter, column, name in (
            ("octetDeltaCount", 5, "octets"), ("initiatorOctets", 5, "octets"), ("packetTotalCount", 5, "packets"),
            ("responderPackets", 5, "reply_packets"), ("reverseOctetDeltaCount", 5, "reply_octets"),
            ("droppedOctetDeltaCount", None, "octets"), ("postMCastOctetDeltaCount", None, "octets"),
        ):  # fmt: skip
            key = known(counter)
            sources = Sources()
            sources.add(name, Provided((), open_=True).recipes(name))
            found = sources.find(Batch(Schema([key]), {counter: np.array([5], np.uint64)}, n=1, now=0.0), name)
            self.assertEqual(column, None if found is None else int(found.numbers[0]), (counter, name))


class SeldomTests(SynchronousTestCase):
    """Keys that are read of some records only."""

    def test_decoder(self):
        """VLAN and exporter are read where octets are totals; counters behind a delta are not."""
        wanted = frozenset({"octetDeltaCount", "octetTotalCount", "postOctetDeltaCount", "vlanId", "templateId"})
        found = Collected(wanted, seldom=wanted)
        whole = [a_set(2, template(256, (1, 1), (2, 1), (23, 1), (58, 2)), template(257, (85, 1), (23, 1), (58, 2))),
                 a_set(256, b"\1\2\3\0\7"), a_set(257, b"\1\2\0\7")]  # fmt: skip
        (deltas,), (totals,) = (list(batch.rows()) for batch in found.batches(message(*whole)))
        self.assertEqual({"octetDeltaCount": 1}, deltas)
        self.assertEqual({"octetTotalCount": 1, "postOctetDeltaCount": 2, "vlanId": 7, "templateId": 257}, totals)

    def test_other_vocabularies(self):
        """Counters of NetFlow v5 and v9 under their own names are read, without what tells flows apart."""
        case = AggregateCase()
        case.make(key="protocolIdentifier")
        source = case.source
        record = struct.pack(
            "!4s4s4sHHIIIIHHBBBBHHBBH", *[bytes(4)] * 3, 1, 2, 21, 2877, 0, 0, 80, 81, 0, 0, 6, 0, *[0] * 5
        )
        packets = [struct.pack("!HHIIIIBBH", 5, 1, 0, 2000, 0, 0, 0, 0, 0) + record,
                   bytes.fromhex("0009000200000000000007d00000000000000000" "00000014010000030001000400020004000a0002"
                                 "0100001000000b3d0000001500010000")]  # fmt: skip
        for packet in packets:
            (batch,) = Collected(source.wanted, reliable=False, seldom=source.seldom_wanted).batches(packet)
            for name, expected in (("octets", 2877), ("packets", 21)):
                sources = Sources()
                sources.add(name, Provided(batch.schema.values()).recipes(name))
                self.assertEqual([expected], sources.find(batch, name).numbers.tolist())
            self.assertFalse({"input", "ingressInterface", "exporter", "templateId", "tos"} & set(batch.schema))

    def test_sflow(self):
        """Samples of sFlow have octets and packets."""
        case = AggregateCase()
        case.make(key="protocolIdentifier")
        found = Collected(case.source.wanted, reliable=False, seldom=case.source.seldom_wanted)
        path = shared_path("corpus", "ipfix", "messages", "akvorado-sflow-icmpv4.jsonl")
        batches = found.batches(bytes.fromhex(json.loads(path.read_text().splitlines()[0])["hex"]))
        self.assertTrue(batches)
        for batch in batches:
            self.assertTrue({"octetDeltaCount", "packetDeltaCount"} <= set(batch.schema), list(batch.schema))

    def test_stacks(self):
        """What another plugin needs in every row is read of every record."""
        case = AggregateCase()
        case.make(key="vlanId")
        seldom = case.source.seldom_wanted
        self.assertTrue({"ingressInterface", "templateId", "initiatorOctets"} <= seldom)
        self.assertFalse({"vlanId", "flowStartMilliseconds", "flowEndReason"} & seldom)
        self.assertTrue(seldom <= case.source.wanted)
