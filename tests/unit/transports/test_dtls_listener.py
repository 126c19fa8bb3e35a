"""Listening for DTLS, in memory with a Clock: who gets in, what a flood of others leaves, who begins anew."""

import os
import socket
from collections import Counter

from hypothesis import strategies as st
from twisted.internet import task

from tests.support import given
from tests.unit.collecting.doubles import slab_of
from tests.unit.transports.test_dtls import DtlsCase
from ulogd_tw.transports.dtls.layer import UNKNOWN, is_unknown
from ulogd_tw.transports.dtls.listener import DtlsGate, DtlsListener
from ulogd_tw.transports.tls.credentials import Credentials

HERE, THERE, FAR = ("192.0.2.9", 4711), ("192.0.2.66", 4711), ("192.0.2.9", 4712)


class FakeSocket:
    """A bound UDP socket that keeps what it shall send, by receiver."""

    family = socket.AF_INET

    def __init__(self):
        self.sent = {}
        self.open = True

    def setsockopt(self, *words): ...

    def getsockopt(self, level, name, size=0):
        return bytes(size) if size else 1 << 20

    def getsockname(self):
        return "0.0.0.0", 4740

    def sendmsg(self, parts, ancillary, flags, address):
        self.sent.setdefault(address, []).append(b"".join(parts))

    def fileno(self):
        return 99 if self.open else -1

    def close(self):
        self.open = False


class ListenCase(DtlsCase):
    """A gate, a socket, and exporters at several addresses."""

    def setUp(self):
        super().setUp()
        self.clock = task.Clock()
        self.connected, self.refused, self.over, self.heard, self.ends = [], [], Counter(), [], []
        self.settled = 0
        self.gate = self.make_gate()
        self.addCleanup(self.end)

    def make_gate(self, most=3, greetings=100, peers=(), admits=lambda peer: True):
        credentials = Credentials(self.files(self.collector), True, peers, datagrams=True)
        credentials.open()
        gate = DtlsGate(
            credentials, self.take, lambda peer, fault: self.refused.append((peer, fault.reason)), self.pass_over, most,
            10.0, greetings, admits, self.settle, self.clock,
        )  # fmt: skip
        self.socket = FakeSocket()
        self.listener = DtlsListener(self.socket, gate.received, 0.0)
        self.gate = gate
        return gate

    def end(self):
        from twisted.internet import reactor  # a listener takes itself from the reactor

        self.patch(reactor, "removeReader", lambda reader: None)
        self.listener.close()
        self.assertEqual(({}, {}, 0, 0), (
            self.listener.associations, self.listener.unfinished, len(self.gate), self.gate.associations))  # fmt: skip
        self.assertEqual([], self.clock.getDelayedCalls())

    def take(self, association):
        association.received = lambda message: self.heard.append((association.peer, message))
        association.lost = lambda reason: self.ends.append((association.peer, reason))
        self.connected.append(association)

    def pass_over(self, peer, reason):
        self.over[reason] += 1

    def settle(self):
        self.settled += 1

    def receive(self, *datagrams):
        """One wake-up: (peer, octets)."""
        self.gate.received(self.listener, slab_of([(octets, *peer) for peer, octets in datagrams]))

    def answers(self, peer):
        return self.socket.sent.pop(peer, [])

    def talk(self, end, peer, most=20):
        """Until neither has more to say, or this exporter has sent so many times."""
        end.take(b"")
        for _ in range(most):
            datagrams = end.datagrams()
            for datagram in datagrams:
                self.receive((peer, datagram))
            for datagram in self.answers(peer):
                end.take(datagram)
            if not datagrams:
                return

    def enter(self, peer=HERE):
        """An exporter whose handshake has ended."""
        end = self.client()
        self.talk(end, peer)
        self.assertTrue(end.secured)
        return end

    def say(self, end, peer, message):
        end.send(message)
        for datagram in end.datagrams():
            self.receive((peer, datagram))


class GateTests(ListenCase):
    """Exporters from their first datagram on."""

    def test_good(self):
        """Each exporter has an association of its own; messages come with who sent them; no timer is left."""
        ends = {peer: self.enter(peer) for peer in (HERE, THERE, FAR)}
        self.assertEqual((3, 0, 2), (self.gate.associations, len(self.gate), self.gate.of_host["192.0.2.9"]))
        self.assertEqual([], self.clock.getDelayedCalls())
        for peer, end in ends.items():
            self.say(end, peer, b"from %d" % peer[1])
        self.assertEqual([(HERE, b"from 4711"), (THERE, b"from 4711"), (FAR, b"from 4712")], self.heard)
        self.assertEqual(({}, []), (self.over, self.refused))

    def test_others_octets(self):
        """What is sealed for one association is nothing in another."""
        here, there = self.enter(HERE), self.enter(THERE)
        here.send(b"stolen")
        (datagram,) = here.datagrams()
        self.receive((THERE, datagram))
        self.say(there, THERE, b"good")
        self.assertEqual([(THERE, b"good")], self.heard)

    def test_flood(self):
        """Forged senders leave nothing, and get so many answers a second; a good cookie is always let in."""
        self.make_gate(greetings=5)
        end, hello = self.client(), self.hello(self.client())
        self.receive((HERE, self.hello(end)))
        (verify,) = self.answers(HERE)
        self.receive(*((("198.51.100.1", port), hello) for port in range(1, 101)))
        self.assertEqual((4, {"limit_greetings": 96}), (len(self.socket.sent), self.over))
        self.assertEqual(({}, {}), (self.listener.unfinished, self.listener.associations))
        self.assertEqual([], self.clock.getDelayedCalls())
        end.take(verify)
        self.talk(end, HERE)
        self.assertTrue(end.secured)
        self.clock.advance(0.5)
        self.receive(*((("198.51.100.1", port), hello) for port in range(101, 111)))
        self.assertEqual(96 + 8, self.over["limit_greetings"])

    def test_known_come_first(self):
        """Messages of an association are taken before the flood that came with them is looked at."""
        order = []
        end, hello = self.enter(), self.hello(self.client())
        self.connected[0].received = order.append
        self.gate._passed_over = lambda peer, reason: order.append(reason)
        end.send(b"good")
        (datagram,) = end.datagrams()
        self.receive((THERE, b"\0\x0a" + bytes(30)), (THERE, hello), (HERE, datagram))
        self.assertEqual([b"good", "tls_plain"], order)

    def test_passed_over(self):
        """What is no DTLS, or of no association, is counted by kind; only a stray message is answered, by less."""
        record = b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\x20" + bytes(32)
        for octets, reason in (
            (b"\0\x0a" + bytes(100), "tls_plain"), (b"GET / HTTP/1.0\r\n", "tls_garbage"), (b"", "tls_garbage"),
            (os.urandom(1) * 1500, "tls_garbage"), (b"\x15" + record[1:], "dtls_unknown"), (record, "dtls_unknown"),
            (self.hello(self.client())[:50], "tls_garbage"),
        ):  # fmt: skip
            self.over.clear()
            self.receive((HERE, octets))
            answers = self.answers(HERE)
            self.assertEqual(({reason: 1}, [UNKNOWN] if octets is record else []), (self.over, answers))
        self.assertLess(len(UNKNOWN), len(record))
        self.assertTrue(is_unknown(UNKNOWN))

    def test_not_admitted(self):
        """Whoever may not send gets no answer to a ClientHello."""
        asked = []
        self.make_gate(admits=lambda peer: asked.append(peer))
        self.receive((HERE, self.hello(self.client())))
        self.assertEqual(({}, [HERE]), (self.socket.sent, asked))

    def test_refused(self):
        """A peer of a wrong name is refused with the reason, and told so; nothing of it stays."""
        self.make_gate(peers=("x.example",))
        end = self.client()
        self.talk(end, HERE)
        self.assertEqual(([(HERE, "tls_name")], []), (self.refused, self.connected))
        self.assertEqual("tls_refused", end.fault.reason)
        self.assertEqual(({}, 0), (self.listener.unfinished, len(self.gate)))

    def test_most(self):
        """Beyond `most` handshakes the oldest makes room; one that does not end in time is refused."""
        for port in range(1, 6):
            self.talk(self.client(), ("192.0.2.7", port), most=2)
        self.assertEqual((3, [(("192.0.2.7", 1), "tls_limit"), (("192.0.2.7", 2), "tls_limit")]),
                         (len(self.gate), self.refused))  # fmt: skip
        self.refused.clear()
        self.enter(THERE)
        self.clock.advance(10.0)
        self.assertEqual(["tls_limit", "tls_timeout", "tls_timeout"], [reason for _, reason in self.refused])
        self.assertEqual((0, 1), (len(self.gate), self.gate.associations))

    def test_again(self):
        """A ClientHello that comes twice, early or late, begins no second handshake."""
        end = self.client()
        end.take(b"")
        self.receive((HERE, end.datagrams()[0]))
        end.take(self.answers(HERE)[0])
        (hello,) = end.datagrams()
        self.receive((HERE, hello))
        first = self.listener.unfinished.copy()
        flight = self.answers(HERE)
        self.receive((HERE, hello))
        self.assertEqual(first, self.listener.unfinished)
        for datagram in flight:
            end.take(datagram)
        self.talk(end, HERE)
        self.assertTrue(end.secured)
        self.receive((HERE, hello))
        self.assertEqual((1, 0), (len(self.connected), len(self.gate)))
        self.say(end, HERE, b"good")
        self.assertEqual([(HERE, b"good")], self.heard)

    @given(st.binary(max_size=200), st.integers(0, 3))
    def test_anything(self, octets, step):
        """Whatever comes, before, within and after a handshake, raises nothing and harms nobody else."""
        self.clock.advance(60.0)
        good, end = self.enter(THERE), self.client()
        for number in range(4):
            if number == step:
                self.receive((HERE, octets), (FAR, octets))
            if not end.secured and end.fault is None:
                self.talk(end, HERE, most=1)
        self.receive((THERE, octets))
        self.heard.clear()
        self.say(good, THERE, b"good")
        self.assertEqual([(THERE, b"good")], self.heard)


class AnewTests(ListenCase):
    """A known address and port begins a new handshake (RFC 6347 section 4.2.8)."""

    def test_replaced(self):
        """The old association carries on until the new one is up, and ends then."""
        old, new = self.enter(), self.client()
        self.talk(new, HERE, most=2)
        self.assertEqual((1, 1), (len(self.gate), self.gate.associations))
        self.say(old, HERE, b"old")
        self.assertEqual([(HERE, b"old")], self.heard)
        self.talk(new, HERE)
        self.assertTrue(new.secured)
        self.assertEqual([(HERE, "begun anew by the peer")], self.ends)
        self.assertEqual((0, 1), (len(self.gate), self.gate.associations))
        self.say(new, HERE, b"new")
        self.say(old, HERE, b"old")
        self.assertEqual([(HERE, b"old"), (HERE, b"new")], self.heard)

    def test_forged(self):
        """ClientHellos without a cookie, and handshakes that fail, leave the association as it is."""
        old = self.enter()
        for _ in range(5):
            self.receive((HERE, self.hello(self.client())))
        stranger = self.client(self.ca.issue("none", "x.example"), expects="other.example")
        self.talk(stranger, HERE)
        self.assertIsNotNone(stranger.fault)
        self.assertEqual([(HERE, "tls_refused")], self.refused)  # its alert is no matter of the old one
        self.clock.advance(10.0)
        self.say(old, HERE, b"old")
        self.assertEqual(([(HERE, b"old")], [], 0), (self.heard, self.ends, len(self.gate)))

    def test_begun_twice(self):
        """An exporter that restarts within its handshake has one handshake, the newer."""
        first, second = self.client(), self.client()
        self.talk(first, HERE, most=2)
        self.talk(second, HERE)
        self.assertEqual((True, 1, 0), (second.secured, self.gate.associations, len(self.gate)))
        self.assertEqual([], self.refused)


class EndTests(ListenCase):
    """Associations end."""

    def test_by_the_peer(self):
        """A close_notify ends it, is answered, and leaves nothing."""
        end = self.enter()
        end.close()
        self.talk(end, HERE)
        self.assertEqual(([(HERE, "closed by the peer")], 0), (self.ends, self.gate.associations))
        self.assertTrue(end.ended)
        self.enter()

    def test_by_us(self):
        """At a stop every exporter is told."""
        ends = {peer: self.enter(peer) for peer in (HERE, THERE)}
        for association in list(self.connected):
            association.close()
        for peer, end in ends.items():
            self.talk(end, peer)
            self.assertTrue(end.ended)
        self.assertEqual([(HERE, "closed by us"), (THERE, "closed by us")], self.ends)

    def test_not_wanted(self):
        """An association that its user closes at once hears the end, and no message is handed over."""
        self.gate.connected = lambda association: association.close()
        end = self.client()
        self.talk(end, HERE)
        self.assertEqual((True, 0, []), (end.ended, self.gate.associations, self.heard))
