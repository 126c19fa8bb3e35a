"""Messages of rtnetlink, against octets written out after rtnetlink(7) and linux/if_link.h."""

import socket
import struct
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.errors import MessageError
from ulogd_tw.transports.netlink import rtnetlink


def message(kind, body):
    """With nlmsghdr."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 7, 0) + body


def newlink(name, flags=1):
    """RTM_NEWLINK of interface 3: ifinfomsg, IFLA_MTU, IFLA_IFNAME."""
    name = name + bytes(-len(name) % 4)
    body = struct.pack("=BxHiII", 0, 1, 3, flags, 0) + struct.pack("=HHI", 8, 4, 1500)
    return message(16, body + struct.pack("=HH", 4 + len(name), 3) + name)


class LinkTests(SynchronousTestCase):
    """What a message says of an interface."""

    def test_link(self):
        """Number, name, whether it is up (IFF_UP); a name that is no UTF-8 is kept as far as it is text."""
        self.assertEqual(rtnetlink.Link(3, "veth1", False, True), rtnetlink.link(newlink(b"veth1\0")))
        self.assertEqual(rtnetlink.Link(3, "veth1", False, False), rtnetlink.link(newlink(b"veth1\0", 0)))
        self.assertEqual("eth\ufffd", rtnetlink.link(newlink(b"eth\xff\0")).name)

    def test_other_messages(self):
        """RTM_NEWADDR and an interface without a name tell nothing."""
        self.assertIsNone(rtnetlink.link(message(20, struct.pack("=BxHiII", 0, 1, 3, 0, 0))))
        self.assertIsNone(rtnetlink.link(message(16, struct.pack("=BxHiII", 0, 1, 3, 0, 0))))

    def test_cut(self):
        """Every cut is refused."""
        whole = newlink(b"veth1\0")
        for size in range(len(whole)):
            self.assertRaises(MessageError, rtnetlink.link, whole[:size])

    def test_request(self):
        """RTM_GETLINK, NLM_F_REQUEST and NLM_F_DUMP, ifinfomsg of zeros."""
        self.assertEqual((18, 0x301, bytes(16)), rtnetlink.all_links())

    def test_attributes(self):
        """The last one of a name counts, flags of its type do not; an attribute of no length is refused."""
        head = struct.pack("=BxHiII", 0, 1, 3, 1, 0)
        names = struct.pack("=HH4s", 8, 3, b"abc") + struct.pack("=HH4s", 7, 0x8003, b"de")
        self.assertEqual("de", rtnetlink.link(message(16, head + names)).name)
        self.assertRaises(MessageError, rtnetlink.link, message(16, head + bytes(8)))
        self.assertIsNone(rtnetlink.link(message(16, b"\7" + head[1:] + names)))

    def test_gone(self):
        """RTM_DELLINK."""
        octets = newlink(b"veth1\0")
        octets = octets[:4] + struct.pack("=H", 17) + octets[6:]
        self.assertEqual(rtnetlink.Link(3, "veth1", True, True), rtnetlink.link(octets))

    def test_against_the_system(self):
        """The kernel's own answer has loopback as the C library tells it."""
        self.assertIn((socket.if_nametoindex("lo"), "lo"), [(link.number, link.name) for link in rtnetlink.links()])


class ImportTests(SynchronousTestCase):
    """When pyroute2 is loaded."""

    def test_at_need(self):
        """The service, its configuration and its plugins do not load it, nor does a look at all links."""
        program = (
            "import sys, ulogd_tw.service, ulogd_tw.tap, ulogd_tw.plugins.filters.ifindex, "
            "ulogd_tw.plugins.inputs.nfct, ulogd_tw.operating.doctor; "
            "from ulogd_tw.transports.netlink import rtnetlink; rtnetlink.links(); sys.exit('pyroute2' in sys.modules)"
        )
        self.assertEqual(0, subprocess.run([sys.executable, "-c", program]).returncode)
