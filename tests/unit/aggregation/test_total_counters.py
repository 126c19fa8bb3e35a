"""totals=difference of AGGREGATE: what each record of a flow says more than the one before it."""

from collections import defaultdict

from hypothesis import strategies as st

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import CONNTRACK, AggregateCase, batch_of
from ulogd_tw.core import types

END, GOES_ON, IDLE = 3, 2, 1


class TotalsTests(AggregateCase):
    """With flowEndReason as RFC 5102 section 5.11.3 numbers it."""

    def make(self, **options):
        return super().make(**{"key": "protocolIdentifier", "totals": "difference"} | options)

    def give_totals(self, *rows, now=1000.0):
        """Each (port, octets, packets) and more."""
        names = ("sourceTransportPort", "octetTotalCount", "packetTotalCount")
        self.give(batch_of([dict(zip(names, row[:3], strict=True)) | row[3] for row in rows], now=now))

    def sums(self):
        """(octets, packets) of everything."""
        self.agg.flush()
        found = [(row.get("octets"), row.get("packets")) for row in self.rows()]
        self.keep.batches.clear()
        (one,) = found
        return one

    def test_differences(self):
        """Over several batches and within one."""
        self.make()
        self.give_totals((1, 100, 1, {}), (2, 5, 5, {}), (1, 150, 3, {}))
        self.assertEqual((155, 8), self.sums())
        self.give_totals((1, 250, 4, {}))
        self.give_totals((2, 5, 5, {}), (1, 260, 5, {}))
        self.assertEqual((110, 2), self.sums())

    def test_by_last_record_only(self):
        """Without the option the last record's total counts, and interim ones do not."""
        self.make(totals="last")
        reason = {"flowEndReason": GOES_ON}
        self.give_totals((1, 100, 1, reason), (1, 150, 2, reason), (1, 170, 3, {"flowEndReason": END}))
        self.assertEqual((170, 3), self.sums())

    def test_begins_anew(self):
        """With a smaller total, after a flow's last record, and where a flow starts after the end of the last one."""
        self.make()
        self.give_totals((1, 100, 1, {}), (1, 30, 1, {}))
        self.assertEqual((130, 2), self.sums())
        self.give_totals((3, 100, 1, {"flowEndReason": IDLE}), (3, 120, 1, {"flowEndReason": IDLE}))
        self.give_totals((3, 130, 1, {"flowEndReason": IDLE}))
        self.assertEqual((350, 3), self.sums())
        first = {"flowStartMilliseconds": 10_000, "flowEndMilliseconds": 20_000}
        later = {"flowStartMilliseconds": 30_000, "flowEndMilliseconds": 40_000}
        self.give_totals((4, 100, 1, first), (4, 110, 2, first))
        self.give_totals((4, 120, 2, later), (4, 125, 3, later))
        self.assertEqual((235, 5), self.sums())

    def test_began_before(self):
        """What a flow had counted before there was an AGGREGATE is left out, where it is known to go on."""
        self.make()
        old = {"flowStartMilliseconds": 900_000, "flowEndReason": GOES_ON}
        new = {"flowStartMilliseconds": 1_000_500, "flowEndReason": GOES_ON}
        self.give_totals((1, 10**9, 10**6, old), (1, 10**9 + 7, 10**6 + 1, old), (2, 40, 2, new))
        self.give_totals((3, 50, 5, {"flowStartMilliseconds": 900_000, "flowEndReason": END}))
        self.assertEqual((97, 8), self.sums())
        self.assertEqual(1, self.agg.counters.figures["rows_joined"]())

    def test_exporters_apart(self):
        """The same addresses and ports in two domains are two flows."""
        self.make()
        for total in (100, 110):
            self.give_totals(*((1, total, 1, {"observationDomainId": domain}) for domain in (1, 2)))
        self.assertEqual((220, 2), self.sums())

    def test_a_key_that_others_have(self):
        """A flow is the same whether its records lack a key alone or with all that came with them."""
        self.make()
        flow = {"sourceTransportPort": 1, "packetTotalCount": 1}
        self.give(batch_of([flow | {"octetTotalCount": 100}]))
        self.give(batch_of([flow | {"octetTotalCount": 110}, {"sourceTransportPort": 2, "octetTotalCount": 5,
                                                              "packetTotalCount": 1, "vlanId": 7}]))  # fmt: skip
        self.assertEqual((115, 2), self.sums())

    def test_deltas_are_as_they_are(self):
        """A row that has a delta counts it."""
        self.make()
        rows = [{"sourceTransportPort": 1, "octetTotalCount": 100, "octetDeltaCount": 9},
                {"sourceTransportPort": 1, "octetTotalCount": 130}]  # fmt: skip
        self.give(batch_of(rows))
        self.assertEqual(39, self.sums()[0])

    def test_more_flows_than_room(self):
        """Flows that are told often are known, however many others come between."""
        self.make(max_keys=100)
        for turn in range(1, 60):
            rows = [(1, 10 * turn, turn, {})] + [(1000 + 45 * turn + n, 1, 1, {}) for n in range(45)]
            self.give_totals(*rows)
        self.assertEqual((590 + 59 * 45, 59 + 59 * 45), self.sums())
        self.assertLess(self.agg.counters.figures["memory_octets"](), 10_000_000)

    @examples(60)
    @given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 50), st.none() | st.integers(0, 9),
                                       st.sampled_from([None, END, GOES_ON]), st.integers(0, 3)), min_size=1,
                             max_size=8), max_size=8))  # fmt: skip
    def test_any(self, batches):
        """Row by row: growing totals, gaps, wraps, ends, later starts."""
        self.make()
        totals, octets, packets = {}, 0, 0
        last_end = {}
        for now, rows in enumerate(batches, 1000):
            given_ = [{"sourceTransportPort": 99, "octetTotalCount": 0, "packetTotalCount": 0}]
            for port, more_octets, more_packets, reason, start in rows:
                start = 1_000_000 + 1000 * start
                if start > last_end.get(port, start):
                    totals[port] = [0, 0]
                held = totals.setdefault(port, [0, 0])
                one = {"sourceTransportPort": port, "flowStartMilliseconds": start,
                       "flowEndMilliseconds": start + 500}  # fmt: skip
                last_end[port] = start + 500
                for place, (name, more) in enumerate(
                    (("octetTotalCount", more_octets), ("packetTotalCount", more_packets))
                ):
                    if more is None:
                        continue
                    held[place] += more
                    one[name] = held[place]
                    octets, packets = octets + more * (place == 0), packets + more * (place == 1)
                if reason is not None:
                    one["flowEndReason"] = reason
                if reason == END:
                    totals[port] = [0, 0]
                given_.append(one)
            self.give(batch_of(given_, now=float(now)))
        self.agg.flush()
        found = defaultdict(int)
        for row in self.rows():
            found["octets"] += row.get("octets", 0)
            found["packets"] += row.get("packets", 0)
        self.assertEqual((octets, packets), (found["octets"], found["packets"]))


class AutoTests(AggregateCase):
    """totals=auto, the default: what is told again counts once, what is not counts whole."""

    FLOW = {"sourceIPv4Address": 1, "destinationIPv4Address": 2, "protocolIdentifier": 6, "sourceTransportPort": 1000,
            "destinationTransportPort": 80}  # fmt: skip

    def sums(self, *rows, apart=True, **options):
        """(octets, packets, flows) of rows that each say (octets, packets, more)."""
        self.make(key="protocolIdentifier", **options)
        rows = [self.FLOW | {"octetTotalCount": octets, "packetTotalCount": packets} | more
                for octets, packets, more in rows]  # fmt: skip
        for batch in [[row] for row in rows] if apart else [rows]:
            self.give(batch_of(batch, now=1000.0))
        self.agg.flush()
        (row,) = self.rows()
        return tuple(row.get(name) for name in ("octets", "packets", "flows"))

    def both(self, expected, *rows, **options):
        """The same in one batch and in a batch each."""
        self.assertEqual(expected, self.sums(*rows, **options))
        self.assertEqual(expected, self.sums(*rows, apart=False, **options))

    def test_told_again(self):
        """VAL-10: 100, 200, 300 is 300; it is assumed that they are of one flow, and counted."""
        self.both((300, 3, 3), (100, 1, {}), (200, 2, {}), (300, 3, {}))
        self.assertEqual(2, self.agg.counters.figures["totals_assumed"]())

    def test_the_same_again(self):
        """A total that did not change adds nothing."""
        self.both((100, 1, 2), (100, 1, {}), (100, 1, {}))

    def test_a_reused_tuple(self):
        """Two flows of one 5-tuple with different starts, 100 and 300 octets, are 400; with one start they are 300."""
        first, second = ({"flowStartMilliseconds": start} for start in (1000, 2000))
        self.both((400, 4, 2), (100, 1, first), (300, 3, second))
        self.both((300, 3, 2), (100, 1, first), (300, 3, first))
        self.assertEqual(0, self.agg.counters.figures["totals_assumed"]())

    def test_starts_of_any_kind(self):
        """Starts in seconds or in milliseconds of uptime, whatever the clock of the exporter makes of those."""
        self.both((400, 4, 2), (100, 1, {"flowStartSeconds": 1}), (300, 3, {"flowStartSeconds": 2}))
        uptimes = [{"flowStartSysUpTime": up, "systemInitTimeMilliseconds": boot} for up, boot in ((5, 70), (5, 71))]
        self.both((300, 3, 2), (100, 1, uptimes[0]), (300, 3, uptimes[1]))
        self.both((400, 4, 2), (100, 1, uptimes[0]), (300, 3, uptimes[0] | {"flowStartSysUpTime": 6}))

    def test_flow_ids(self):
        """Different flow ids are different flows."""
        self.both((400, 4, 2), (100, 1, {"flowId": 1}), (300, 3, {"flowId": 2}))
        self.both((300, 3, 2), (100, 1, {"flowId": 1}), (300, 3, {"flowId": 1}))
        self.assertEqual(0, self.agg.counters.figures["totals_assumed"]())

    def test_a_total_fell(self):
        """Octets or packets that are fewer are those of another flow."""
        self.both((130, 3, 2), (100, 1, {}), (30, 2, {}))
        self.both((220, 3, 2), (100, 2, {}), (120, 1, {}))
        self.both((150, 4, 3), (100, 1, {}), (30, 2, {}), (50, 3, {}))

    def test_late(self):
        """A record that ends before an earlier one of its flow came late: it adds nothing, the next one the rest."""

        def ended(*ends):
            return [{"flowStartMilliseconds": 900_000, "flowEndMilliseconds": 900_000 + end} for end in ends]

        first, late, second, third = ended(10, 20, 30, 40)
        self.both((400, 4, 4), (100, 1, first), (300, 3, second), (200, 2, late), (400, 4, third))
        self.both((300, 3, 4), (300, 3, second), (100, 1, first), (200, 2, late), (100, 1, first))
        ids = [{"flowId": 7, "flowEndMilliseconds": end} for end in (10, 30, 20)]
        self.both((300, 3, 3), *((100 * n, n, more) for n, more in zip((1, 3, 2), ids, strict=True)))
        self.both((330, 5, 3), (100, 1, first), (300, 3, second), (30, 2, second))
        other = {"flowStartMilliseconds": 900_001, "flowEndMilliseconds": 900_015}
        self.both((350, 4, 3), (100, 1, first), (300, 3, second), (50, 1, other))

    def test_the_whole_key(self):
        """A flow is known by its whole key, by who told of it, and by the template."""
        for name in ("ipClassOfService", "vlanId", "ingressInterface", "flowDirection", "observationDomainId",
                     "templateId", "sourceMacAddress", "flowLabelIPv6"):  # fmt: skip
            self.both((400, 4, 2), (100, 1, {name: 1}), (300, 3, {name: 2}))
            self.both((300, 3, 2), (100, 1, {name: 1}), (300, 3, {name: 1}))
        self.both((400, 4, 2), (100, 1, {}), (300, 3, {"sourceTransportPort": 1001}))

    def test_without_ports(self):
        """A record without ports may be of many flows: it is added whole."""
        for name in ("sourceTransportPort", "destinationTransportPort"):
            flow = {n: v for n, v in self.FLOW.items() if n != name}
            self.patch(self, "FLOW", flow)
            self.both((600, 6, 3), (100, 1, {}), (200, 2, {}), (300, 3, {}))
        self.assertEqual(0, self.agg.counters.figures["totals_assumed"]())

    def test_with_a_reason(self):
        """A flowEndReason ends the totals of a flow; with 2, active timeout, a later record goes on with them."""
        for reason in (1, 3, 4, 5):
            why = {"flowEndReason": reason}
            self.both((300, 3, 2), (100, 1, why), (200, 2, why))
        self.both((300, 3, 3), (100, 1, {"flowEndReason": 2}), (200, 2, {"flowEndReason": 2}),
                  (300, 3, {"flowEndReason": 3}))  # fmt: skip
        self.both((300, 3, 3), *((n * 100, n, {"flowEndReason": 0}) for n in (1, 2, 3)))

    def test_active_timeout(self):
        """YAF begins a new flow at each active timeout, with a new start and totals from 0: all of them count.

        Its yfFlowClose with YAF_END_ACTIVE is followed by a new node (yaftab.c).
        """
        rows = [(100, 1, 2), (200, 2, 2), (50, 1, 1)]
        yaf = [(octets, packets, {"flowEndReason": why, "flowStartMilliseconds": at})
               for at, (octets, packets, why) in enumerate(rows)]  # fmt: skip
        self.both((350, 4, 3), *yaf)
        started = {"flowStartMilliseconds": 9}
        again = [(100 * n, n, started | {"flowEndReason": why}) for n, why in ((1, 2), (2, 2), (3, 1))]
        self.both((300, 3, 3), *again)
        self.both((300, 3, 2), *again[:1], (300, 3, started | {"flowEndReason": 3}))
        self.both((500, 5, 4), *again, (200, 2, started | {"flowEndReason": 2}))

    def test_active_timeout_without_ports(self):
        """Without ports a record with 2 does not count, as a later one contains it."""
        flow = {n: v for n, v in self.FLOW.items() if n != "sourceTransportPort"}
        self.patch(self, "FLOW", flow)
        self.both((300, 3, 2), (100, 1, {"flowEndReason": 2}), (300, 3, {"flowEndReason": 1}))

    def test_conntrack(self):
        """The end of a connection is said once: the next one of its tuple counts too, also without a start."""
        self.make(source=CONNTRACK, key="protocolIdentifier")
        end = {"orig.ip.saddr": 1, "orig.ip.daddr": 2, "orig.ip.protocol": 17, "orig.l4.sport": 123,
               "orig.l4.dport": 123, "ct.event": 4}  # fmt: skip
        rows = [end | {"orig.raw.pktlen": octets, "orig.raw.pktcount": 1} for octets in (76, 76, 152)]
        held = {"orig_ip_saddr": types.IPV4, "orig_ip_daddr": types.IPV4}
        self.give(batch_of(rows[:2], **held))
        self.give(batch_of(rows[2:], **held))
        self.agg.flush()
        self.assertEqual([(304, 3)], [(row["octets"], row["flows"]) for row in self.rows()])
        self.assertEqual(0, self.agg.counters.figures["totals_assumed"]())

    def test_deltas(self):
        """Deltas are added as they are, also of records that have totals too."""
        self.both((7, 6, 3), *((n * 100, n, {"octetDeltaCount": n, "packetDeltaCount": 2}) for n in (1, 2, 4)))

    def test_reverse(self):
        """Totals of the reverse direction too."""
        self.make(key="protocolIdentifier")
        for total in (10, 30, 70):
            self.give(batch_of([self.FLOW | {"octetTotalCount": 5, "reverseOctetTotalCount": total}]))
        self.agg.flush()
        (row,) = self.rows()
        self.assertEqual((5, 70), (row["octets"], row["reply_octets"]))

    def test_other_kinds(self):
        """`last` adds every total, `difference` looks at neither ports nor starts."""
        rows = [(n * 100, n, {"flowStartMilliseconds": n}) for n in (1, 2, 3)]
        self.both((600, 6, 3), *rows, totals="last")
        self.both((300, 3, 3), *rows, totals="difference")

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.integers(0, 3),
                st.integers(0, 50),
                st.integers(0, 50),
                st.sampled_from((None, None, 2, 3)),
            ),
            max_size=40,
        ),
        st.lists(st.integers(1, 6)),
    )
    def test_row_by_row(self, rows, sizes):
        """However rows come in batches: as when each is compared with the last one of its flow."""
        self.make(key="protocolIdentifier")
        expected, last = [0, 0], {}
        for port, start, octets, packets, reason in rows:
            before = last.pop((port, start), None)
            told_again = before is not None and octets >= before[0] and packets >= before[1]
            added = (octets - before[0], packets - before[1]) if told_again else (octets, packets)
            if reason != 3:
                last[port, start] = octets, packets
            expected = [total + more for total, more in zip(expected, added, strict=True)]
        made = [self.FLOW | {"sourceTransportPort": port, "flowStartMilliseconds": start, "octetTotalCount": octets,
                             "packetTotalCount": packets, "flowEndReason": reason}
                for port, start, octets, packets, reason in rows]  # fmt: skip
        while made:
            size = sizes.pop() if sizes else len(made)
            self.give(batch_of(made[:size], now=1000.0))
            made = made[size:]
        self.agg.flush()
        found = [sum(row.get(name, 0) for row in self.rows()) for name in ("octets", "packets")]
        self.assertEqual(expected, found)

    def test_more_flows_than_room(self):
        """A batch with more flows than are remembered is worked through in parts."""
        self.make(key="protocolIdentifier", max_keys=20)
        rows = [self.FLOW | {"sourceTransportPort": n % 40, "octetTotalCount": 100} for n in range(80)]
        self.give(batch_of(rows, now=1000.0))
        self.agg.flush()
        self.assertLessEqual(4000, self.rows()[0]["octets"])
        self.assertLess(self.rows()[0]["octets"], 8001)


class UncountedTests(AggregateCase):
    """Rows without a counter of octets."""

    def test_said_once(self):
        """Counted row by row, and said once for each template."""
        self.make(key="protocolIdentifier")
        said = []
        self.patch(self.agg.aggregation._uncounted, "log", FakeLog(said))
        rows = [{"protocolIdentifier": 6, "templateId": template, "observationDomainId": 7, "exporterAddress": 0}
                for template in (256, 257, 256)]  # fmt: skip
        for _ in range(3):
            self.give(batch_of(rows))
        self.give(batch_of([{"protocolIdentifier": 6, "octetTotalCount": 3, "flowEndReason": 2}]))
        self.give(batch_of([{"protocolIdentifier": 6, "responderOctets": 3}]))
        self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": 1}, {"protocolIdentifier": 6}]))
        self.agg.flush()
        self.assertEqual(10, self.agg.counters.figures["rows_without_octets"])
        self.assertEqual(["template 256, domain 7", "template 257, domain 7", "a kind of rows of the input"], said)
        self.assertEqual(13, sum(row["flows"] for row in self.rows()))

    def test_every_counter(self):
        """Octets and packets of AGGREGATE come from whichever counter there is (Cisco ASA: 231, 232, 298, 299)."""
        self.make(key="protocolIdentifier")
        row = {"initiatorOctets": 2877, "initiatorPackets": 21, "responderOctets": 4167, "responderPackets": 22}
        self.give(batch_of([{"protocolIdentifier": 1} | row]))
        row = {"postOctetDeltaCount": 5, "postPacketDeltaCount": 1}
        self.give(batch_of([{"protocolIdentifier": 2} | row]))
        self.give(batch_of([{"protocolIdentifier": 3, "layer2OctetDeltaCount": 9}]))
        self.give(batch_of([{"protocolIdentifier": 4, "octetDeltaCount": 1, "postOctetDeltaCount": 100}]))
        self.agg.flush()
        names = ("octets", "packets", "reply_octets", "reply_packets")
        found = {row["protocolIdentifier"]: tuple(row.get(name) for name in names) for row in self.rows()}
        self.assertEqual({1: (2877, 21, 4167, 22), 2: (5, 1, None, None), 3: (9, None, None, None),
                          4: (1, None, None, None)}, found)  # fmt: skip


class FakeLog:
    """Notes the templates that warnings are about."""

    def __init__(self, said):
        self.said = said

    def warn(self, text, **fields):
        self.said.append(fields["template"])
