"""The filter program, run as the kernel runs it (Documentation/networking/filter.rst), on recorded and made events."""

import ipaddress
import random
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.netfilter.messages import DESTROY, any_message, attr, corpus, flow_tuple, message, ports, row
from ulogd_tw.core.networks import networks
from ulogd_tw.netfilter import bpf
from ulogd_tw.netfilter.flow_filter import Accept

NLATTR, NLATTR_NEST = 0xFFFFF00C, 0xFFFFF010


def _attribute(octets, start, end, kind):
    """nla_find: where the first attribute of this type is, else 0."""
    while end - start >= 4:
        length, found = struct.unpack_from("<HH", octets, start)
        if length < 4 or length > end - start:
            return 0
        if found & 0x3FFF == kind:
            return start
        start += (length + 3) & ~3
    return 0


def run(program, octets):
    """What the program returns; a load beyond the packet returns 0."""
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    a = x = at = 0
    memory = {}
    while True:
        code, true, false, k = steps[at]
        at += 1
        if code == 0x06:
            return k
        if code in (0x20, 0x30, 0x40, 0x50):
            if code == 0x20 and k == NLATTR:
                a = _attribute(octets, a, len(octets), x) if a <= len(octets) - 4 else 0
                continue
            if code == 0x20 and k == NLATTR_NEST:
                length = struct.unpack_from("<H", octets, a)[0] if a <= len(octets) - 4 else 1 << 16
                a = _attribute(octets, a + 4, a + length, x) if length <= len(octets) - a else 0
                continue
            size = 4 if code in (0x20, 0x40) else 1
            place = k + (x if code in (0x40, 0x50) else 0)
            if place + size > len(octets):
                return 0
            a = int.from_bytes(octets[place : place + size], "big")
        elif code == 0x00:
            a = k
        elif code == 0x01:
            x = k
        elif code == 0x60:
            a = memory[k]
        elif code == 0x02:
            memory[k] = a
        elif code == 0x07:
            x = a
        elif code == 0x54:
            a &= k
        elif code == 0x15:
            at += true if a == k else false
        elif code == 0x05:
            at += k
        else:
            raise AssertionError(f"code {code:#x}")


def chosen(octets, sources, destinations, protocols):
    """Whether a message is to be kept, by Python's own networks."""
    found = row(octets, 0.0)
    address = ipaddress.IPv4Address if octets[16] == 2 else ipaddress.IPv6Address
    for name, listed in (("orig.ip.saddr", sources), ("orig.ip.daddr", destinations)):
        if listed and (name not in found or not any(address(found[name]) in network for network in listed)):
            return False
    return not protocols or found.get("orig.ip.protocol") in protocols


_FOUR = st.tuples(st.sampled_from([0x0A4D0001, 0x0A4D0002, 0xC0000207, 0]), st.integers(0, 32)).map(
    lambda pair: ipaddress.ip_network(pair, strict=False)
)
_SIX = st.tuples(st.sampled_from([0xFD77 << 112 | 1, 0xFD77 << 112 | 2, 1 << 64]), st.integers(0, 128)).map(
    lambda pair: ipaddress.IPv6Network(pair, strict=False)
)
_NETWORKS = st.lists(st.one_of(_FOUR, _SIX), max_size=5)


class ProgramTests(SynchronousTestCase):
    """The program keeps what the options say."""

    @given(_NETWORKS, _NETWORKS, st.lists(st.sampled_from([1, 6, 17, 58, 132]), max_size=3), st.integers(0, 396))
    def test_recorded(self, sources, destinations, protocols, first):
        """Events of a real kernel, others in each example, any lists of both families."""
        self.check(Accept(sources, destinations, protocols), corpus()[first::397], sources, destinations, protocols)

    @given(st.randoms(use_true_random=False), _NETWORKS, st.lists(st.integers(0, 255), max_size=3))
    def test_any(self, generator, sources, protocols):
        """Attributes in any order, absent ones too."""
        messages = [any_message(random.Random(generator.random())) for _ in range(5)]
        self.check(Accept(sources, (), protocols), messages, sources, (), protocols)

    def check(self, accept, messages, sources, destinations, protocols):
        program = bpf.program(accept)
        if program is None:
            self.assertFalse(sources or destinations or protocols)
            return
        for octets in messages:
            kept = chosen(octets, sources, destinations, protocols)
            self.assertEqual(bool(run(program, octets)), kept, octets.hex())

    def test_the_other_family(self):
        """A list of one family keeps nothing of the other, and icmp is not ICMPv6."""
        six = ipaddress.ip_address("fd77::1").packed
        ping6 = message(DESTROY, 10, flow_tuple(1, six, six, 58, attr(7, b"\0\1")))
        four = message(DESTROY, 2, flow_tuple(1, b"\x0a\0\0\1", b"\x0a\0\0\2", 17, *ports(1, 2)))
        program = bpf.program(Accept(networks("10.0.0.0/8")))
        self.assertEqual([bool(run(program, octets)) for octets in (four, ping6)], [True, False])
        self.assertFalse(run(bpf.program(Accept(protocols=[1])), ping6))
        self.assertTrue(run(bpf.program(Accept(protocols=[1, 58])), ping6))

    def test_bounds(self):
        """Without a choice there is no program, nor with more networks than the kernel takes."""
        self.assertIsNone(bpf.program(Accept()))
        many = networks(" ".join(f"10.{i}.0.0/16" for i in range(250)) + " 2001:db8::/32" * 50)
        self.assertLessEqual(len(bpf.program(Accept(many))), 8 * 4096)
        self.assertIsNone(bpf.program(Accept(many * 5)))
