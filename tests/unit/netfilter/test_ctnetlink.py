"""The walk through one message, and requests."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.netfilter.messages import DESTROY, NEW, UPDATE, attr, be, message, nest
from ulogd_tw.core.errors import MessageError
from ulogd_tw.netfilter import ctnetlink, requests
from ulogd_tw.netfilter.ctnetlink import walk

A, B = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02"


class WalkTests(SynchronousTestCase):
    """Where things lie in a message."""

    def test_events(self):
        """Type and flags tell a new flow from a change, and both from an end."""
        self.assertEqual([walk(message(e, 2)).event for e in (NEW, UPDATE, DESTROY)], [1, 2, 4])

    def test_places(self):
        """Offsets of values and of all headers, counted from the netlink header."""
        octets = message(NEW, 2, attr(3, be(4, 8)), nest(20, attr(1, be(8, 1))), attr(99, b"x"))
        found = walk(octets)
        self.assertEqual(found.fields, {"status": (24, 4), "start": (36, 8)})
        self.assertEqual(found.heads, (20, 28, 32, 44))
        self.assertEqual(ctnetlink.value(octets, "status", found), 8)
        self.assertIsNone(ctnetlink.value(octets, "mark", found))

    def test_last_one_counts(self):
        """Of an attribute that stands twice the last one is taken."""
        octets = message(NEW, 2, attr(8, be(4, 1)), attr(8, be(4, 2)))
        self.assertEqual(ctnetlink.value(octets, "mark", walk(octets)), 2)

    def test_refusals(self):
        """Each fault has its reason."""
        good = message(NEW, 2, attr(8, be(4, 1)))
        for reason, octets in (
            ("length", good[:10]),
            ("length", good[:-1]),
            ("type", message((0x200, 0), 2)),
            ("type", message((0x101, 0), 2)),
            ("family", message(NEW, 7)),
            ("attribute size", message(NEW, 2, attr(8, b"xx"))),
            ("attribute length", message(NEW, 2, b"\x03\x00\x08\x00")),
            ("attribute length", message(NEW, 2, b"\x0c\x00\x08\x00\0\0\0\0")),
            ("attribute length", message(NEW, 2, b"\0\0")),
            ("attribute length", message(NEW, 2, nest(20, b"\x10\x00\x01\x00"))),
        ):
            self.assertEqual(self.assertRaises(MessageError, walk, octets).reason, reason, octets)


class RequestTests(SynchronousTestCase):
    """Octets that the kernel's headers ask for."""

    def test_dumps(self):
        """All entries or one family's, with and without setting the counters to 0."""
        plain, zero = requests.dump(), requests.dump(10, zero=True)
        # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH; IPCTNL_MSG_CT_GET, _GET_CTRZERO.
        self.assertEqual((plain.kind, plain.flags, plain.payload), (0x101, 0x301, b"\0\0\0\0"))
        self.assertEqual((zero.kind, zero.flags, zero.payload), (0x103, 0x301, b"\x0a\0\0\0"))
        self.assertTrue(plain.dumps)
