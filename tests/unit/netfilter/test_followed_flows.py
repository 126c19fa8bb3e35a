"""The flows that live, against a kernel of our own that is asked one flow at a time."""

from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
from tests.unit.netfilter.messages import (
    DESTROY,
    NEW,
    UPDATE,
    attr,
    be,
    counters,
    flow_tuple,
    message,
    nest,
    ports,
    slab,
)
from ulogd_tw.core.plugin import ALL
from ulogd_tw.netfilter.conntrack import Decoder
from ulogd_tw.netfilter.followed_flows import Flows, interim

NOW = 1_795_394_676
SIX = bytes.fromhex("fd770000000000000000000000000001"), bytes.fromhex("fd770000000000000000000000000002")


def octets(event, ident, packets=1, start=NOW - 100):
    """A message about flow `ident`; odd ones are IPv6. Two flows each share their id in the kernel."""
    addresses = SIX if ident % 2 else (b"\x0a\0\0\1", b"\x0a\0\0\2")
    family = 10 if ident % 2 else 2
    more = [] if event is NEW else [
        counters(9, packets, 10 * packets), counters(10, 0, 0), nest(20, attr(1, be(8, start * 10**9)))
    ]  # fmt: skip
    return message(event, family, flow_tuple(1, *addresses, 17, *ports(ident, 2)), attr(12, be(4, ident // 4)), *more)


class Table:
    """Flows and a decoder, fed with messages."""

    def __init__(self, **options):
        self.flows = Flows(options.pop("most", 1000), **options)
        self.decoder = Decoder(ALL)
        self.rows = []
        self.now = NOW
        self.zeroed = {}  # packets of each flow when the kernel's counters were set to 0

    def batches(self, messages):
        return self.decoder.decode(*slab(messages), self.now) if messages else []

    def take(self, batch):
        if batch is not None:
            self.rows.extend(batch.rows())

    def part(self, messages):
        for batch in self.batches(messages):
            told = self.flows.add(batch, self.now * 1000)
            self.take(told and interim(told, self.now * 1000, True))

    def finish(self):
        for batch in self.flows.finish():
            self.take(batch)

    def ended(self, *idents, packets=1):
        for batch in self.batches([octets(DESTROY, ident, packets) for ident in idents]):
            self.take(self.flows.ended(batch))

    def told(self):
        return [(row["orig.l4.sport"], row["ct.event"], row["orig.raw.pktcount"]) for row in self.rows]


_KINDS = st.sampled_from(["born", "ended", "lost", "dump", "split"])
_STEPS = st.lists(st.tuples(_KINDS, st.integers(0, 40)), max_size=60)


class OnceTests(SynchronousTestCase):
    """Each flow is told once."""

    @given(_STEPS, st.booleans())
    def test_every_flow_once(self, steps, births):
        """Whatever begins, ends and is lost between and within dumps: after a last one nothing is missing or double."""
        table, kernel, seen, numbers, gone = Table(births=births), {}, set(), iter(range(1, 1000)), set()
        table.flows.begin()
        table.finish()

        def lose(choice, told):
            if kernel:
                ident = sorted(kernel)[choice % len(kernel)]
                del kernel[ident]
                gone.add(ident)
                if told:
                    seen.add(ident)
                    table.ended(ident)

        def dump(choice=None):
            table.flows.begin()
            parts = sorted(kernel)
            for at in range(0, len(parts), 3):
                # A flow may end behind the part that has it, or before its own part comes.
                present = [ident for ident in parts[at : at + 3] if ident in kernel]
                messages = [octets(UPDATE, ident) for ident in present]
                if choice is not None and at == 0:
                    lose(choice, told=True)
                table.part(messages)
                seen.update(present)
            table.finish()

        for what, choice in steps:
            if what == "born":
                ident = next(numbers)
                kernel[ident] = 1
                if births:
                    seen.add(ident)
                    for batch in table.batches([octets(NEW, ident)]):
                        table.flows.born(batch)
            elif what in ("ended", "lost"):
                lose(choice, what == "ended")
            else:
                dump(choice if what == "split" else None)
        dump()
        self.assertEqual(Counter(row["orig.l4.sport"] for row in table.rows), Counter(gone & seen))
        self.assertEqual({row["ct.event"] for row in table.rows} - {4}, set())
        self.assertEqual(len(table.flows), len(kernel))

    def test_learning(self):
        """Without learning, flows that were not there before stay unknown."""
        table = Table()
        for learn, idents in ((True, (1, 2)), (False, (1, 2, 3)), (False, (2,)), (False, ())):
            table.flows.begin(learn)
            table.part([octets(UPDATE, ident) for ident in idents])
            table.finish()
        self.assertEqual(table.told(), [(1, 4, 1), (2, 4, 1)])

    def test_many(self):
        """Of many flows in one part exactly those are told that have gone."""
        table, idents = Table(most=10_000), range(2, 6002, 2)
        for present in (idents, [ident for ident in idents if ident % 3]):
            table.flows.begin()
            table.part([octets(UPDATE, ident, ident) for ident in present])
            table.finish()
        self.assertEqual(sorted(table.told()), [(ident, 4, ident) for ident in idents if ident % 3 == 0])

    def test_lingers(self):
        """A flow whose end was told is not learnt again from a dump that still has it."""
        table = Table()
        for idents in ((1, 2), (1, 2), ()):
            table.flows.begin()
            table.part([octets(UPDATE, ident) for ident in idents])
            table.finish()
            if table.flows and not table.rows:
                table.ended(1)
        self.assertEqual(table.told(), [(1, 4, 1), (2, 4, 1)])

    def test_bound(self):
        """What is beyond `most` is counted, and not told."""
        table = Table(most=3)
        table.flows.begin()
        table.part([octets(UPDATE, ident) for ident in range(1, 9)])
        table.finish()
        self.assertEqual((len(table.flows), table.flows.beyond), (3, 5))

    def test_failed_dump(self):
        """A dump that broke off changes nothing: what it had not is not gone, and what it had may go later."""
        table = Table()
        for idents, complete in (((1, 2), True), ((1,), False), ((2,), True)):
            table.flows.begin()
            table.part([octets(UPDATE, ident) for ident in idents])
            if complete:
                table.finish()
            else:
                table.flows.abandon()
        self.assertEqual(table.told(), [(1, 4, 1)])

    def test_end_is_unknown(self):
        """A flow that went without an event has no end time, and its start."""
        table = Table()
        for idents in ((1,), ()):
            table.flows.begin()
            table.part([octets(UPDATE, ident) for ident in idents])
            table.finish()
        (row,) = table.rows
        self.assertEqual(row["flow.start.sec"], NOW - 100)
        self.assertFalse({"flow.end.sec", "flow.end.usec", "flowEndMilliseconds"} & set(row))


class ReportTests(SynchronousTestCase):
    """Rows of flows that live."""

    @examples(50)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 40), st.booleans()), max_size=12))
    def test_sums(self, dumps):
        """What the rows of a flow count is what the kernel counted, and they follow one another in time."""
        table, packets = Table(active_ms=30_000), {2: 1, 3: 1}
        for more_2, more_3, seconds, zeroing in dumps:
            table.now += seconds
            packets[2] += more_2
            packets[3] += more_3
            self.dump(table, packets, zeroing)
        table.now += 1
        for ident, n in packets.items():
            table.ended(ident, packets=n - table.zeroed.get(ident, 0))
        for ident, n in packets.items():
            rows = [row for row in table.rows if row["orig.l4.sport"] == ident]
            self.assertEqual(sum(row["orig.raw.pktcount"] for row in rows), n)
            self.assertEqual(sum(row["octetDeltaCount"] for row in rows), 10 * n)
            self.assertEqual([row["ct.event"] for row in rows], [2] * (len(rows) - 1) + [4])
            for one, other in zip(rows, rows[1:], strict=False):
                if one["orig.raw.pktcount"]:
                    self.assertLessEqual(one["flowEndMilliseconds"], other["flowEndMilliseconds"])

    def dump(self, table, packets, zeroing=False):
        table.flows.begin(zeroing=zeroing)
        table.part([octets(UPDATE, ident, n - table.zeroed.get(ident, 0)) for ident, n in packets.items()])
        table.finish()
        if zeroing:
            table.zeroed = dict(packets)

    def test_times(self):
        """A report begins where the last one ended, says that more will come, and comes only after packets."""
        table, flow = Table(active_ms=60_000), {1: 5}
        for seconds, packets in ((0, 5), (30, 7), (60, 7), (60, 9)):
            table.now += seconds
            flow[1] = packets
            self.dump(table, flow)
        table.now += 10
        table.ended(1, packets=10)
        ms = 1000
        self.assertEqual(
            [(r["orig.raw.pktcount"], r["flowStartMilliseconds"], r["flowEndMilliseconds"], r.get("flowEndReason"))
             for r in table.rows],
            [
                (5, (NOW - 100) * ms, NOW * ms, 2),
                (2, NOW * ms, (NOW + 90) * ms, 2),
                (2, (NOW + 90) * ms, (NOW + 150) * ms, 2),
                (1, (NOW + 150) * ms, (NOW + 160) * ms, None),
            ],
        )  # fmt: skip

    def test_clock_set(self):
        """A report comes when the time has gone by, wherever the clock is set; it begins where the last one ended."""
        for step in (-3600, 3600):
            table = Table(active_ms=60_000)
            self.dump(table, {1: 5})
            table.now += 30 + step
            table.flows.clock_set(1000 * step)
            self.dump(table, {1: 6})
            self.assertEqual([(1, 2, 5)], table.told())
            table.now += 30
            self.dump(table, {1: 9})
            self.assertEqual([(1, 2, 5), (1, 2, 4)], table.told())

    def test_ends_in_a_dump(self):
        """A flow that ends while the dump that has reported it is read has the rest, once."""
        table = Table(active_ms=60_000)
        self.dump(table, {2: 5})
        table.now += 60
        table.flows.begin()
        table.part([octets(UPDATE, 2, 7)])
        table.ended(2, packets=20)
        table.finish()
        self.dump(table, {})
        self.assertEqual(table.told(), [(2, 2, 5), (2, 2, 2), (2, 4, 13)])

    def test_told_before_its_part(self):
        """What an event has told whole is not reported by an older part of the dump."""
        table = Table(active_ms=60_000)
        table.flows.begin()
        part = [octets(UPDATE, ident, 9) for ident in (2, 4)]
        table.ended(2, packets=9)
        table.part(part)
        table.finish()
        self.assertEqual(table.told(), [(2, 4, 9), (4, 2, 9)])

    def test_all_are_told_when_counters_are_reset(self):
        """Also flows that are not followed."""
        table = Table()
        table.flows.begin(learn=False, zeroing=True)
        table.part([octets(UPDATE, ident, 3) for ident in (1, 2)])
        table.finish()
        self.assertEqual((sorted(table.told()), len(table.flows)), ([(1, 2, 3), (2, 2, 3)], 0))

    def test_gone_without_event(self):
        """The last known counters less what was reported."""
        table = Table(active_ms=60_000)
        self.dump(table, {1: 5})
        table.now += 30
        self.dump(table, {1: 8})
        table.now += 10
        self.dump(table, {})
        self.assertEqual(table.told(), [(1, 2, 5), (1, 4, 3)])
