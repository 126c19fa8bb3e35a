"""Data Sets that come before their template, and exporters whose templates come from another port."""

import json
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.ipfix.test_netflow import FLOW9, ROW9, v9
from tests.unit.ipfix.wire import COUNTER, Collected, a_set, counts, counts_of, hexed, message, template, varying
from ulogd_tw.ipfix.decoder import Limits
from ulogd_tw.ipfix.session import Session

TOLD = message(a_set(2, COUNTER))


def udp(**keywords):
    """A decoder with a session of UDP."""
    return Collected(reliable=False, **keywords)


def settled(case, found):
    """Nothing is parked, and nothing is counted as if it were."""
    kept = found.decoder.intake.templates._kept
    case.assertEqual((0, 0, 0), (found.session.parked_octets, kept.parked_octets, kept.parked_sets))


class ParkedTests(SynchronousTestCase):
    """TPL-8: over UDP data wait for their template."""

    def test_decoded_when_it_comes(self):
        """In the order in which they came, with the time at which they came, before what the Message itself has."""
        found = udp()
        found.feed(counts(1, 2), now=10.0).feed(counts(3, number=2), now=11.0)
        self.assertEqual([], found.decoder.drain(12.0))
        self.assertEqual({"no_template": 2}, found.errors)
        (batch,) = found.batches(message(a_set(2, COUNTER), a_set(256, hexed("00000004")), number=3), now=12.0)
        self.assertEqual([1, 2, 3, 4], batch.columns["octetDeltaCount"].tolist())
        self.assertEqual([10_000, 10_000, 11_000, 12_000], batch.columns["received_ms"].tolist())
        self.assertEqual(1, found.kinds.count("no_template"))
        self.assertEqual(1, found.kinds.count("template_came"))
        settled(self, found)
        self.assertEqual(4, found.counters.rows_received)

    def test_stays_a_session(self):
        """Sequence numbers are followed again after it, and a gap is seen."""
        told = message(a_set(2, COUNTER), number=2)
        found = udp().feed(counts(1, 2), told).feed(counts(3, number=2), counts(4, number=5))
        self.assertEqual([1, 2, 3, 4], counts_of(found.rows()))
        self.assertEqual({"sequence": 2}, dict(found.counters.lost))

    def test_padding(self):
        """What is too short for a record is padding."""
        found = udp().feed(message(a_set(256, hexed("00000007 0000"))), TOLD)
        self.assertEqual([7], counts_of(found.rows()))

    def test_variable(self):
        """Records of variable length; one that is cut makes its Set malformed, and the others are there."""
        names = template(256, (82, 65535))
        found = udp().feed(
            message(a_set(256, varying(b"eth0"), varying(b"eth1"))), message(a_set(256, b"\x09eth")),
            message(a_set(256, varying(b"eth2"))), message(a_set(2, names)),
        )  # fmt: skip
        self.assertEqual([b"eth0", b"eth1", b"eth2"], [row["interfaceName"] for row in found.rows()])
        self.assertEqual({"no_template": 3, "record": 1}, found.errors)
        settled(self, found)

    def test_netflow9(self):
        """With the clock of their own packet."""
        found = udp().feed(v9(a_set(256, ROW9), seconds=1000, uptime=100_000))
        (row,) = found.rows(v9(a_set(0, FLOW9), seconds=1060, uptime=160_000, number=1))
        self.assertEqual((990_000, 1000), (row["flowStartMilliseconds"], row["octetDeltaCount"]))
        settled(self, found)

    def test_netflow9_without_octets(self):
        """A template whose records have no octets gives none."""
        found = udp().feed(v9(a_set(256, ROW9)), v9(a_set(0, template(256, (8, 0))), number=1))
        self.assertEqual([], found.rows())
        self.assertEqual({"no_template": 1, "empty_records": 1}, found.errors)

    def test_not_over_tcp(self):
        """Templates come in order there; what was withdrawn must not be read by what takes its id."""
        found = Collected(reliable=True).feed(counts(1), TOLD)
        self.assertEqual([], found.rows())
        self.assertEqual({"no_template": 1}, found.errors)

    def test_too_late(self):
        """They are given up after a while, and counted."""
        found = udp().feed(counts(1), now=10.0).feed(counts(2), now=40.0)
        found.decoder.expire([found.session], 70.1)
        self.assertEqual(1, found.errors["no_template_dropped"])
        self.assertEqual([2], counts_of(found.rows(TOLD)))
        settled(self, found)

    def test_bounds(self):
        """A session has a quarter of all there is; beyond it, and with park=0, they are dropped and counted."""
        found = udp(limits=Limits(parked_octets=4 * 48))
        found.feed(counts(1), counts(2), counts(3))  # 24 octets each
        self.assertEqual({"no_template": 3, "no_template_dropped": 1}, found.errors)
        others = [Session(f"192.0.2.{n}", 1, reliable=False) for n in range(2, 9)]
        for other in others:
            found.decoder.feed(other, counts(9), 2000.0)
        self.assertEqual(2 + 6, found.decoder.intake.templates._kept.parked_sets)
        for session in (found.session, *others):
            found.decoder.forget(session)
        settled(self, found)
        self.assertEqual(10, found.errors["no_template_dropped"])
        found = udp(limits=Limits(parked_time=0)).feed(counts(1), TOLD)
        self.assertEqual([], found.rows())
        self.assertEqual({"no_template": 1, "no_template_dropped": 1}, found.errors)

    def test_end(self):
        """At the end nothing comes any more."""
        found = udp().feed(counts(1), counts(2))
        found.decoder.end()
        self.assertEqual(2, found.errors["no_template_dropped"])
        settled(self, found)

    @given(st.data())
    def test_any_place_of_the_template(self, data):
        """Wherever the template comes among Messages of fixed and variable length, all records are there, in order."""
        values = [[n, n + 1000] for n in range(data.draw(st.integers(1, 6)))]
        fixed = data.draw(st.booleans())
        fields = ((1, 4),) if fixed else ((1, 4), (82, 65535))
        rows = [[struct.pack("!I", v) + (b"" if fixed else varying(b"x" * (v % 7))) for v in of] for of in values]
        messages = [message(a_set(256, *of), number=2 * n) for n, of in enumerate(rows)]
        place = data.draw(st.integers(0, len(messages)))
        messages.insert(place, message(a_set(2, template(256, *fields)), number=2 * place))
        found = udp()
        got = []
        for octets in messages:
            got += counts_of(found.rows(octets)) if data.draw(st.booleans()) else found.feed(octets) and []
        got += counts_of(found.rows())
        self.assertEqual([value for of in values for value in of], got)
        settled(self, found)


class LifetimeTests(SynchronousTestCase):
    """UDPT-5: templates expire when they are not sent again; over TCP they do not."""

    def test_expires(self):
        found = udp(limits=Limits(template_lifetime=100))
        found.feed(TOLD, now=1000.0).feed(TOLD, now=1080.0)
        found.decoder.expire([found.session], 1170.0)
        self.assertEqual([1], counts_of(found.rows(counts(1))))
        found.decoder.expire([found.session], 1181.0)
        self.assertEqual([], found.rows(counts(2, number=1)))
        self.assertEqual({"template_expired": 1, "no_template": 1}, found.errors)
        self.assertEqual([2], counts_of(found.rows(TOLD)))  # and it comes again

    def test_not_over_tcp(self):
        found = Collected(limits=Limits(template_lifetime=100)).feed(TOLD, now=1000.0)
        found.decoder.expire([found.session], 5000.0)
        self.assertEqual([1], counts_of(found.rows(counts(1))))

    def test_netflow9(self):
        found = udp(limits=Limits(template_lifetime=100))
        for now in (1000.0, 1090.0, 1180.0):
            found.feed(v9(a_set(0, FLOW9), number=int(now)), now=now)
            found.decoder.expire([found.session], now)
        self.assertEqual(1, len(found.rows(v9(a_set(256, ROW9)))))


class HomeTests(SynchronousTestCase):
    """Templates of one port, data of another one of the same address."""

    def setUp(self):
        self.found = udp()
        self.home = self.found.session
        self.other = Session("192.0.2.1", 5001, reliable=False)
        self.home.siblings = self.other.siblings = {1: self.home, 2: self.other}.values()

    def other_sends(self, *messages, now=2000.0):
        for octets in messages:
            self.found.decoder.feed(self.other, octets, now)
        return self.found.decoder.homes

    def test_seen(self):
        """A port that has sent templates only is the home of another's data; after `merge` they are decoded."""
        self.found.feed(TOLD)
        self.assertEqual([(self.home, self.other)], self.other_sends(counts(5, number=77)))
        self.found.decoder.merge(self.home, self.other)
        self.assertEqual([5], counts_of(self.found.rows()))
        settled(self, self.found)
        self.assertEqual(0, self.other.parked_octets)

    def test_seen_by_the_sequence(self):
        """Also one that has sent data, if the Message goes on where it has ended."""
        self.found.feed(TOLD, counts(1, 2))
        self.assertEqual([], self.other_sends(counts(5, number=7)))
        self.assertEqual([(self.home, self.other)], self.other_sends(counts(6, number=2)))

    def test_another_exporter(self):
        """Not one with another domain, template, clock or size of records, or with templates of its own."""
        self.found.feed(TOLD)
        flow = message(a_set(256, hexed("00000001"), hexed("00000002")))
        for octets in (
            message(a_set(256, hexed("00000001")), domain=2),
            message(a_set(257, hexed("00000001"))),
            message(a_set(256, hexed("00000001")), export_time=1100),
        ):
            self.assertEqual([], self.other_sends(octets))
        self.assertEqual([(self.home, self.other)], self.other_sends(flow))
        self.found.decoder.homes.clear()
        self.found.feed(message(a_set(2, template(258, (1, 8), (2, 8), (4, 1)))))
        self.assertEqual([], self.other_sends(message(a_set(258, bytes(16)))))
        self.assertEqual([], self.other_sends(message(a_set(2, template(300, (1, 4)))), message(a_set(256, bytes(4)))))

    def test_merge(self):
        """All domains, templates and waiting data become the home's; its own templates stay."""
        decoder, kept = self.found.decoder, self.found.decoder.intake.templates._kept
        self.found.feed(TOLD)
        self.other_sends(
            message(a_set(2, template(256, (2, 4)), template(257, (2, 4)))), message(a_set(2, COUNTER), domain=2),
            message(a_set(258, hexed("00000009"))),
        )  # fmt: skip
        decoder.merge(self.home, self.other)
        self.assertEqual((2, 3, 3), (kept.domains, kept.templates, kept.fields))
        self.assertEqual((3, 0), (self.home.templates, self.other.templates))
        rows = self.found.rows(
            message(a_set(256, bytes(4)), a_set(257, bytes(4))), message(a_set(256, bytes(4)), domain=2),
            message(a_set(2, template(258, (4, 4)))),
        )  # fmt: skip
        self.assertEqual(
            sorted(rows, key=str),
            sorted([{"octetDeltaCount": 0}, {"packetDeltaCount": 0}, {"octetDeltaCount": 0}, {"protocolIdentifier": 9}],
                   key=str),
        )  # fmt: skip
        decoder.forget(self.home)
        self.assertEqual((0, 0, 0), (kept.domains, kept.templates, kept.fields))


class CorpusTests(SynchronousTestCase):
    """A capture whose data come before the template."""

    def test_akvorado(self):
        """The set of 660 octets of template 257 is decoded too: as if its packet had come after the template."""
        lines = shared_path("corpus", "ipfix", "messages", "akvorado-data-and-templates.jsonl").read_text().splitlines()
        oracle = json.loads(shared_path("corpus", "ipfix", "oracle", "akvorado-data-and-templates.json").read_text())
        packets = [bytes.fromhex(json.loads(line)["hex"]) for line in lines]
        (parked,) = oracle["undecodable_sets"]
        fields = next(t["fields"] for t in oracle["templates"] if t["tid"] == 257)
        size = sum(length for _, _, length in fields)
        rows = udp().rows(*packets)
        self.assertEqual(oracle["record_count"] + parked["octets"] // size, len(rows))
        self.assertCountEqual(udp().rows(*packets[1:], packets[0]), rows)
