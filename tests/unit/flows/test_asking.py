"""Questions to stores give what plain Python works out of the same rows."""

import functools
import itertools
import random
import shutil
import tempfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
from tests.unit.flows import made, model
from tests.unit.flows.made import HOUR, T0, flow
from ulogd_tw.core import arrow
from ulogd_tw.flows import filters, questions, stores
from ulogd_tw.flows.asking import Asking
from ulogd_tw.flows.directories import Directories
from ulogd_tw.flows.errors import NoStore, QuestionError
from ulogd_tw.flows.reading import Cut, Reader

MINUTE = 60_000
PLACES = itertools.count()


@functools.cache
def reader():
    """One reader for all tests of the process, as a service has it."""
    return Reader(threads=1)


class StoreCase(SynchronousTestCase):
    """A directory for stores."""

    def setUp(self):
        self.reader = reader()
        self.place = Path(tempfile.mkdtemp(prefix="utw-flows-"))
        self.addCleanup(shutil.rmtree, self.place, True)

    def events(self, *names, match="any", holdings=None, **question):
        held = holdings or Directories([stores.read(self.place / name) for name in names or ("raw",)])
        asked = questions.of(question | {"match": match})
        return list(Asking(self.reader, held, asked, filters.term(match)).events())

    def ask(self, *names, **question):
        """Names of columns, rows, and the end of an answer."""
        found = self.events(*names, **question)
        rows = [row for event in found for row in event.get("rows", ())]
        return [column[0] for column in found[0]["head"]["columns"]], rows, found[-1]["end"]

    def groups(self, *names, keys=1, **question):
        """The sums of each group, by step and keys."""
        _, rows, end = self.ask(*names, limit=100_000, **question)
        self.assertEqual([], end["notes"])
        found = {tuple(row[:keys]): row[keys:] for row in rows}
        self.assertEqual(len(rows), len(found))
        return found

    def parts(self, *names, **question):
        """(store, begin, end) of each part of an answer."""
        head = self.events(*names, **question)[0]["head"]
        return [(part["store"], part["begin"], part["end"]) for part in head["parts"]]


class RawTests(StoreCase):
    """Flows of one raw store."""

    def test_range(self):
        """A range takes the flows that overlap it: its begin is in it, its end not; with `ended` their end decides."""
        rows = [
            flow(1000, 1), flow(1999, 2), flow(2000, 4), flow(2999, 8), flow(3000, 16), flow(5000, 32, lasts=4000),
            flow(5000, 64, lasts=2001), flow(5000, 128, lasts=2000),
        ]  # fmt: skip
        made.write(self.place / "raw", rows)
        total = self.ask(begin=T0 + 2000, end=T0 + 3000, sums="octets", total=True)[1]
        self.assertEqual([[4 + 8 + 32 + 64]], total)
        total = self.ask(begin=T0 + 2000, end=T0 + 3000, sums="octets", total=True, ended=True)[1]
        self.assertEqual([[4 + 8]], total)

    def test_arrival(self):
        """A flow without an end, or with an odd one, is at its arrival."""
        late = flow(0, 7, arrival=T0 + HOUR + 5)
        late["flowEndMilliseconds"] = 1
        late["flowStartMilliseconds"] = None
        made.write(self.place / "raw", [flow(1, 1), late])
        self.assertEqual([[7]], self.ask(begin=T0 + HOUR, sums="octets", total=True)[1])
        self.assertEqual({(T0 + HOUR,): [7]}, self.groups(every=HOUR, begin=T0 + HOUR, sums="octets"))

    def test_large_set(self):
        """A large set becomes a table, made once for all files and waiting rows, and gone after the answer."""
        rows = [flow(n * HOUR, 1 << n, source=f"192.0.2.{n}") for n in range(5)]
        made.write(self.place / "raw", rows)
        networks = " ".join(f"10.{n}.0.0/16" for n in range(0, 256, 2))
        statements = []
        real = self.reader.make
        self.patch(self.reader, "make", lambda *words: statements.append(words[0]) or real(*words))
        match = f"src net in [{networks} 192.0.2.1 192.0.2.3] and src ip in [192.0.2.3 192.0.2.1]"
        self.assertEqual([[2 + 8]], self.ask(match=match, sums="octets", total=True)[1])
        self.assertEqual(1, sum("CREATE" in statement for statement in statements), statements)
        self.assertEqual(2, len(self.ask(match=match)[1]))
        self.assertEqual([(0,)], self.reader.rows("SELECT count(*) FROM duckdb_tables()"))

    def test_keys(self):
        """Groups by keys, by prefixes of both families, by either address, with missing values as a group."""
        rows = [
            flow(1, 10, source="192.0.2.1", destination="192.0.2.1"),
            flow(2, 20, source="192.0.2.130", destination="2001:db8:1:2::3"),
            flow(3, 40, source="2001:db8:1:2::3", destination="192.0.2.1", dport=None),
        ]
        made.write(self.place / "raw", rows)
        sums = {"sums": "octets"}
        self.assertEqual({("192.0.2.0",): [10], ("192.0.2.128",): [20], ("2001:db8:1::",): [40]},
                         self.groups(by="srcip/25:48", **sums))  # fmt: skip
        self.assertEqual({("192.0.2.1",): [50], ("192.0.2.130",): [20], ("2001:db8:1:2::3",): [60]},
                         self.groups(by="ip", **sums))  # fmt: skip
        self.assertEqual({(443, 6): [30], (None, 6): [40]}, self.groups(by="dstport,proto", keys=2, **sums))
        self.assertEqual({(0,): [30], (None,): [40]}, self.groups(by="dstport/1024", **sums))

    def test_counters(self):
        """Octets are the first counter with a value; a total of a flow that goes on is none; NULL without any."""
        keys = (*made.RAW_KEYS, "octetTotalCount", "initiatorOctets", "flowEndReason")
        rows = [
            flow(1, 1, octetTotalCount=100, flowEndReason=2), flow(2, None, octetTotalCount=10, flowEndReason=1),
            flow(3, None, octetTotalCount=1000, flowEndReason=2), flow(4, None, initiatorOctets=10000),
            flow(5, None, sport=7),
        ]  # fmt: skip
        made.write(self.place / "raw", rows, keys)
        self.assertEqual({(1024,): [10011, 4], (7,): [None, 1]}, self.groups(by="srcport", sums="octets,flows"))

    def test_ends_only(self):
        """Of conntrack rows the ends and the reports of active flows count, of options records none."""
        keys = (*made.RAW_KEYS, "ct.event", "flowEndReason", "record_kind")
        rows = [
            flow(1, 1, **{"ct.event": 1}), flow(2, 2, **{"ct.event": 4}),
            flow(3, 4, flowEndReason=2, **{"ct.event": 2}), flow(4, 8, record_kind="data"),
            flow(5, 16, record_kind="options"), flow(6, 32, flowEndReason=1),
        ]  # fmt: skip
        made.write(self.place / "raw", rows, keys)
        self.assertEqual([[2 + 4 + 8 + 32]], self.ask(sums="octets", total=True)[1])

    def test_sums_beyond_64_bits(self):
        """A sum of large counters is exact."""
        made.write(self.place / "raw", [flow(1, 2**64 - 1), flow(2, 2**64 - 1)])
        self.assertEqual([[2**65 - 2]], self.ask(sums="octets", total=True)[1])

    def test_top_and_order(self):
        """The largest groups by the first sum or a named one; with steps those of the whole range."""
        rows = [flow(HOUR * (n % 2) + n, 100 - n, packets=n, dport=n % 5) for n in range(50)]
        made.write(self.place / "raw", rows)
        octets = {port: sum(100 - n for n in range(50) if n % 5 == port) for port in range(5)}
        largest = sorted(octets, key=lambda port: -octets[port])
        _, found, end = self.ask(by="dstport", sums="octets", top=2)
        self.assertEqual([[port, octets[port]] for port in largest[:2]], found)
        self.assertEqual((0, False), (end["status"], end["more"]))
        _, found, _ = self.ask(by="dstport", sums="bytes,pkts", top=1, order="pkts")
        self.assertEqual(4, found[0][0])
        _, found, _ = self.ask(by="dstport", sums="octets", order="+dstport")
        self.assertEqual([0, 1, 2, 3, 4], [row[0] for row in found])
        _, found, _ = self.ask(by="dstport", sums="octets", top=1, every=HOUR)
        self.assertEqual([[T0, largest[0]], [T0 + HOUR, largest[0]]], [row[:2] for row in found])

    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 99)), max_size=30),
        st.integers(1, 5), st.sampled_from([None, HOUR]), st.booleans(),
    )  # fmt: skip
    def test_rest(self, parts, top, every, two):
        """The groups beside the largest ones are one more; together they are all rows."""
        rows = [flow(HOUR * hour + place, octets, dport=port or None, sport=port % 2)
                for place, (port, hour, octets) in enumerate(parts)]  # fmt: skip
        place = f"raw{next(PLACES)}"
        made.write(self.place / place, rows or [flow(0, 1)])
        by, names = ("dstport,proto", ("destinationTransportPort", "protocolIdentifier")) if two else (
            "dstport", ("destinationTransportPort",))  # fmt: skip
        every_word = {} if every is None else {"every": every}
        head, found, end = self.ask(place, by=by, sums="octets,flows", top=top, rest=True, **every_word)
        groups = model.grouped(rows or [flow(0, 1)], names, sums=("octets", "flows"))
        order = sorted(groups, key=lambda key: (-groups[key][0], *((n is None, n or 0) for n in key)))
        expected = defaultdict(lambda: [0, 0])
        for key, sums in model.grouped(rows or [flow(0, 1)], names, every, ("octets", "flows")).items():
            step, own = (key[:1], key[1:]) if every else ((), key)
            shown = (*own, False) if own in order[:top] else (*(None for _ in own), True)
            expected[(*step, *shown)] = [a + b for a, b in zip(expected[(*step, *shown)], sums, strict=True)]
        self.assertEqual(dict(expected), {(*row[:-3], row[-1]): row[-3:-1] for row in found})
        self.assertEqual(("rest", False), (head[-1], end["more"]))
        if every is None:
            self.assertEqual([*order[:top]], [tuple(row[: len(names)]) for row in found if not row[-1]])

    def test_days(self):
        """Steps of days begin at local midnight, on both sides of a change of the clock."""
        day = T0 // questions.DAY_MS * questions.DAY_MS
        change = day + 2 * questions.DAY_MS
        offsets = [[0, 3600], [change, 7200]]
        ends = [
            day - 3600_001,
            day - 3600_000,
            change + questions.DAY_MS - 7200_001,
            change + questions.DAY_MS - 7200_000,
        ]
        rows = [flow(end - T0, 1 << place) for place, end in enumerate(ends)]
        made.write(self.place / "raw", rows)
        found = self.groups(every=questions.DAY_MS, offsets=offsets, sums="octets")
        self.assertEqual(
            {day - 3600_000 - questions.DAY_MS: [1], day - 3600_000: [2], change - 3600_000: [4],
             change + questions.DAY_MS - 7200_000: [8]},
            {key[0]: value for key, value in found.items()},
        )  # fmt: skip

    def test_days_of_23_and_25_hours(self):
        """Days of a real zone: those with a change of the clock are one step each, from midnight to midnight."""
        zone, hour = ZoneInfo("Europe/Berlin"), 3600
        for year, month, day, hours in ((2026, 3, 29, 23), (2026, 10, 25, 25)):
            midnights = [int(datetime(year, month, day + n, tzinfo=zone).timestamp()) for n in (-1, 0, 1, 2)]
            self.assertEqual(hours * hour, midnights[2] - midnights[1])
            change = (midnights[1] + hour * (2 if hours == 23 else 3)) * 1000
            offsets = [[0, 7200 - hour * (hours == 23)], [change, 3600 + hour * (hours == 23)]]
            lasts = (midnights[3] - midnights[0]) * 1000 - 1
            lasting = flow(midnights[3] * 1000 - 1 - T0, (24 + hours + 24) * 1000, lasts=lasts)
            ends = [at * 1000 + away for at in midnights[1:3] for away in (-1, 0, 1, hour * 12_000)]
            made.write(self.place / str(year * month), [lasting, *(flow(end - T0, 1) for end in ends)])
            begins = [at * 1000 for at in midnights]
            question = {"every": questions.DAY_MS, "offsets": offsets, "sums": "octets"}
            found = self.groups(str(year * month), **question)
            expected = {(begins[0],): [1], (begins[1],): [4], (begins[2],): [3 + (24 + hours + 24) * 1000]}
            self.assertEqual(expected, found)
            found = self.groups(str(year * month), spread=True, **question)
            expected = {(begins[0],): [24_001], (begins[1],): [hours * 1000 + 4], (begins[2],): [24_003]}
            self.assertEqual(expected, found)

    def test_spread(self):
        """Shares of a flow are whole octets that add up to it; a range has its own shares only."""
        rng = random.Random(7)
        rows = [flow(rng.randrange(3 * HOUR), rng.randrange(10**6), lasts=rng.randrange(HOUR)) for _ in range(60)]
        made.write(self.place / "raw", rows)
        begin, end = T0 + 20 * MINUTE + 1, T0 + 100 * MINUTE + 7
        for range_ in ({}, {"begin": begin, "end": end}):
            found = self.groups(every=5 * MINUTE, spread=True, sums="octets", **range_)
            expected = model.spread(rows, 5 * MINUTE, **range_)
            self.assertEqual({(step,): [value] for step, value in expected.items()}, found)
        (total,) = self.ask(spread=True, sums="octets", total=True, begin=begin, end=end)[1]
        self.assertEqual([sum(expected.values())], total)

    def test_list(self):
        """Flows come newest first, over the hours of the store, up to the limit; + begins with the oldest."""
        rows = [flow(n * 10 * MINUTE, n, lasts=n) for n in range(40)]
        made.write(self.place / "raw", rows)
        names, found, end = self.ask(limit=3, columns="octets,srcip")
        self.assertEqual(["start", "end", "octets", "sourceAddress"], names)
        self.assertEqual(
            [[T0 + n * 10 * MINUTE - n, T0 + n * 10 * MINUTE, n, "192.0.2.1"] for n in (39, 38, 37)], found
        )
        self.assertEqual((0, True), (end["status"], end["more"]))
        _, found, end = self.ask(columns="octets")
        self.assertEqual((list(range(39, -1, -1)), False), ([row[2] for row in found], end["more"]))
        _, found, _ = self.ask(columns="octets", order="+time", limit=8)
        self.assertEqual(list(range(8)), [row[2] for row in found])
        _, found, end = self.ask(columns="octets", limit=40)
        self.assertEqual((40, False), (len(found), end["more"]))

    def test_default_limit(self):
        """An answer that only the default limit cuts is incomplete."""
        made.write(self.place / "raw", [flow(n, n, sport=n) for n in range(1001)])
        for more in ({}, {"by": "srcport"}):
            end = self.ask(**more)[2]
            self.assertEqual((1000, 3, True), (end["rows"], end["status"], end["more"]))

    def test_filter(self):
        """The filter is that of MATCH, and an empty answer has status 1."""
        made.write(self.place / "raw", [flow(1, 1, dport=80), flow(2, 2), flow(3, 4, source="192.0.2.9")])
        found = self.ask(match="dst port 443 and not src ip 192.0.2.9", sums="octets", total=True)[1]
        self.assertEqual([[2]], found)
        self.assertEqual(([], 1), self.ask(match="dst port 1")[1:][0:1] + (self.ask(match="dst port 1")[2]["status"],))
        self.assertEqual(1, self.ask(match="dst port 1", by="srcip")[2]["status"])
        self.assertEqual(1, self.ask(match="dst port 1", total=True)[2]["status"])

    def test_older_files(self):
        """A column that older files do not have is NULL there."""
        keys = (*made.RAW_KEYS, "ingressInterface")
        made.write(self.place / "raw", [flow(1, 1), flow(2, 2)], keys, absent=("ingressInterface",))
        made.write(self.place / "raw", [flow(HOUR, 4, ingressInterface=5)], keys, number=50)
        self.assertEqual({(None,): [3], (5,): [4]}, self.groups(by="inif", sums="octets"))
        self.assertEqual({(None,): [3]}, self.groups(by="inif", sums="octets", end=T0 + 1000))

    def test_unreadable_files(self):
        """A damaged file is named, the others are answered, and the status is 3."""
        made.write(self.place / "raw", [flow(n * HOUR, 1 << n) for n in range(4)])
        paths = sorted((self.place / "raw").rglob("*.parquet"))
        paths[1].write_bytes(paths[1].read_bytes()[:-20])
        octets = bytearray(paths[2].read_bytes())
        octets[4 : len(octets) // 3] = bytes(len(octets) // 3 - 4)
        paths[2].write_bytes(octets)
        _, found, end = self.ask(sums="octets", total=True)
        self.assertEqual(([[1 + 8]], 3), (found, end["status"]))
        self.assertEqual(2, len(end["notes"]))
        self.assertIn(str(paths[1]), " ".join(end["notes"]))
        _, found, end = self.ask()
        self.assertEqual((2, 3), (len(found), end["status"]))

    def test_no_store(self):
        """A directory that is no store is said to be none; so is one that is not there."""
        with self.assertRaisesRegex(NoStore, "it is no directory of PARQUET"):
            stores.read(self.place)
        with self.assertRaisesRegex(NoStore, "no such directory"):
            stores.read(self.place / "none")
        (self.place / "store.json").write_text('{"version": 2}')
        with self.assertRaisesRegex(NoStore, "version 2 is not known"):
            stores.read(self.place)

    def test_unknown_keys(self):
        """A key that the store does not have is named with those that it has."""
        made.write(self.place / "raw", [flow(1)])
        for question in ({"by": "srcas"}, {"match": "src as 3320 and bgpSourceAsNumber = 1"}, {"columns": "srcas"}):
            with self.assertRaisesRegex(QuestionError, "bgpSourceAsNumber.*sourceAddress"):
                self.ask(**question)

    def test_waiting_rows(self):
        """Rows that are in no file yet belong to the answer: in sums, and in lists at their place."""
        made.write(self.place / "raw", [flow(HOUR, 1), flow(3 * HOUR, 2)])
        store = stores.read(self.place / "raw")
        names = ["flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount", "sourceAddress", "arrival"]

        class Holdings(Directories):
            def cut(self, store, begin, end):
                cut = super().cut(store, begin, end)
                return Cut(store, cut.files, [waiting(names, [2 * HOUR, 4 * HOUR], [4, 8])])

        held = Holdings([store])
        self.assertEqual([[15]], self.ask(holdings=held, sums="octets", total=True)[1])
        self.assertEqual([8, 2, 4, 1], [row[2] for row in self.ask(holdings=held, columns="octets")[1]])
        self.assertEqual([], self.ask(holdings=held, columns="octets", match="dst port 443", begin=T0 + 4 * HOUR)[1])


def waiting(names, ends, octets):
    """A stream of Arrow with rows of these ends and octets."""
    import numpy as np

    time = arrow.numbers(np.array(ends, np.uint64) + np.uint64(T0))
    source = arrow.addresses(np.full(len(ends), 0xC0000201, np.uint32))
    nothing = arrow.nothing(arrow.NUMBERS[np.dtype("u8")], len(ends))
    return arrow.Stream(names, [[time, time, arrow.numbers(np.array(octets, np.uint64)), source, nothing]])


class RollupTests(StoreCase):
    """Raw store and roll-ups together."""

    BY = ("sourceAddress", "destinationTransportPort")

    def setUp(self):
        super().setUp()
        rng = random.Random(3)
        self.rows = [
            flow(rng.randrange(6 * HOUR), rng.choice((None, rng.randrange(10**9))), rng.randrange(100),
                 f"10.0.{rng.randrange(3)}.{rng.randrange(4)}", dport=rng.choice((53, 80, 443, None)),
                 lasts=rng.choice((0, rng.randrange(HOUR))))
            for _ in range(800)
        ]  # fmt: skip
        made.write(self.place / "raw", self.rows)
        self.roll("r5", 5 * MINUTE, self.BY)
        self.roll("r60", HOUR, self.BY[:1])

    def roll(self, name, interval, by, **more):
        described = {"interval": interval // 1000, "by": list(by), "time": "flow", "lateness": 60} | more
        made.write(self.place / name, made.rolled(self.rows, by, interval), (*by, *made.SUMS), described, name)

    def keep(self, name, hours):
        """Delete the hours of a store before the last ones."""
        for place in sorted((self.place / name).glob("date=*/hour=*"))[:-hours]:
            shutil.rmtree(place)

    def test_coarsest(self):
        """Whole hours come from the hourly roll-up, the edges from finer ones; a key that it lacks from a finer one."""
        begin, end = T0 + HOUR + 17 * MINUTE + 1, T0 + 4 * HOUR + 22 * MINUTE
        parts = self.parts("raw", "r5", "r60", by="srcip", begin=begin, end=end)
        self.assertEqual(
            [("r5", T0 + HOUR + 20 * MINUTE, T0 + 2 * HOUR), ("r60", T0 + 2 * HOUR, T0 + 4 * HOUR)],
            [part for part in parts if part[0] != "parquet1"][:2],
        )
        last = T0 + 4 * HOUR + 20 * MINUTE
        self.assertEqual([("parquet1", begin, T0 + HOUR + 20 * MINUTE), ("parquet1", last, None)],
                         [part for part in parts if part[0] == "parquet1"])  # fmt: skip
        names = {part[0] for part in self.parts("raw", "r5", "r60", by="dstport", begin=begin, end=end)}
        self.assertEqual({"parquet1", "r5"}, names)
        for question in ({"match": "packets > 5"}, {"by": "dstip"}, {"every": 2 * MINUTE}, {"spread": True}, {}):
            more = {"by": "srcip"} if question and "by" not in question else {}
            names = {part[0] for part in self.parts("raw", "r5", "r60", begin=begin, end=end, **more, **question)}
            self.assertEqual({"parquet1"}, names, question)

    def test_other_clock(self):
        """A roll-up by time of arrival answers no range: a flow may have arrived long after it ended."""
        self.roll("r5", 5 * MINUTE, self.BY, time="arrival")
        self.assertEqual(["parquet1"], [part[0] for part in self.parts("raw", "r5", by="srcip", begin=T0 + HOUR)])
        self.assertEqual([("r5", None, None)], self.parts("r5", by="srcip"))
        with self.assertRaisesRegex(QuestionError, "no roll-up can answer this exactly"):
            self.parts("r5", by="srcip", begin=T0 + HOUR)
        self.roll("r5", 5 * MINUTE, self.BY, whole=False)
        self.assertEqual({"parquet1"}, {part[0] for part in self.parts("raw", "r5", by="srcip")})

    @given(data=st.data())
    @examples(40)
    def test_same_answer(self, data):
        """Any question gets the same answer of the raw store, of all stores, and of Python."""
        question, accept = self.question(data)
        keys = len(question.get("by", ())) + ("every" in question)
        expected = self.expected(question, accept)
        for names in (("raw",), ("raw", "r5", "r60"), ("raw", "r60")):
            self.assertEqual(expected, self.groups(*names, keys=keys, **question), names)

    def question(self, data):
        """A question, and the filter in Python."""
        times = st.integers(0, 7 * 60).map(lambda minutes: minutes * MINUTE) | st.integers(0, 7 * HOUR)
        begin, end = sorted(data.draw(st.tuples(st.none() | times, st.none() | times)), key=lambda time: time or 0)
        question = {"begin": None if begin is None else T0 + begin, "end": None if end is None else T0 + end + 1}
        by = data.draw(
            st.lists(st.sampled_from(("sourceAddress", "destinationTransportPort")), max_size=2, unique=True)
        )
        every = data.draw(st.none() | st.sampled_from((MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR)))
        question |= {"by": by} if by else {}
        question |= {"every": every} if every else {}
        question |= {} if by or every else {"total": True}
        question |= {"ended": True} if data.draw(st.booleans()) else {}
        match, accept = data.draw(st.sampled_from(self.FILTERS))
        return question | {"match": match}, accept

    FILTERS = (
        ("any", lambda row: True),
        ("dst port 443 or 53", lambda row: row["destinationTransportPort"] in (443, 53)),
        ("not dst port 80", lambda row: row["destinationTransportPort"] != 80),
        ("src net 10.0.1.0/24", lambda row: row["sourceAddress"].int & 0xFFFFFF00 == 0x0A000100),
        ("packets > 50", lambda row: row["packetDeltaCount"] > 50),
    )

    def expected(self, question, accept):
        range_ = {name: question.get(name) for name in ("begin", "end")} | {"ended": question.get("ended", False)}
        rows = [row for row in self.rows if accept(row)]
        found = model.grouped(rows, question.get("by", ()), question.get("every"), **range_)
        return {tuple(made.shown(value) for value in key): sums for key, sums in found.items()}

    def test_retention(self):
        """What the raw store no longer has comes from the roll-up, each flow once."""
        self.keep("raw", 3)
        question = {"by": "srcip", "begin": T0, "end": T0 + 6 * HOUR}
        found = self.groups("raw", "r5", keys=1, **question)
        expected = model.grouped(self.rows, ("sourceAddress",), begin=T0, end=T0 + 6 * HOUR)
        self.assertEqual({(made.shown(key),): sums for (key,), sums in expected.items()}, found)
        self.assertEqual(["parquet1", "r5"], sorted({part[0] for part in self.parts("raw", "r5", **question)}))

    @given(st.integers(1, 6), st.sampled_from([None, HOUR, 3 * HOUR]), st.booleans())
    @examples(20)
    def test_rest(self, top, every, kept):
        """The groups beside the largest ones are one more, also where a roll-up answers for a part of the range."""
        if not kept:
            self.keep("raw", 3)
        by, range_ = ("sourceAddress",), {"begin": T0, "end": T0 + 6 * HOUR, "ended": True}
        question = {"by": "srcip", "sums": "octets,flows", **range_} | ({"every": every} if every else {})
        head, found, end = self.ask("raw", "r5", top=top, rest=True, **question)
        whole = model.grouped(self.rows, by, sums=("octets", "flows"), **range_)
        largest = sorted(whole, key=lambda key: (whole[key][0] is None, -(whole[key][0] or 0), key))[:top]
        expected = defaultdict(lambda: [None, 0])
        for key, sums in model.grouped(self.rows, by, every, ("octets", "flows"), **range_).items():
            shown = (made.shown(key[-1]), False) if key[-1:] in largest else (None, True)
            sums_of = expected[(*key[:-1], *shown)]
            both = [[value for value in pair if value is not None] for pair in zip(sums_of, sums, strict=True)]
            sums_of[:] = [sum(values) if values else None for values in both]
        self.assertEqual(dict(expected), {(*row[:-3], row[-1]): row[-3:-1] for row in found})
        self.assertEqual(("rest", False, 0), (head[-1], end["more"], end["status"]))
        self.assertIn("r5", {part[0] for part in self.parts("raw", "r5", **question)})

    def test_gaps(self):
        """Where only a roll-up is left, edges that it cannot cut are said, and the status is 3."""
        self.keep("raw", 2)
        odd = {"begin": T0 + 7 * MINUTE, "by": "srcip", "sums": "flows"}
        _, rows, end = self.ask("raw", "r5", **odd)
        later = [row for row in self.rows if made.row_time(row) >= T0 + 10 * MINUTE]
        self.assertEqual((len(later), 3), (sum(row[1] for row in rows), end["status"]))
        self.assertIn("to 2026", end["notes"][0])
        self.assertIn("are not in the answer: only r5 with intervals of 300 s is left", end["notes"][0])
        early = {"begin": T0, "end": T0 + 2 * HOUR, "by": "srcip", "sums": "flows"}
        _, rows, end = self.ask("raw", "r5", **early)
        self.assertEqual(3, end["status"])
        self.assertIn("--ended asks for the flows that ended in the range", end["notes"][0])
        _, rows, end = self.ask("raw", "r5", ended=True, **early)
        inside = [row for row in self.rows if made.row_time(row) < T0 + 2 * HOUR]
        self.assertEqual((len(inside), 0), (sum(row[1] for row in rows), end["status"]))

    def test_only_rollups(self):
        """Roll-ups without a raw store answer alone, with their newest rows; their rows can be listed."""
        found = self.groups("r60", by="srcip")
        expected = model.grouped(self.rows, ("sourceAddress",))
        self.assertEqual({(made.shown(key),): sums for (key,), sums in expected.items()}, found)
        self.assertEqual(found, self.groups("r5", "r60", by="srcip"))
        _, rows, _ = self.ask("r60", limit=5, columns="srcip,octets,flows")
        self.assertEqual(5, len(rows))

    def test_prefixes(self):
        """Roll-ups of prefixes answer questions for the same or shorter ones."""
        by = ("sourceAddress/24:48",)
        rows = [row | {by[0]: made.address(".".join(made.shown(row["sourceAddress"]).split(".")[:3]) + ".0")}
                for row in self.rows]  # fmt: skip
        described = {"interval": 3600, "by": list(by), "time": "flow", "lateness": 60}
        made.write(self.place / "net", made.rolled(rows, by, HOUR), (*by, *made.SUMS), described, "net")
        for prefix, stores_ in (("24:48", {"net"}), ("16:32", {"net"}), ("25:48", {"parquet1"})):
            question = {"by": f"srcip/{prefix}", "begin": T0, "end": T0 + 7 * HOUR}
            self.assertEqual(self.groups("raw", **question), self.groups("raw", "net", **question))
            self.assertLessEqual(stores_, {part[0] for part in self.parts("raw", "net", **question)})
