"""COLLECTOR: its sessions, what ends them, what the log says. The messages are written with struct alone."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.ipfix.wire import (
    COUNTER,
    VARIABLE,
    a_set,
    counts,
    counts_of,
    hexed,
    message,
    options_template,
    template,
    varying,
)
from ulogd_tw.peers import parse
from ulogd_tw.plugins.inputs.collector import COLLECTOR

TOLD = message(a_set(2, COUNTER))
CUT_SET = message(hexed("01000003"))
"""A set that is shorter than its own header."""


class SessionTests(SynchronousTestCase):
    """Who is one exporter, and what belongs to it."""

    def test_ports(self):
        """TR-2: 4739 is listened on unless something else is configured; 4740 is the port of secured transports."""
        (option,) = [option for option in COLLECTOR.options if option.name == "listen"]
        self.assertEqual([4739, 4739], [parse(text).port for text in option.default])
        ports = {scheme: parse(f"{scheme}:192.0.2.1").port for scheme in ("udp", "tcp", "sctp", "tls", "dtls")}
        self.assertEqual({"udp": 4739, "tcp": 4739, "sctp": 4739, "tls": 4740, "dtls": 4740}, ports)
        self.assertEqual(9995, parse("udp:9995").port)

    def test_datagrams(self):
        """UDPT-7, MSG-7: address and port of the sender, our socket and the domain make a session; its time is kept."""
        found = Collecting(self)
        peers = ("192.0.2.1", 1000), ("192.0.2.1", 1001), ("192.0.2.2", 1000)
        for place, peer in enumerate(peers):
            element = (1, 2, 85)[place]  # the same template id, another element for each
            found.datagrams((message(a_set(2, template(256, (element, 4)))), *peer))
        data = message(a_set(256, hexed("00000005")))
        found.datagrams(*((data, *peer) for peer in peers))
        found.datagrams((data, *peers[0]), place="udp:9995")  # it has no template there
        self.assertEqual([{"octetDeltaCount": 5}, {"packetDeltaCount": 5}, {"octetTotalCount": 5}], found.rows)
        self.assertEqual({"no_template": 1}, found.errors)
        self.assertEqual(4, found.plugin.counters.figures["sessions"]())
        self.assertTrue(all(session.last_received > 0 for session in found.plugin.sessions()))

    def test_transports_apart(self):
        """TR-3: the same peer over TCP and UDP is two exporters, each with templates and numbers of its own."""
        found = Collecting(self)
        stream = found.connect("192.0.2.1", 1000)
        stream.send(TOLD + counts(1, number=0))
        found.datagrams((counts(2, number=7), "192.0.2.1", 1000))  # waits for a template of its own
        found.datagrams((message(a_set(2, template(256, (2, 4))), number=8), "192.0.2.1", 1000))
        found.datagrams((counts(3, number=8), "192.0.2.1", 1000))
        stream.send(counts(4, number=1))
        found.wait()
        packets, octets = [{"packetDeltaCount": n} for n in (2, 3)], [{"octetDeltaCount": n} for n in (1, 4)]
        self.assertEqual([*packets, *octets], found.rows)
        self.assertEqual(({"no_template": 1}, {}), (found.errors, dict(found.plugin.counters.lost)))

    def test_connection_ends(self):
        """TPL-4, TCP-3: templates end with their connection; the next one from the same port begins anew."""
        found = Collecting(self)
        for broken in (False, True):
            first = found.connect()
            first.send(TOLD + counts(1))
            first.end(broken)
            second = found.connect()
            second.send(counts(2))
            found.wait()
            second.end()
        self.assertEqual([1, 1], counts_of(found.rows))
        self.assertEqual({"no_template": 2}, found.errors)

    def test_idle(self):
        """UDPT-8: a UDP session that is silent for idle_timeout is forgotten with its templates; others stay."""
        found = Collecting(self, idle_timeout=100)
        found.datagrams((TOLD, "192.0.2.1", 1), (TOLD, "192.0.2.2", 1))
        found.at(1050.0)
        found.datagrams((message(), "192.0.2.2", 1))
        found.at(1099.0)
        self.assertEqual(2, found.plugin.counters.figures["sessions"]())
        found.at(1101.0)
        found.datagrams((counts(1), "192.0.2.1", 1), (counts(2), "192.0.2.2", 1))
        self.assertEqual([2], counts_of(found.rows))
        self.assertEqual({"no_template": 1}, found.errors)

    def test_before_template(self):
        """TPL-8: data before their template close nothing; over UDP all of them wait for it for `park` seconds."""
        data = message(a_set(256, hexed("0000000100000002")), a_set(256, hexed("00000003")))
        peer = "192.0.2.1", 1000
        found = Collecting(self, park=10)
        found.datagrams((data, *peer), (counts(4, number=3), *peer))
        self.assertEqual([], found.rows)
        found.datagrams((message(a_set(2, COUNTER), number=4), *peer), (counts(5, number=4), *peer))
        self.assertEqual([1, 2, 3, 4, 5], sorted(counts_of(found.rows)))
        self.assertEqual(({"no_template": 3}, {}), (found.errors, dict(found.plugin.counters.lost)))
        found = Collecting(self, park=10)
        found.datagrams((data, *peer))
        found.at(1011.0)
        found.datagrams((TOLD, *peer), (counts(4, number=3), *peer))
        self.assertEqual([4], counts_of(found.rows))
        self.assertEqual({"no_template": 2, "no_template_dropped": 2}, found.errors)
        connection = found.connect()
        connection.send(data + TOLD + counts(5, number=3))
        found.wait()
        self.assertFalse(connection.closed)
        self.assertEqual([4, 5], counts_of(found.rows))

    def test_lifetime(self):
        """UDPT-5: with template_lifetime a template that is not sent again over UDP is forgotten, over TCP never."""
        found = Collecting(self, template_lifetime=300)
        peer, connection = ("192.0.2.1", 1000), found.connect()
        connection.send(TOLD)
        found.datagrams((message(a_set(2, COUNTER), a_set(2, template(257, (4, 1)))), *peer))
        for now in (1250.0, 1280.0):
            found.at(now)
            found.datagrams((TOLD, *peer))
        found.at(1299.0)
        self.assertEqual(3, found.plugin.counters.figures["templates"]())
        found.at(1320.0)
        found.datagrams((message(a_set(257, b"\6"), a_set(256, hexed("00000001"))), *peer))
        found.at(1570.0)
        found.datagrams((counts(2, number=1), *peer))
        connection.send(counts(3))
        found.wait()
        self.assertEqual([1, 2, 3], counts_of(found.rows))
        self.assertEqual({"template_expired": 1, "no_template": 1, "no_template_dropped": 1}, found.errors)
        self.assertEqual(1, len(found.heard("template 257 was not sent again within template_lifetime")))

    def test_limits(self):
        """ERR-6: what peers may make us keep is bounded by options; what is beyond is refused and counted."""
        peer = "192.0.2.1", 1000
        for option, most, reason, messages in (
            ("max_domains", 3, "limit_domains", [message(domain=d) for d in range(5)]),
            ("max_domains_in_all", 3, "limit_domains_in_all", [message(domain=d) for d in range(5)]),
            ("max_templates", 3, "limit_templates", [message(a_set(2, template(300 + i, (4, 1)))) for i in range(5)]),
            ("max_templates_in_all", 3, "limit_templates_in_all",
             [message(a_set(2, *(template(300 + i, (4, 1)) for i in range(5))))]),
            ("max_fields", 3, "limit_fields", [message(a_set(2, template(300, *[(4, 1)] * n))) for n in (3, 4, 5)]),
            ("max_fields_in_all", 6, "limit_templates_in_all",
             [message(a_set(2, template(300 + i, (4, 1), (5, 1)))) for i in range(5)]),
            ("max_parked", 400, "no_template_dropped", [message(a_set(400, bytes(50))) for _ in range(3)]),
        ):  # fmt: skip
            found = Collecting(self, **{option: most})
            found.datagrams(*((octets, *peer) for octets in messages))
            self.assertEqual(2, found.errors[reason], option)
        found = Collecting(self, max_sessions_of_address=3)
        given = message(a_set(2, COUNTER), a_set(256, hexed("00000001")))
        found.datagrams(*((given, "192.0.2.1", port) for port in range(1, 6)))
        found.datagrams((TOLD, "192.0.2.2", 1))
        self.assertEqual({"limit_sessions_of_address": 2}, found.errors)
        found = Collecting(self, max_buffered=100)
        connection = found.connect()
        connection.send(message(bytes(200))[:150])
        self.assertTrue(connection.closed)
        self.assertEqual({"limit_buffered": 1}, found.errors)

    def test_many_templates(self):
        """ERR-6, RFC 5471 section 3.5.3: 8000 templates in a message, and 200 domains of 40 templates, are usual."""
        found = Collecting(self)
        connection = found.connect()
        connection.send(message(a_set(2, *(template(256 + i, (4, 1)) for i in range(8000)))))
        other = found.connect(port=2)
        for domain in range(200):
            other.send(message(a_set(2, *(template(256 + i, (4, 1)) for i in range(40))), domain=domain))
        connection.send(message(a_set(256 + 7999, b"\6")))
        other.send(message(a_set(256 + 39, b"\7"), domain=199))
        found.wait()
        self.assertEqual([{"protocolIdentifier": 6}, {"protocolIdentifier": 7}], found.rows)
        self.assertEqual({}, found.errors)

    def test_abnormal_end(self):
        """ERR-7, ERR-5: after a connection that broke within a message the next is taken; the log says why it ended."""
        found = Collecting(self)
        first = found.connect()
        first.send(TOLD + counts(1) + counts(2)[:9])
        first.end(broken=True)
        second = found.connect(port=40001)
        second.send(TOLD + counts(3))
        found.wait()
        self.assertEqual([1, 3], counts_of(found.rows))
        self.assertEqual({"cut": 1}, found.errors)
        (line,) = found.heard("has disconnected")
        self.assertIn("192.0.2.1:40000 has disconnected: Connection to the other side was lost", line)

    def test_refused(self):
        """ERR-6, ERR-5: one exporter more than max_sessions is refused, over TCP and UDP, and logged; a free place
        is given again."""
        found = Collecting(self, max_sessions=2)
        first, second = (found.connect(port=port) for port in (1, 2))
        for connection in (first, second):
            connection.send(TOLD + counts(7))
        third = found.connect(port=3)
        self.assertEqual([False, False, True], [first.closed, second.closed, third.closed])
        found.datagrams(*((octets, "192.0.2.1", port) for port in (1, 2) for octets in (TOLD, counts(7))))
        found.wait()
        found.batches.clear()
        found.datagrams((TOLD, "192.0.2.9", 1), (counts(1), "192.0.2.9", 1))
        self.assertEqual([], found.rows)
        self.assertEqual({"limit_sessions": 3}, found.errors)  # a connection, and each datagram
        self.assertEqual(1, len(found.heard("192.0.2.1 is refused: the limit max_sessions is reached")))
        first.end()
        fourth = found.connect(port=4)
        fourth.send(TOLD + counts(1))
        found.wait()
        self.assertEqual([1], counts_of(found.rows))

    def test_memory(self):
        """ERR-8: a message for which there is no memory is lost with its reason; its session and others go on."""
        found, faults = Collecting(self), []
        found.plugin.fault = faults.append
        first, second = found.connect(port=1), found.connect(port=2)
        first.send(TOLD)
        second.send(TOLD)
        feed, self.fails = found.plugin.reception.streams.feed, True

        def short_of_memory(session, octets, now):
            if session.peer_port == 1 and self.fails:
                raise MemoryError
            feed(session, octets, now)

        self.patch(found.plugin.reception.streams, "feed", short_of_memory)
        first.send(counts(1))
        second.send(counts(2))
        self.fails = False
        first.send(counts(3, number=1))
        found.connect(port=3).send(TOLD + counts(4))
        found.wait()
        self.assertEqual([2, 3, 4], counts_of(found.rows))
        self.assertEqual(["MemoryError"], [type(fault).__name__ for fault in faults])
        self.assertEqual({"sequence": 1}, dict(found.plugin.counters.lost))


class FloodTests(SynchronousTestCase):
    """Who floods the collector costs others nothing."""

    GIVEN = message(a_set(2, COUNTER), a_set(256, hexed("00000001")))

    def test_no_session_without_a_message(self):
        """Octets that are no message leave no session, domain or template; others that come together are read."""
        found = Collecting(self, max_sessions=5)
        known = ("192.0.2.1", 1)
        found.datagrams((self.GIVEN, *known))
        for junk in (
            b"x",
            b"hello",
            b"\0\x0a\0\x20" + 28 * b"x",
            b"\0\x09\0\1" + bytes(9),
            b"\0\5\0\1",
            b"\0\0\0\5" + bytes(9),
        ):
            sent = [(junk, f"198.51.{i >> 8}.{i & 255}", 1) for i in range(300)]
            found.datagrams(*sent[:150], (counts(2, number=1), *known), *sent[150:])
        figures = found.plugin.counters.as_dict()
        self.assertEqual((1, 1, 1), (figures["sessions"], figures["domains"], figures["templates"]))
        self.assertEqual(0, figures["sessions_evicted"])
        self.assertEqual(6 * 300, sum(n for reason, n in found.errors.items() if reason != "sequence_duplicate"))
        found.datagrams((self.GIVEN, "203.0.113.1", 1))
        self.assertEqual(2, found.plugin.counters.as_dict()["sessions"])

    def test_templates_from_everywhere(self):
        """Sessions that give no record make room: a new exporter is taken, the known one stays."""
        found = Collecting(self, max_sessions=50)
        found.datagrams((self.GIVEN, "192.0.2.1", 1))
        for first in range(0, 300, 100):
            found.datagrams(*((TOLD, f"198.51.100.{i % 250}", 1 + i // 250) for i in range(first, first + 100)))
        found.datagrams((TOLD, "203.0.113.1", 1))
        found.datagrams(*((TOLD, f"198.51.101.{i}", 1) for i in range(200)))
        found.datagrams((counts(3), "203.0.113.1", 1), (counts(4, number=1), "192.0.2.1", 1))
        self.assertEqual([1, 3, 4], counts_of(found.rows))
        figures = found.plugin.counters.as_dict()
        self.assertEqual((50, 50), (figures["sessions"], figures["templates"]))
        self.assertEqual((502 - 50, {}), (figures["sessions_evicted"], found.errors))

    def test_memory_of_all(self):
        """At the limits of templates and domains of all sessions, those that give no record make room."""
        many = message(a_set(2, *(template(300 + i, (4, 1)) for i in range(20))))
        for option, octets in (
            ("max_templates_in_all", [many]),
            ("max_domains_in_all", [message(domain=d) for d in range(20)]),
        ):
            found = Collecting(self, **{option: 100})
            found.datagrams((self.GIVEN, "192.0.2.1", 1))
            for i in range(20):
                found.at(1000.0 + i)
                found.datagrams(*((one, f"198.51.100.{i}", 1) for one in octets))
            found.datagrams(
                (TOLD, "203.0.113.1", 1), (counts(3), "203.0.113.1", 1), (counts(4, number=1), "192.0.2.1", 1)
            )
            self.assertEqual(([1, 3, 4], {}), (counts_of(found.rows), found.errors), option)
            kept = found.plugin._kept
            self.assertTrue(kept.templates <= 100 and kept.domains <= 100)
            for session in list(found.plugin.sessions()):
                found.plugin.reception.datagrams.forget(session)
            self.assertEqual((0, 0, 0), (kept.templates, kept.domains, kept.fields))

    def test_ended_in_a_wake_up(self):
        """A session that makes room for another one of the same datagrams leaves nothing behind, and may come again."""
        found = Collecting(self, max_sessions=2)
        peers = [(f"198.51.100.{i}", 1) for i in (1, 2, 3, 1, 2, 3)]
        found.datagrams(*((TOLD, *peer) for peer in peers[:2]))
        found.datagrams(*((TOLD, *peer) for peer in peers))
        self.assertEqual(2, found.plugin._kept.templates)

    def test_datagrams_and_connections(self):
        """Each transport has its own places."""
        found = Collecting(self, max_sessions=3, max_sessions_of_address=3)
        found.datagrams(*((self.GIVEN, f"192.0.2.{i}", 1) for i in range(5)))
        self.assertEqual({"limit_sessions": 2}, found.errors)
        connections = [found.connect(f"192.0.2.{i}") for i in range(3)]
        self.assertFalse(any(connection.closed for connection in connections))

    def test_connections_of_one_host(self):
        """A host with silent connections makes room for others, and theirs stay."""
        found = Collecting(self, max_sessions=4)
        kept = found.connect("192.0.2.1")
        kept.send(self.GIVEN)
        silent = [found.connect("198.51.100.1", port) for port in range(20)]
        new = found.connect("192.0.2.2")
        new.send(self.GIVEN)
        self.assertEqual([False, False], [kept.closed, new.closed])
        self.assertEqual(2, sum(not connection.closed for connection in silent))
        found.wait()
        self.assertEqual([1, 1], counts_of(found.rows))

    def test_largest_holder(self):
        """Beyond max_buffered the connections of the address that holds most are closed, not the one that came last."""
        found = Collecting(self, max_buffered=1000)
        start = message(bytes(400))[:100]
        good = [found.connect(f"192.0.2.{i}") for i in range(3)]
        for connection in good:
            connection.send(start)
        bad = [found.connect("198.51.100.1", port) for port in range(20)]
        for connection in bad:
            connection.send(start)
        good[0].send(start[:50])
        self.assertFalse(any(connection.closed for connection in good))
        self.assertEqual(6, sum(not connection.closed for connection in bad))
        self.assertEqual({"limit_buffered": 14}, found.errors)
        for connection in (*good, *bad):
            connection.end()
        self.assertEqual((0, {}), (found.plugin.reception._buffered, found.plugin.reception._held))


class MalformedTests(SynchronousTestCase):
    """What an exporter may send wrongly, and for how long."""

    def test_framing(self):
        """ERR-2, TCP-1: where no message can begin the connection is closed; the messages before are kept."""
        for wrong in ("0009001000000000", "000a000f00000000", "000a000000000000"):
            found = Collecting(self)
            connection = found.connect()
            connection.send(TOLD + counts(1) + hexed(wrong))
            self.assertTrue(connection.closed, wrong)
            found.wait()
            self.assertEqual([1], counts_of(found.rows))
            self.assertEqual({"framing": 1}, found.errors)
            self.assertEqual(1, len(found.heard("192.0.2.1:40000 is closed: no IPFIX message begins with")))

    def test_in_a_row(self):
        """ERR-2, ERR-3: a stream is closed after three malformed messages in a row, not after more apart."""
        found = Collecting(self)
        connection = found.connect()
        connection.send(TOLD)
        for number in range(5):
            connection.send(CUT_SET + CUT_SET + counts(number, number=number))
        self.assertFalse(connection.closed)
        connection.send(CUT_SET * 2)
        self.assertFalse(connection.closed)
        connection.send(CUT_SET)
        self.assertTrue(connection.closed)
        found.wait()
        self.assertEqual([0, 1, 2, 3, 4], counts_of(found.rows))
        self.assertEqual({"set_length": 13}, found.errors)
        self.assertEqual(1, len(found.heard("192.0.2.1:40000 is closed: 3 malformed messages in a row")))

    def test_records_in_a_row(self):
        """ERR-3: the same where records of variable length are cut, which is seen only when they are decoded."""
        told = message(a_set(2, COUNTER, template(257, (82, VARIABLE))))
        cut, good = message(a_set(257, b"\5abcd")), message(a_set(257, varying(b"eth0")))
        found = Collecting(self)
        bad, fair = found.connect(port=1), found.connect(port=2)
        bad.send(told)
        fair.send(told)
        found.wait()
        for _ in range(3):
            self.assertFalse(bad.closed)
            bad.send(cut)
            fair.send(cut + cut + good)
            found.wait()
        self.assertTrue(bad.closed)
        self.assertFalse(fair.closed)
        self.assertEqual([{"interfaceName": b"eth0"}] * 3, found.rows)
        self.assertEqual(9, found.errors["record"])
        again = found.connect(port=3)
        again.send(told + cut * 7)
        self.assertFalse(again.closed)
        found.wait()
        self.assertFalse(again.closed)  # a good one was among them
        again.send(cut * 3)
        found.wait()
        self.assertTrue(again.closed)
        # The log has it once a minute for each exporter, not for each connection.
        self.assertEqual(1, len(found.heard("is closed: 3 malformed messages in a row")))

    def test_datagrams_go_on(self):
        """ERR-2: over UDP a sender is never shut out, since anyone can forge its address."""
        found = Collecting(self)
        peer = "192.0.2.1", 1000
        found.datagrams((TOLD, *peer), *[(CUT_SET, *peer)] * 10, (counts(1), *peer))
        self.assertEqual([1], counts_of(found.rows))
        self.assertEqual({"set_length": 10}, found.errors)


class LogTests(SynchronousTestCase):
    """What the log says, at most once a minute of a kind and exporter."""

    def says(self, text, *messages, kind="tcp"):
        found = Collecting(self)
        if kind == "tcp":
            connection = found.connect()
            for octets in messages:
                connection.send(octets)
            found.wait()
        else:
            found.datagrams(*((octets, "192.0.2.1", 1000) for octets in messages))
        return found.heard(text)

    def test_malformed(self):
        """ERR-1: a malformed message is logged with its reason, once for many."""
        (line,) = self.says("malformed and dropped", TOLD, CUT_SET, CUT_SET, kind="udp")
        why = "a message is malformed and dropped: set_length: set 256 has the length 3"
        self.assertEqual(f"col1: 192.0.2.1, domain 1: {why}", line)

    def test_unknown_set(self):
        """SET-6: a set with an id that means nothing is left out with a warning; data behind it are read."""
        octets = message(a_set(2, COUNTER), a_set(77, b"1234"), a_set(77, b"1234"), a_set(256, hexed("00000001")))
        for kind in ("tcp", "udp"):
            self.assertEqual(1, len(self.says("a set with the reserved id 77 is left out", octets, octets, kind=kind)))

    def test_sequence(self):
        """ERR-4: lost records are logged."""
        (line,) = self.says("show a loss", TOLD, counts(1), counts(2, number=5))
        self.assertIn("a loss of 4 records", line)

    def test_withdrawal(self):
        """WD-4: withdrawing a template that is not known changes nothing and is logged; the connection stays."""
        found = Collecting(self)
        connection = found.connect()
        connection.send(TOLD + message(a_set(2, hexed("01010000"))) + counts(1))
        found.wait()
        self.assertEqual([1], counts_of(found.rows))
        self.assertFalse(connection.closed)
        self.assertEqual(1, len(found.heard("withdraws the unknown template 257")))

    def test_templates_again(self):
        """WD-5: known templates that come again are logged over TCP, alone or beside new ones, and not over UDP."""
        more = message(a_set(2, COUNTER, template(257, (4, 1))))
        for messages in ((TOLD, TOLD), (TOLD, more), (TOLD, message(a_set(3, options_template(300, 1, (4, 1)))), TOLD)):
            self.assertEqual(1, len(self.says("known templates were sent again", *messages)))
            self.assertEqual([], self.says("known templates were sent again", *messages, kind="udp"))
        self.assertEqual(
            [], self.says("known templates were sent again", TOLD, message(a_set(2, template(257, (4, 1)))))
        )

    def test_changed(self):
        """WD-6: another template for a live id takes its place and is logged; the connection stays."""
        found = Collecting(self)
        connection = found.connect()
        connection.send(TOLD + counts(1) + message(a_set(2, template(256, (2, 4))), number=1) + counts(2, number=1))
        found.wait()
        self.assertEqual([{"octetDeltaCount": 1}, {"packetDeltaCount": 2}], found.rows)
        self.assertFalse(connection.closed)
        self.assertEqual(1, len(found.heard("template 256 has changed")))


class ClockSetTests(SynchronousTestCase):
    """Somebody sets the clock while exporters send."""

    def collecting(self, **options):
        found = Collecting(self, **options)
        found.set_by = 1_000_000.0
        return found

    def test_sessions_and_templates_stay(self):
        """Over UDP and TCP, an hour back and two forward: nobody is forgotten, every record is read by its template."""
        found = self.collecting(template_lifetime=600.0, idle_timeout=1800.0)
        stream = found.connect()
        stream.send(TOLD)
        found.datagrams((TOLD, "192.0.2.9", 1))
        for number, step in enumerate((-3600.0, 7200.0, -100_000.0, 200_000.0)):
            found.set_by += step
            found.datagrams((counts(number, number=number), "192.0.2.9", 1))
            found.datagrams((TOLD, "192.0.2.10", number))  # a new one makes room by forgetting idle ones
            stream.send(counts(number + 100, number=number))
            found.wait()
            found.plugin.wake(found.now)
        self.assertEqual([0, 100, 1, 101, 2, 102, 3, 103], counts_of(found.rows))
        errors = {reason: n for reason, n in found.errors.items() if n}
        self.assertEqual(({}, {}, False), (errors, dict(found.plugin.counters.lost), stream.closed))

    def test_durations_go_on(self):
        """What was silent before a step counts: an hour back does not prolong it, an hour forward does not end it."""
        for step in (-3600.0, 3600.0):
            found = self.collecting(idle_timeout=100.0)
            found.datagrams((TOLD, "192.0.2.9", 1))
            stream = found.connect()
            found.at(found.now + 60)
            found.set_by += step
            found.at(found.now + 30)
            self.assertEqual((2, False), (found.plugin.counters.figures["sessions"](), stream.closed))
            found.at(found.now + 11)
            self.assertEqual((1, True), (found.plugin.counters.figures["sessions"](), stream.closed))

    def test_parked_sets(self):
        """A set waits for its template as long as `park` says, and its row has the time of its arrival."""
        found = self.collecting(park=30.0)
        found.datagrams((counts(7), "192.0.2.9", 1))
        found.set_by += 3600.0
        found.at(found.now + 20)
        found.datagrams((TOLD, "192.0.2.9", 1))
        (batch,) = found.batches
        (row,) = batch.rows()
        self.assertEqual((7, int(1000 * (found.now - 20))), (row["octetDeltaCount"], row["received_ms"]))
        found.datagrams((message(a_set(300, hexed("00000008")), number=1), "192.0.2.9", 1))
        found.set_by -= 7200.0
        found.at(found.now + 31)
        self.assertEqual(1, found.errors["no_template_dropped"])
