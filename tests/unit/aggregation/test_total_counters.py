"""totals=difference of AGGREGATE: what each record of a flow says more than the one before it."""

from collections import defaultdict

from hypothesis import strategies as st

from tests.support import given, settings
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of

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

    @settings(max_examples=200)
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
