"""Sessions of UDP by sender: what makes one, limits, allow lists, idle ones."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.networks import networks
from ulogd_tw.ipfix.exporters import Allowed, Exporters, sender


def exporters(keying="auto", most=10, most_of_address=10, allow="", idle=100):
    """A table with small limits."""
    return Exporters(keying, most, most_of_address, Allowed(networks(allow)), idle)


class ExportersTests(SynchronousTestCase):
    """One table for all listening sockets."""

    def take(self, table, host, port, now=1.0, place="udp"):
        """As the collector does: the session that is known, or a new one, or why there is none."""
        name = sender(host, port)
        return table.find(place, name, now) or table.admit(place, name, (host, port), now)

    def test_keys(self):
        """UDPT-7: the sender's address and port, and the listening socket; with address the port is nothing."""
        for keying, same_port in (("strict", False), ("auto", False), ("address", True)):
            table = exporters(keying)
            for first, second in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
                session = self.take(table, first, 5000)
                self.assertEqual((first, 5000), (session.peer, session.peer_port))
                self.assertIs(session, self.take(table, first, 5000))
                self.assertEqual(same_port, session is self.take(table, first, 5001))
                self.assertIsNot(session, self.take(table, second, 5000))
                self.assertIsNot(session, self.take(table, first, 5000, place="other"))

    def test_limits(self):
        """Sessions in all and of one address, where all have given records; what is known goes on."""
        table = exporters(most=3, most_of_address=2)
        known = self.proven(table, "192.0.2.1", 1)
        self.proven(table, "192.0.2.1", 2)
        self.assertEqual("limit_sessions_of_address", self.take(table, "192.0.2.1", 3))
        self.proven(table, "192.0.2.2", 1)
        self.assertEqual("limit_sessions", self.take(table, "192.0.2.3", 1))
        self.assertIs(known, self.take(table, "192.0.2.1", 1))
        self.assertEqual((3, []), (len(table), table.evicted))

    def proven(self, table, host, port, **more):
        """A session of which many Messages with records have come."""
        session = self.take(table, host, port, **more)
        session.proven, session.messages = True, 100
        return session

    def test_room(self):
        """A session without records makes room: the oldest of the network that has most of those."""
        table = exporters(most=5, most_of_address=5)
        kept = self.proven(table, "192.0.2.1", 1)
        other = self.take(table, "203.0.113.1", 1)
        flood = [self.take(table, f"198.51.100.{i}", 1) for i in range(3)]
        self.assertEqual(5, len(table))
        new = self.take(table, "203.0.113.200", 1)  # the third of its network; the other has three
        self.assertEqual([flood[0]], table.evicted)
        flood.append(self.take(table, "198.51.100.9", 1))
        self.assertEqual([flood[0], flood[1]], table.evicted)
        for port in range(2, 9):
            flood.append(self.take(table, "198.51.100.9", port))
        self.assertEqual({kept, other, new}, set(table) - set(flood))
        self.assertEqual(5, len(table))

    def test_room_of_an_address(self):
        """An address beyond its own limit makes room by itself, never others."""
        table = exporters(most=10, most_of_address=2)
        other = self.take(table, "198.51.100.1", 1)
        first, second, third = (self.take(table, "192.0.2.1", port) for port in (1, 2, 3))
        self.assertEqual([first], table.evicted)
        self.assertEqual({other, second, third}, set(table))

    def test_one_message(self):
        """A session of a few records that is silent for a minute makes room too; one of many does not."""
        table = exporters(most=2)
        short, long = self.proven(table, "192.0.2.1", 1), self.proven(table, "192.0.2.2", 1)
        short.messages = 2
        self.assertEqual("limit_sessions", self.take(table, "192.0.2.3", 1, now=30))
        new = self.take(table, "192.0.2.3", 1, now=70)
        self.assertEqual(([short], {long, new}), (table.evicted, set(table)))

    def test_mapped(self):
        """IPv4 addresses in IPv6 form are in the network of their IPv4 address."""
        table = exporters(most=3)
        first = self.take(table, "::ffff:192.0.2.1", 1)
        flood = [self.take(table, f"::ffff:198.51.100.{i}", 1) for i in range(9)]
        self.assertEqual({first, *flood[-2:]}, set(table))

    def test_candidate(self):
        """A candidate is remembered only when it enters."""
        table = exporters(allow="192.0.2.0/24")
        name = sender("192.0.2.1", 1)
        session = table.candidate("udp", name, ("192.0.2.1", 1), 1.0)
        self.assertEqual((0, None), (len(table), table.find("udp", name, 1.0)))
        self.assertIs(session, table.enter("udp", name, session, 1.0))
        self.assertIs(session, table.find("udp", name, 1.0))
        self.assertEqual("not_allowed", table.candidate("udp", name, ("198.51.100.1", 1), 1.0))

    def test_allow(self):
        """Networks and addresses of both families; an IPv4 address in IPv6 form is one."""
        table = exporters(allow="192.0.2.0/25, 192.0.2.128/26 2001:db8::/32 198.51.100.7")
        for host in ("192.0.2.0", "192.0.2.191", "::ffff:192.0.2.5", "2001:db8:ffff::1", "198.51.100.7"):
            self.assertNotEqual("not_allowed", self.take(table, host, 1), host)
            self.assertTrue(table.allows(host))
        for host in ("192.0.2.192", "192.0.1.255", "198.51.100.6", "2001:db9::", "::1", "fe80::1%eth0"):
            self.assertEqual("not_allowed", self.take(table, host, 1), host)
            self.assertFalse(table.allows(host))

    def test_idle(self):
        """UDPT-8: sessions end by their last message, in any keying, and may come again."""
        for keying in ("strict", "auto", "address"):
            table = exporters(keying, most_of_address=1)
            first = self.take(table, "192.0.2.1", 1, now=1)
            second = self.take(table, "192.0.2.2", 1, now=2)
            self.take(table, "192.0.2.1", 1, now=50)
            self.assertEqual([], list(table.forget_idle(101)))
            self.assertEqual([second], list(table.forget_idle(102)))
            self.assertEqual([first], list(table.forget_idle(150)))
            self.assertEqual(0, len(table))
            self.assertIsNot(first, self.take(table, "192.0.2.1", 1, now=151))

    def test_unite(self):
        """All ports of the address are one session from then on, until it is silent; other addresses are not."""
        table = exporters(most_of_address=3)
        home, other, third = (self.take(table, "192.0.2.1", port) for port in (1, 2, 3))
        stranger = self.take(table, "192.0.2.2", 2)
        self.assertEqual({home, other, third}, set(home.siblings))
        self.assertEqual([other, third], table.unite(home))
        for port in (1, 2, 3, 4):
            self.assertIs(home, self.take(table, "192.0.2.1", port, now=5))
        self.assertIs(stranger, self.take(table, "192.0.2.2", 2, now=5))
        self.assertEqual(2, len(table))
        self.assertEqual([], table.unite(home))
        self.assertEqual({home, stranger}, set(table.forget_idle(105)))
        again = self.take(table, "192.0.2.1", 1, now=106)
        self.assertIsNot(again, self.take(table, "192.0.2.1", 2, now=106))
