"""Who had an address: rows of every kind of box, through files, against what happened."""

import itertools
from pathlib import Path

import duckdb
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.flows.nat_files import number, write
from ulogd_tw.flows import who_had
from ulogd_tw.flows.nat_rows import Question
from ulogd_tw.flows.nat_store import NatStore
from ulogd_tw.flows.who_had import ENDED, NO_END, NO_START, OPEN

OUTSIDE, INSIDE, OTHER, PEER, ROUTER = "203.0.113.1", "10.0.0.1", "10.0.0.2", "198.51.100.9", "192.0.2.254"
T = 1_790_000_000_000
MINUTE = 60_000


class _Stored(SynchronousTestCase):
    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.connection = duckdb.connect()
        self.addCleanup(self.connection.close)
        self.store = NatStore(lambda text: self.connection.execute(text).fetchall())
        self.numbers = itertools.count()

    def files(self, *parts):
        """A file for each list of rows."""
        paths = (self.directory / f"{next(self.numbers)}.parquet" for _ in parts)
        return [write(self.connection, path, rows) for path, rows in zip(paths, parts, strict=True) if rows]

    def ask(self, files, at, port=4000, address=OUTSIDE, within=0):
        """The answers."""
        question = Question(number(address), port, at, within)
        return who_had.answers(self.store.rows(lambda: files, question), question)

    def holders(self, files, at, **asked):
        """(inside, port, start, end, state) of each answer, times relative to T."""
        return [
            (a.inside, a.inside_port, a.start and a.start - T, a.end and a.end - T, a.state)
            for a in self.ask(files, at, **asked)
        ]


def nfct(start, end, inside=INSIDE, port=4000, **more):
    """A row of NFCT of a masqueraded connection."""
    return {
        "orig.ip.saddr": inside, "orig.l4.sport": 5000, "orig.ip.daddr": PEER, "orig.l4.dport": 443,
        "orig.ip.protocol": 6, "postNATSourceAddress": OUTSIDE, "postNAPTSourceTransportPort": port,
        "postNATDestinationAddress": PEER, "postNAPTDestinationTransportPort": 443, "flowStartMilliseconds": T + start,
        "flowEndMilliseconds": T + end,
    } | more  # fmt: skip


def nat44(time, event, inside=INSIDE, port=4000, **more):
    """An event of RFC 8158, as PARQUET stores it: its time is also that of a flow."""
    return {
        "exporter": ROUTER, "observationDomainId": 1, "natEvent": event, "observationTimeMilliseconds": T + time,
        "sourceIPv4Address": inside, "sourceTransportPort": 5000, "postNATSourceIPv4Address": OUTSIDE,
        "postNAPTSourceTransportPort": port, "protocolIdentifier": 6, "destinationIPv4Address": PEER,
        "destinationTransportPort": 443, "flowStartMilliseconds": T + time, "flowEndMilliseconds": T + time,
    } | more  # fmt: skip


def block(time, event, first, inside=INSIDE, **more):
    """Allocation or release of a port block (RFC 8158 section 5.6.11)."""
    return {
        "exporter": ROUTER, "natEvent": event, "observationTimeMilliseconds": T + time, "sourceIPv4Address": inside,
        "postNATSourceIPv4Address": OUTSIDE, "portRangeStart": first, "flowStartMilliseconds": T + time,
        "flowEndMilliseconds": T + time,
    } | more  # fmt: skip


class FlowTests(_Stored):
    """Rows with a start and an end."""

    def test_masquerade(self):
        """The inside host of the connection, from its start to its end, with its peer."""
        files = self.files([nfct(0, MINUTE), nfct(2 * MINUTE, 3 * MINUTE, OTHER), nfct(0, MINUTE, OTHER, 4001)])
        expected = [(number(INSIDE), 5000, 0, MINUTE, ENDED)]
        for time in (0, 1, MINUTE):
            self.assertEqual(expected, self.holders(files, T + time))
        self.assertEqual([], self.holders(files, T - 1))
        self.assertEqual([], self.holders(files, T + MINUTE + 1))
        self.assertEqual(expected, self.holders(files, T + MINUTE + 900, within=1000))
        (answer,) = self.ask(files, T)
        self.assertEqual((number(PEER), 443, 6, "source", 4000), (*answer[7:9], answer.protocol, answer.nat, answer[3]))

    def test_any_port(self):
        """Without a port, all who had the address."""
        files = self.files([nfct(0, MINUTE), nfct(1, MINUTE, OTHER, 4001), nfct(5, 9, "10.0.0.3", 4002)])
        self.assertEqual([number(INSIDE), number(OTHER)], [a.inside for a in self.ask(files, T + 100, port=None)])

    def test_one_port_for_two_peers(self):
        """A port that two inside hosts have towards different peers is both's."""
        files = self.files([nfct(0, MINUTE), nfct(1, MINUTE, OTHER, **{"orig.ip.daddr": "198.51.100.10"})])
        self.assertEqual([number(INSIDE), number(OTHER)], [a.inside for a in self.ask(files, T + 100)])

    def test_interim_rows(self):
        """Several rows of one connection are one answer, until the end of the last."""
        files = self.files([nfct(0, MINUTE)], [nfct(0, 2 * MINUTE)], [nfct(0, 3 * MINUTE)])
        self.assertEqual([(number(INSIDE), 5000, 0, 3 * MINUTE, ENDED)], self.holders(files, T + 1000))

    def test_destination(self):
        """The server behind a forwarded port had the address too; one that only was contacted had not."""
        forwarded = nfct(0, MINUTE, PEER, 5000, **{
            "orig.ip.daddr": OUTSIDE, "orig.l4.dport": 8080, "postNATSourceAddress": PEER,
            "postNATDestinationAddress": INSIDE, "postNAPTDestinationTransportPort": 80,
        })  # fmt: skip
        plain = forwarded | {"postNATDestinationAddress": OUTSIDE, "postNAPTDestinationTransportPort": 8080}
        (answer,) = self.ask(self.files([forwarded]), T, port=8080)
        self.assertEqual((number(INSIDE), 80, "destination", number(PEER)), (*answer[:2], answer.nat, answer.peer))
        self.assertEqual([], self.ask(self.files([plain]), T, port=8080))

    def test_not_translated(self):
        """A connection of the box itself is its own, and says so."""
        (answer,) = self.ask(self.files([nfct(0, MINUTE, OUTSIDE, **{"orig.l4.sport": 4000})]), T)
        self.assertEqual((number(OUTSIDE), "none"), (answer.inside, answer.nat))

    def test_both_directions(self):
        """An exporter of one record for each direction is heard once."""
        out = nat44(0, None) | {"flowEndMilliseconds": T + MINUTE}
        back = {
            "exporter": ROUTER, "observationDomainId": 1, "sourceIPv4Address": PEER, "sourceTransportPort": 443,
            "destinationIPv4Address": OUTSIDE, "destinationTransportPort": 4000, "protocolIdentifier": 6,
            "postNATDestinationIPv4Address": INSIDE, "postNAPTDestinationTransportPort": 5000,
            "postNATSourceIPv4Address": PEER, "postNAPTSourceTransportPort": 443,
            "flowStartMilliseconds": T, "flowEndMilliseconds": T + MINUTE,
        }  # fmt: skip
        self.assertEqual([(number(INSIDE), 5000, 0, MINUTE, ENDED)], self.holders(self.files([out, back]), T + 9))

    def test_clock_goes_back(self):
        """A flow with a start after its end counts between its two times, in whatever hour they are."""
        for end in (MINUTE, -200 * MINUTE):
            row = nfct(0, end)
            (file,) = self.files([row])
            file = file._replace(hour=row["flowEndMilliseconds"] // 3_600_000)
            low, high = sorted((0, end))
            for time in (low, (low + high) // 2, high):
                self.assertEqual([(number(INSIDE), 5000, low, high, ENDED)], self.holders([file], T + time))
            for time in (low - 1, high + 1):
                self.assertEqual([], self.holders([file], T + time))

    def test_port_0(self):
        """An ICMP query with the identifier 0 can be asked for."""
        files = self.files([nfct(0, MINUTE, port=0, **{"orig.ip.protocol": 1})])
        self.assertEqual(1, len(self.holders(files, T, port=0)))

    def test_older_names(self):
        """The fields of the first Cisco ASA count as well, and files with other columns stand beside each other."""
        asa = {
            "sourceIPv4Address": OTHER, "sourceTransportPort": 77, "xlate_src_addr_ipv4": OUTSIDE,
            "xlate_src_port": 4000, "fw_event": 2, "flowStartMilliseconds": T, "flowEndMilliseconds": T + MINUTE,
            "observationTimeMilliseconds": T + MINUTE,
        }  # fmt: skip
        files = self.files([nfct(0, MINUTE)], [asa])
        self.assertEqual({number(INSIDE), number(OTHER)}, {a.inside for a in self.ask(files, T + 1)})

    def test_file_replaced(self):
        """Files that compaction has replaced between the listing and the reading are listed again."""
        gone, there = self.files([nfct(0, MINUTE)], [nfct(0, MINUTE)])
        self.assertEqual(1, len(self.ask([gone], T)))
        Path(gone.path).unlink()
        listings = iter([[gone], [there]])
        question = Question(number(OUTSIDE), 4000, T)
        self.assertEqual(1, len(self.store.rows(lambda: next(listings), question)))


class EventTests(_Stored):
    """A beginning and an end in rows of their own."""

    def test_session(self):
        """From its creation to its deletion, in whatever files they are; afterwards nobody has the port."""
        for begin, end in ((4, 5), (1, 2), (6, 7), (8, 9), (10, 11)):
            files = self.files([nat44(0, begin)], [nat44(90 * MINUTE, end)])
            expected = [(number(INSIDE), 5000, 0, 90 * MINUTE, ENDED)]
            for time in (0, MINUTE, 90 * MINUTE):
                self.assertEqual(expected, self.holders(files, T + time))
            for time in (-1, 90 * MINUTE + 1):
                self.assertEqual([], self.holders(files, T + time))

    def test_open(self):
        """A session that nothing ended is open, however old."""
        files = self.files([nat44(0, 4)], [nat44(0, 4, OTHER, 4001)])
        self.assertEqual([(number(INSIDE), 5000, 0, None, OPEN)], self.holders(files, T + 20_000 * MINUTE))

    def test_end_lost(self):
        """The next holder of the place ends a session whose deletion was lost."""
        files = self.files([nat44(0, 4), nat44(10 * MINUTE, 4, OTHER), nat44(11 * MINUTE, 5, OTHER)])
        self.assertEqual([(number(INSIDE), 5000, 0, 10 * MINUTE, NO_END)], self.holders(files, T + MINUTE))
        self.assertEqual([(number(OTHER), 5000, 10 * MINUTE, 11 * MINUTE, ENDED)], self.holders(files, T + 630_000))

    def test_begin_lost(self):
        """A deletion without a creation is a holder whose start is not known."""
        files = self.files([nat44(10 * MINUTE, 5)])
        self.assertEqual([(number(INSIDE), 5000, None, 10 * MINUTE, NO_START)], self.holders(files, T))

    def test_other_events(self):
        """An exhausted pool and a quota are nobody's."""
        self.assertEqual([], self.holders(self.files([nat44(0, 3), nat44(0, 13), nat44(0, 12)]), T))

    def test_reused(self):
        """A port given to one after another was each one's in his time only."""
        rows = []
        for n, inside in enumerate((INSIDE, OTHER, INSIDE, "10.0.0.3")):
            rows += [nat44(n * MINUTE, 4, inside), nat44(n * MINUTE + 40_000, 5, inside)]
        files = self.files(rows[::2], rows[1::2])
        found = [[a.inside for a in self.ask(files, T + n * MINUTE + 1000)] for n in range(4)]
        self.assertEqual([[number(i)] for i in (INSIDE, OTHER, INSIDE, "10.0.0.3")], found)

    def test_used_again_at_once(self):
        """A port that another host, or the same again, gets in the millisecond of its release is his from then on."""
        for after in (OTHER, INSIDE):
            rows = [nat44(0, 4), nat44(MINUTE, 5), nat44(MINUTE, 4, after)]
            for parts in (rows, rows[::-1]), ([rows[0], rows[2]], [rows[1]]), ([rows[0]], rows[1:]):
                files = self.files(*parts)
                self.assertEqual([(number(INSIDE), 5000, 0, MINUTE, ENDED)], self.holders(files, T + 1))
                for time in (MINUTE + 1, 30 * MINUTE):
                    self.assertEqual([(number(after), 5000, MINUTE, None, OPEN)], self.holders(files, T + time))
                self.assertEqual(2, len(self.holders(files, T + MINUTE)))

    def test_came_and_went(self):
        """A session without length is there in its millisecond only, also just after another one."""
        files = self.files([nat44(0, 4), nat44(9, 5), nat44(9, 4, OTHER), nat44(9, 5, OTHER), nat44(50, 4)])
        self.assertEqual([(number(INSIDE), 5000, 50, None, OPEN)], self.holders(files, T + 60))
        self.assertEqual([], self.holders(files, T + 10))
        self.assertEqual([number(INSIDE), number(OTHER)], [found[0] for found in self.holders(files, T + 9)])

    def test_end_says_less(self):
        """A deletion without the peer, a port or the protocol of the creation ends its session."""
        for lost in ({"destinationIPv4Address": None, "destinationTransportPort": None},
                     {"destinationTransportPort": None}, {"protocolIdentifier": None},
                     {"sourceTransportPort": None}):  # fmt: skip
            files = self.files([nat44(0, 4), nat44(MINUTE, 5, **lost), nat44(3 * MINUTE, 4, OTHER)])
            self.assertEqual([(number(INSIDE), 5000, 0, MINUTE, ENDED)], self.holders(files, T + 1))
            self.assertEqual([], self.holders(files, T + 2 * MINUTE))
            self.assertEqual([number(OTHER)], [found[0] for found in self.holders(files, T + 4 * MINUTE)])

    def test_end_of_another_host(self):
        """A deletion that says less is not that of another host's session."""
        files = self.files([nat44(0, 4), nat44(MINUTE, 5, OTHER, destinationIPv4Address=None)])
        self.assertIn((number(INSIDE), 5000, 0, None, OPEN), self.holders(files, T + 2 * MINUTE))

    def test_exporters_apart(self):
        """The deletion of one box does not end the session of another."""
        files = self.files([nat44(0, 4), nat44(MINUTE, 5, exporter="192.0.2.1")])
        self.assertIn((number(INSIDE), 5000, 0, None, OPEN), self.holders(files, T + 2000))

    def test_address_binding(self):
        """An inside host with a whole address has every port of it."""
        files = self.files([nat44(0, 14, port=0), nat44(MINUTE, 15, port=0)])
        self.assertEqual([(number(INSIDE), 5000, 0, MINUTE, ENDED)], self.holders(files, T + 1, port=17))

    def test_nsel(self):
        """Cisco NSEL: the deletion tells the start; updates change nothing; denied flows had no port."""

        def asa(time, event, **more):
            return nat44(time, None, flowStartMilliseconds=T, firewallEvent=event, **more)

        expected = [(number(INSIDE), 5000, 0, MINUTE, ENDED)]
        for rows in ([asa(MINUTE, 2)], [asa(0, 1), asa(9000, 5), asa(MINUTE, 2)]):
            for time in (0, 8000, MINUTE):
                self.assertEqual(expected, self.holders(self.files(rows), T + time))
        self.assertEqual([], self.holders(self.files([asa(0, 3)]), T))
        self.assertEqual([(number(INSIDE), 5000, 0, None, OPEN)], self.holders(self.files([asa(9000, 5)]), T + 100))

    def test_nat64(self):
        """An IPv6 host behind an IPv4 address."""
        row = nat44(0, 6) | {"sourceIPv4Address": None, "sourceIPv6Address": "2001:db8::7"}
        self.assertEqual([number("2001:db8::7")], [a.inside for a in self.ask(self.files([row]), T)])

    def test_mapped(self):
        """An IPv4 address in a field for IPv6 is found by its usual form."""
        six = {"postNATSourceIPv4Address": None, "postNATSourceIPv6Address": f"::ffff:{OUTSIDE}"}
        files = self.files([nat44(0, 4) | six], [nfct(0, MINUTE) | {"postNATSourceAddress": None} | six])
        self.assertEqual(2, len(self.ask(files, T + 1)))
        self.assertEqual(2, len(self.ask(files, T + 1, address=f"::ffff:{OUTSIDE}")))

    def test_prefix_translation(self):
        """An IPv6 address outside."""
        row = nat44(0, 4) | {
            "postNATSourceIPv4Address": None, "postNATSourceIPv6Address": "2001:db8:f::1",
            "sourceIPv6Address": "fd00::1", "sourceIPv4Address": None,
        }  # fmt: skip
        self.assertEqual(1, len(self.ask(self.files([row]), T, address="2001:db8:f::1")))
        self.assertEqual([], self.ask(self.files([row]), T, address="2001:db8:f::2"))

    def test_conntrack_events(self):
        """NFCT with a row for each event."""
        begin = nfct(0, 0, **{"ct.event": 1, "flowEndMilliseconds": None})
        end = nfct(0, MINUTE, **{"ct.event": 4})
        expected = [(number(INSIDE), 5000, 0, MINUTE, ENDED)]
        self.assertEqual(expected, self.holders(self.files([begin], [end]), T + 1))
        self.assertEqual([], self.holders(self.files([begin], [end]), T + MINUTE + 1))
        self.assertEqual([(number(INSIDE), 5000, 0, None, OPEN)], self.holders(self.files([begin]), T + 1))


class BlockTests(_Stored):
    """Port blocks."""

    def test_block(self):
        """All ports between the first and the last, from the allocation to the release."""
        ports = {"portRangeEnd": 4511}
        files = self.files([block(0, 16, 4000, **ports)], [block(MINUTE, 17, 4000, **ports)])
        for port in (4000, 4300, 4511):
            (answer,) = self.ask(files, T + 5, port=port)
            self.assertEqual((number(INSIDE), None, 4000, 4511), (*answer[:2], answer.first, answer.last))
        for port in (3999, 4512):
            self.assertEqual([], self.ask(files, T + 5, port=port))
        self.assertEqual([], self.ask(files, T + MINUTE + 1, port=4300))

    def test_open(self):
        """A block that was not released is still its holder's."""
        files = self.files([block(0, 16, 4000, portRangeEnd=4511)])
        self.assertEqual([(number(INSIDE), None, 0, None, OPEN)], self.holders(files, T + MINUTE))

    def test_release_without_ports(self):
        """A release that does not say its ports ends the oldest block of its host."""
        ports = {"portRangeEnd": 4511}
        files = self.files([block(0, 16, 4000, **ports), block(0, 16, 5000, OTHER, portRangeEnd=5511)],
                           [block(MINUTE, 17, None)])  # fmt: skip
        self.assertEqual([(number(INSIDE), None, 0, MINUTE, ENDED)], self.holders(files, T + 1))
        self.assertEqual([], self.holders(files, T + 2 * MINUTE))
        self.assertEqual([(number(OTHER), None, 0, None, OPEN)], self.holders(files, T + 2 * MINUTE, port=5001))

    def test_step(self):
        """Ports in steps: 4000, 4004, 4008; the last by their number."""
        files = self.files([block(0, 16, 4000, portRangeStepSize=4, portRangeNumPorts=3)])
        found = [port for port in range(3990, 4020) if self.ask(files, T, port=port)]
        self.assertEqual([4000, 4004, 4008], found)

    def test_given_to_another(self):
        """A block whose release was lost is the next one's from his allocation on."""
        files = self.files([block(0, 16, 4000, portRangeEnd=4063), block(MINUTE, 16, 4000, OTHER, portRangeEnd=4063)])
        self.assertEqual([(number(INSIDE), None, 0, MINUTE, NO_END)], self.holders(files, T + 1))
        self.assertEqual([(number(OTHER), None, MINUTE, None, OPEN)], self.holders(files, T + MINUTE + 1))

    def test_bulk_logging_of_nel(self):
        """Cisco's blocks are events 1 and 2 with a range."""
        files = self.files([block(0, 1, 4000, portRangeEnd=4063), block(MINUTE, 2, 4000, portRangeEnd=4063)])
        self.assertEqual([(number(INSIDE), None, 0, MINUTE, ENDED)], self.holders(files, T + 1))


HOSTS, PORTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3"), (4000, 4001)
held = st.lists(
    st.tuples(
        st.sampled_from(["flow", "back", "events", "less", "block", "less block", "mapped", "open", "nsel"]),
        st.sampled_from(HOSTS), st.sampled_from(PORTS), st.sampled_from([0, 0, 1, 20, 200]),
        st.sampled_from([0, 1, 30, 200]),
    ),
    max_size=8,
)  # fmt: skip


class ModelTests(_Stored):
    """Random holders one after another, against the plain list of who held what when."""

    @given(held, st.integers(0, 3), st.integers(0, 1500), st.sampled_from([0, 7, 300]), st.sampled_from([*PORTS, None]))
    def test_model(self, steps, parts, at, within, port):
        """The answers are those who held the address, whatever rows said so and in whatever files they are."""
        rows, truth = [], set()
        free = dict.fromkeys(PORTS, 0)
        for kind, inside, own, pause, length in steps:
            # rows of a session without length look like those of its neighbours, and one row alone has no start
            length = length or int(kind == "nsel")
            start = free[own] + (pause if length else max(pause, 1))
            end = None if kind == "open" else start + length
            free[own] = start + (length or 1) + 10**9 * (end is None)
            rows += self.said(kind, inside, own, start, end)
            truth.add((inside, own, start, end))
        low, high = at - within, at + within
        expected = sorted(
            (start, number(inside)) for inside, own, start, end in truth
            if port in (None, own) and start <= high and (end is None or end >= low)
        )  # fmt: skip
        files = self.files(*(rows[n :: parts + 1] for n in range(parts + 1)))
        found = self.ask(files, T + at, port=port, within=within)
        self.assertEqual(expected, sorted((a.start - T, a.inside) for a in found))

    @staticmethod
    def said(kind, inside, port, start, end):
        """The rows of one holder."""
        if kind in ("flow", "back"):
            times = (start, end) if kind == "flow" else (end, start)
            return [nfct(*times, inside, port, **{"orig.l4.dport": 80})]
        if kind in ("less", "mapped"):
            rows = [nat44(start, 4, inside, port, natInstanceID=7), nat44(end, 5, inside, port, natInstanceID=7)]
            if kind == "less":
                return [rows[0], rows[1] | {"destinationIPv4Address": None, "destinationTransportPort": None}]
            six = {"postNATSourceIPv4Address": None, "postNATSourceIPv6Address": f"::ffff:{OUTSIDE}"}
            return [row | six | {"natInstanceID": 8} for row in rows]
        if kind == "less block":
            rows = [block(time, event, port, inside, natInstanceID=9) for time, event in ((start, 16), (end, 17))]
            return [rows[0] | {"portRangeEnd": port}, rows[1] | {"portRangeStart": None}]
        if kind == "nsel":
            return [
                nat44(end, None, inside, port, flowStartMilliseconds=T + start, firewallEvent=2, observationDomainId=2)
            ]
        if kind == "block":
            return [block(time, event, port, inside, portRangeEnd=port) for time, event in ((start, 16), (end, 17))]
        return [nat44(start, 4, inside, port)] + ([] if end is None else [nat44(end, 5, inside, port)])
