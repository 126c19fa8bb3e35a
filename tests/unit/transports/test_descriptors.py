"""Sockets that are handed on: by name, in this process, to an executed one, and from systemd."""

import json
import os
import socket

from twisted.trial.unittest import TestCase

from ulogd_tw.transports.descriptors import ENVIRONMENT, Descriptors, bound_name, name_of


class DescriptorsTests(TestCase):
    """By name."""

    def setUp(self):
        self.here, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.here.close)
        self.addCleanup(self.peer.close)
        self.descriptors = Descriptors()
        self.addCleanup(self.descriptors.release)

    def test_what_the_kernel_holds_comes_to_the_next_owner(self):
        self.descriptors.opened("a", self.here)
        self.peer.send(b"before")
        self.descriptors.hold()
        self.here.close()
        self.peer.send(b"between")
        taken = self.descriptors.take("a")
        self.addCleanup(taken.close)
        self.assertEqual([taken.recv(99), taken.recv(99)], [b"before", b"between"])
        self.assertIsNone(self.descriptors.take("a"))

    def test_closed_and_forgotten_owners_are_not_kept(self):
        self.descriptors.opened("closed", self.here)
        self.here.close()
        self.descriptors.opened("gone", socket.socket(socket.AF_UNIX))
        self.assertEqual(self.descriptors.names(), {})

    def test_release(self):
        self.descriptors.opened("a", self.here)
        self.descriptors.hold()
        self.here.close()
        self.assertEqual(self.descriptors.release(), ["a"])
        self.assertRaises(ConnectionRefusedError, self.peer.send, b"x")

    def test_notes(self):
        """The former owner may say them after the next one has taken the socket."""
        self.descriptors.opened("a", self.here)
        self.assertIsNone(self.descriptors.notes("a"))
        self.descriptors.hold()
        self.assertTrue(self.descriptors.holds("a"))
        self.addCleanup(self.descriptors.take("a").close)
        self.descriptors.note("a", drops=7)
        self.assertEqual(self.descriptors.notes("a"), {"drops": 7})
        self.descriptors.release()
        self.assertFalse(self.descriptors.holds("a"))

    def test_to_an_executed_process(self):
        self.descriptors.opened("a", self.here)
        self.descriptors.hold()
        self.descriptors.note("a", at=3)
        environment = self.descriptors.environment()
        ((number, notes),) = json.loads(environment[ENVIRONMENT]).values()
        self.assertTrue(os.get_inheritable(number))
        self.assertEqual(notes, {"at": 3})
        executed = Descriptors()
        executed.inherit(environment)
        self.assertFalse(os.get_inheritable(number))
        self.assertEqual(environment, {})  # a child of its own shall not take them for its
        self.peer.send(b"x")
        taken = executed.take("a")
        self.assertEqual(taken.recv(9), b"x")
        self.assertEqual(executed.notes("a"), {"at": 3})
        self.descriptors._kept.clear()  # the number is the socket's now
        taken.close()

    def test_from_systemd(self):
        """It gives names and numbers; the service's own, with notes, go before them."""
        found = Descriptors()
        number, other = os.dup(self.here.fileno()), os.dup(self.here.fileno())
        found.inherit(
            {ENVIRONMENT: json.dumps({"b": [other, {"at": 1}]})}, [("a", number, {}), ("b", os.dup(other), {})]
        )
        self.peer.send(b"x")
        taken = found.take("a")
        self.addCleanup(taken.close)
        self.assertEqual((taken.recv(9), found.notes("a")), (b"x", {}))
        self.addCleanup(found.take("b").close)
        self.assertEqual(found.notes("b"), {"at": 1})

    def test_odd_environments(self):
        for text in ("{", "[]", '{"a": 3}', '{"a": [99999, {}]}', '{"a": ["x", {}]}', "null"):
            found = Descriptors()
            found.inherit({ENVIRONMENT: text})
            self.assertEqual(found.release(), [], text)

    def test_names(self):
        """Kind and address; systemd's form of them is that of `operating.notify`."""
        self.assertEqual(bound_name(socket.SOCK_DGRAM, 0, ("::1", 4739, 0, 0)), "udp/::1/4739")
        self.assertEqual(bound_name(socket.SOCK_STREAM, 0, ("0.0.0.0", 4739)), "tcp/0.0.0.0/4739")
        self.assertEqual(bound_name(socket.SOCK_STREAM, 132, ("0.0.0.0", 4739)), "sctp/0.0.0.0/4739")
        self.assertEqual(name_of("netlink", "ct1", 12, ""), "netlink/ct1/12/")
