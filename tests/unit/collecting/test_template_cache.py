"""Templates of UDP exporters that outlive a restart."""

import logging
import struct
from pathlib import Path

from hypothesis import strategies as st
from twisted.internet import defer
from twisted.trial.unittest import TestCase

from tests.support import given
from tests.unit.ipfix.test_netflow import FLOW9, ROW9, record5, v5, v9
from tests.unit.ipfix.test_options_records import DESCRIBE, described, options
from tests.unit.ipfix.wire import COUNTER, a_set, check, counts, hexed, message, template
from ulogd_tw.collecting import exporter_lines, template_cache
from ulogd_tw.collecting.template_cache import TemplateCache
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Decoder, Limits
from ulogd_tw.ipfix.exporters import Allowed, Exporters, sender


class _Collector:
    """What a cache asks of its collector."""

    instance = "col1"

    def __init__(self, path, limits=Limits(), keying="auto"):  # noqa: B008 (frozen)
        self.log = logging.getLogger("tests.unit")
        self.said = []
        self.log = self
        self.faults = []
        self.counters = Counters("COLLECTOR")
        self.decoder = Decoder(ALL, self.counters, limits)
        self.exporters = Exporters(keying, 100, 100, Allowed(()), 1800)
        self.cache = TemplateCache(path, self)

    def info(self, text, **fields):
        self.said.append(text.format(**fields))

    error = info

    def fault(self, error):
        self.faults.append(error)

    def take(self, host, port, *messages, now=1000.0):
        """Datagrams of a sender; plain rows of all."""
        name = sender(host, port)
        session = self.exporters.find("udp", name, now) or self.exporters.admit("udp", name, (host, port), now)
        for octets in messages:
            self.decoder.feed(session, octets, now)
        rows = []
        for batch in self.decoder.drain(now):
            check(batch)
            rows += batch.rows()
        return rows

    def save(self, now=1000.0):
        return self.cache.save(self.decoder, self.exporters, now)

    def load(self, now=1010.0, idle=1800):
        self.cache.load(exporter_lines.Restoring(self.decoder, self.exporters, idle, now))
        return self


class TemplateCacheTests(TestCase):
    """Save by one collector, load by the next one."""

    def setUp(self):
        self.path = Path(self.mktemp())
        self.first = _Collector(str(self.path))

    def again(self, **keywords):
        """A collector after a restart."""
        return _Collector(str(self.path), **keywords)

    def field(self, rows, name):
        return [row.get(name) for row in rows]

    @defer.inlineCallbacks
    def test_templates(self):
        """Data are decoded at once: IPFIX of two domains and families, an enterprise's elements, v9; and v5."""
        own = template(300, (5, 4, 32473), (82, 65535))
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER, own)), message(a_set(2, COUNTER), domain=7))
        self.first.take("2001:db8::1", 6000, v9(a_set(0, FLOW9)))
        self.first.take("192.0.2.5", 7000, v5(record5()))
        yield self.first.save()
        then = self.again().load()
        self.assertEqual(["col1: template_cache has 4 templates of 3 exporters"], then.said)
        self.assertEqual([], then.decoder.events)  # none of them is new to the administrator
        self.assertEqual([5, 6], self.field(then.take("192.0.2.1", 5000, counts(5), counts(6, domain=7)),
                                            "octetDeltaCount"))  # fmt: skip
        (row,) = then.take("192.0.2.1", 5000, message(a_set(300, hexed("00000001 04 65746830")), number=1))
        self.assertEqual((hexed("00000001"), b"eth0"), (row["e32473id5"], row["interfaceName"]))
        (row,) = then.take("2001:db8::1", 6000, v9(a_set(256, ROW9)))
        self.assertEqual((1000, 990_000), (row["octetDeltaCount"], row["flowStartMilliseconds"]))
        self.assertEqual(1, len(then.take("192.0.2.5", 7000, v5(record5(), number=1))))
        self.assertEqual({}, dict(then.counters.errors))
        # Another sender knows nothing of it.
        self.assertEqual([], then.take("192.0.2.1", 5001, counts(5)))

    @defer.inlineCallbacks
    def test_exporter_restarted(self):
        """Templates of an exporter that came up after the file was written are not trusted until they come again."""
        other = template(256, (2, 4), (1, 4))
        self.first.take("2001:db8::1", 6000, v9(a_set(0, FLOW9), number=100, uptime=3_600_000, seconds=5000))
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER), number=100, export_time=5000))
        yield self.first.save()
        then = self.again().load()
        data = a_set(256, hexed("00000007 000005dc"))
        for number in (0, 1):
            packet = v9(data, number=number, uptime=9000 + number, seconds=5060)
            self.assertEqual([], then.take("2001:db8::1", 6000, packet, now=1060.0))
            self.assertEqual(
                [], then.take("192.0.2.1", 5000, message(data, number=number, export_time=5060), now=1060.0)
            )
        rows = then.take("2001:db8::1", 6000, v9(a_set(0, other), number=2, uptime=9002, seconds=5060), now=1060.0)
        rows += then.take("192.0.2.1", 5000, message(a_set(2, other), number=2, export_time=5060), now=1060.0)
        self.assertEqual(4 * [1500], self.field(rows, "octetDeltaCount"))
        self.assertEqual(2, then.counters.figures["exporter_restarts"])

    @defer.inlineCallbacks
    def test_exporter_goes_on(self):
        """An exporter that was up all the time is trusted, also where its uptime or sequence has wrapped meanwhile."""
        self.first.take(
            "2001:db8::1", 6000, v9(a_set(0, FLOW9), number=(1 << 32) - 9, uptime=(1 << 32) - 9, seconds=5000)
        )
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER), number=(1 << 32) - 9, export_time=5000))
        yield self.first.save()
        then = self.again().load()
        rows = then.take("2001:db8::1", 6000, v9(a_set(256, ROW9), number=70, uptime=599_991, seconds=5600), now=1600.0)
        rows += then.take("192.0.2.1", 5000, counts(5, number=70, export_time=5600), now=1600.0)
        self.assertEqual([1000, 5], self.field(rows, "octetDeltaCount"))

    @defer.inlineCallbacks
    def test_told(self):
        """What was told in options records: rates, names, losses that are not counted twice, types."""
        tell = options(300, (144, 4), (34, 4), (166, 8))
        names = options(301, (10, 4), (82, 4))
        self.first.take(
            "192.0.2.1", 5000,
            message(tell, a_set(300, struct.pack("!IIQ", 7, 100, 5)), names, a_set(301, struct.pack("!I", 1), b"eth0")),
            message(a_set(3, DESCRIBE[4:].replace(b"\1\x2c", b"\1\x2e", 1))),
            message(a_set(302, described(32473, 5, 3, 3, b"foo"))),
            message(a_set(2, template(256, (10, 4), (5, 4, 32473)))),
        )  # fmt: skip
        yield self.first.save()
        then = self.again().load()
        (row,) = then.take("192.0.2.1", 5000, message(a_set(256, struct.pack("!II", 1, 77))))
        self.assertEqual(77, row["foo"])
        (session,) = then.exporters
        told = session.domains[1].info
        self.assertEqual((100.0, {1: b"eth0"}), (told.factor, told.names["interface"]))
        then.take("192.0.2.1", 5000, message(a_set(300, struct.pack("!IIQ", 7, 100, 6))))
        self.assertEqual(1, then.counters.lost["exporter"])

    @defer.inlineCallbacks
    def test_too_old(self):
        """Sessions that were silent, and templates whose life is over, are left out."""
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)), now=1000.0)
        self.first.take("192.0.2.2", 5000, message(a_set(2, COUNTER)), now=2000.0)
        yield self.first.save(2000.0)
        then = self.again().load(now=2900.0, idle=1800)
        self.assertEqual(["192.0.2.2"], [session.peer for session in then.exporters])
        then = self.again(limits=Limits(template_lifetime=500)).load(now=2900.0, idle=1800)
        self.assertEqual([], then.take("192.0.2.2", 5000, counts(5), now=2900.0))

    @defer.inlineCallbacks
    def test_addresses(self):
        """A session of an address, whose ports do not count, is one again; also one that came about by itself."""
        for keying in ("address", "auto"):
            first = _Collector(str(self.path), keying=keying)
            first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)))
            if keying == "auto":
                (home,) = first.exporters
                first.exporters.unite(home)
            yield first.save()
            then = self.again(keying=keying).load()
            self.assertEqual([5], self.field(then.take("192.0.2.1", 5999, counts(5)), "octetDeltaCount"), keying)
            self.assertEqual(1, len(then.exporters))
            strict = self.again(keying="strict").load()
            self.assertEqual(0, len(strict.exporters))

    @defer.inlineCallbacks
    def test_home(self):
        """After a restart another port of the address can still be told to be the same exporter (v9, by its uptime)."""
        self.first.take("192.0.2.1", 5000, v9(a_set(0, FLOW9)))
        yield self.first.save()
        then = self.again().load()
        then.take("192.0.2.1", 5001, v9(a_set(256, ROW9), number=7))
        self.assertEqual(1, len(then.decoder.homes))

    @defer.inlineCallbacks
    def test_limits(self):
        """A file does not go beyond the limits either."""
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER, template(257, (1, 4)))))
        yield self.first.save()
        then = self.again(limits=Limits(templates=1)).load()
        self.assertEqual(1, then.decoder.intake.templates._kept.templates)

    @defer.inlineCallbacks
    def test_written_when_something_changes(self):
        """At the start, so that a path that is wrong is seen; soon after a change, not before; and now and then."""
        self.first.load(now=1000.0)
        self.first.cache.wake(self.first.decoder, self.first.exporters, 1.0)
        yield self.first.cache._writing
        self.assertTrue(self.path.exists())
        self.path.unlink()
        self.first.cache.wake(self.first.decoder, self.first.exporters, 100.0)
        self.assertIsNone(self.first.cache._writing)
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)), now=1100.0)
        self.first.cache.wake(self.first.decoder, self.first.exporters, 100.5)
        yield self.first.cache._writing
        self.assertTrue(self.path.exists())
        self.path.unlink()
        self.first.cache.wake(self.first.decoder, self.first.exporters, 500.0)
        yield self.first.cache._writing
        self.assertTrue(self.path.exists())

    def test_no_file(self):
        """The first start."""
        self.assertEqual([], self.again().load().said)

    @defer.inlineCallbacks
    def test_cannot_be_written(self):
        """A fault, and the old file stays."""
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)))
        yield self.first.save()
        before = self.path.read_bytes()
        (self.path.parent / (self.path.name + ".new")).mkdir()
        yield self.first.save()
        self.assertIsInstance(self.first.faults[0], IsADirectoryError)
        self.assertEqual(before, self.path.read_bytes())

    @given(st.data())
    def test_damaged(self, data):
        """A file that is cut or changed anywhere is not used, and said so; nothing of it is taken."""
        whole = getattr(self, "whole", None)
        if whole is None:
            self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)))
            template_cache._write(self.path, exporter_lines.copy(self.first.decoder, self.first.exporters))
            whole = self.whole = self.path.read_bytes()
        if data.draw(st.booleans()):
            wrong = whole[: data.draw(st.integers(0, len(whole) - 2))]
        else:
            place = data.draw(st.integers(0, len(whole) - 2))
            wrong = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
        self.path.write_bytes(wrong)
        then = self.again().load()
        self.assertEqual(1, then.counters.errors["template_cache"], wrong)
        self.assertEqual(0, len(then.exporters))
        self.assertIn("is not used", then.said[0])
        self.assertTrue(Path(f"{self.path}.aside").exists())

    def test_of_a_newer_release(self):
        """It is set aside, so that the newer release finds it again; said, and counted."""
        octets = b'{"ulogd_tw":"templates","version":2}\nwhatever\n'
        self.path.write_bytes(octets)
        then = self.again().load()
        self.assertEqual(1, then.counters.errors["template_cache"])
        self.assertEqual(octets, Path(f"{self.path}.aside").read_bytes())
        self.assertFalse(self.path.exists())
        self.assertIn("version 2", then.said[0])

    def test_too_large(self):
        """A file larger than the limits of the collector allow is not read."""
        few = Limits(templates_in_all=1, fields_in_all=1, domains_in_all=1, told=1)
        with open(self.path, "wb") as file:
            file.truncate(template_cache.most_octets(few) + 1)
        then = self.again(limits=few).load()
        self.assertEqual(1, then.counters.errors["template_cache"])
        self.assertIn("octets", then.said[0])

    @defer.inlineCallbacks
    def test_of_other_collectors(self):
        """Of what two collectors have heard at our address the later one counts; other addresses do not."""
        other, damaged, missing = (self.path.with_name(name) for name in ("other", "damaged", "missing"))
        yield self.heard(self.path, 1000.0, {"192.0.2.1": 4})
        yield self.heard(other, 1005.0, {"192.0.2.1": 8, "192.0.2.2": 4})
        damaged.write_bytes(other.read_bytes()[:-5])
        for own, places, expected in (
            (self.path, ["udp"], {"192.0.2.1": {8}, "192.0.2.2": {4}}),
            (missing, ["x", "udp"], {"192.0.2.1": {8}, "192.0.2.2": {4}}),
            (other, ["udp"], {"192.0.2.1": {8}, "192.0.2.2": {4}}),
            (other, ["x"], {}),
            (self.path, None, {"192.0.2.1": {4}}),
            (missing, None, {}),
        ):
            then = _Collector(str(own))
            restoring = exporter_lines.Restoring(then.decoder, then.exporters, 1800, 1010.0, places)
            then.cache.load(restoring, {self.path, other, damaged, missing} - {own})
            self.assertEqual(expected, {session.peer: self.widths(session) for session in then.exporters})
            self.assertEqual({}, then.counters.errors)

    def heard(self, path, now, widths):
        """Write a file: template 256 of each exporter has a counter of so many octets."""
        one = _Collector(str(path))
        for host, width in widths.items():
            one.take(host, 5000, message(a_set(2, template(256, (1, width)))), now=now)
        for session in one.exporters:
            session.last_received = now
        return one.save()

    @staticmethod
    def widths(session):
        """The octets of the counter."""
        (domain,) = session.domains.values()
        return {field.length for learnt in domain.templates.values() for field in learnt.template.fields}

    def test_in_one_process(self):
        """Its lines restore a successor without a file: records are decoded at once."""
        self.first.take("192.0.2.1", 5000, message(a_set(2, COUNTER)))
        lines = list(exporter_lines.lines(exporter_lines.copy(self.first.decoder, self.first.exporters)))
        then = self.again()
        exporter_lines.Restoring(then.decoder, then.exporters, 1800, 1010.0).take_all(lines)
        rows = then.take("192.0.2.1", 5000, message(a_set(256, hexed("00000007")), number=0))
        self.assertEqual(1, len(rows))
        self.assertEqual(0, then.counters.errors["no_template"])
