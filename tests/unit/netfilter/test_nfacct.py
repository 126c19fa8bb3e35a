"""Named counters of the kernel."""

import struct
from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.netfilter.messages import attr, be
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.netfilter import nfacct


def message(name, packets, octets, *more):
    """What the kernel sends of one counter: struct nlmsghdr, struct nfgenmsg, attributes."""
    counts = attr(2, be(8, packets)), attr(3, be(8, octets)), attr(4, be(4, 1))
    body = bytes(4) + attr(1, name) + b"".join(counts) + b"".join(more)
    return struct.pack("<IHHII", 16 + len(body), 0x700, 2, 1, 99) + body


class CodecTests(SynchronousTestCase):
    """Requests and answers."""

    def test_requests(self):
        """Dumps with and without setting to zero, and the probe, as the kernel's header has them."""
        self.assertEqual(
            [(r.kind, r.flags, r.payload) for r in (nfacct.dump(False), nfacct.dump(True), nfacct.probe())],
            [(0x701, 0x301, bytes(4)), (0x702, 0x301, bytes(4)), (0x701, 5, bytes(4) + b"\5\0\1\0\0\0\0\0")],
        )

    def test_counters(self):
        """A row for each, numbers of 64 bits, the time of the query."""
        messages = [message(b"http\0", 5, 2**63 + 1), message(b"a name of thirty-one octets....\0", 0, 0)]
        batch = nfacct.decode(messages, ALL, 1795394676.25, Counter())
        time = {"oob.time.sec": 1795394676, "oob.time.usec": 250000}
        self.assertEqual(list(batch.rows()), [
            {"sum.name": b"http", "sum.pkts": 5, "sum.bytes": 2**63 + 1} | time,
            {"sum.name": b"a name of thirty-one octets....", "sum.pkts": 0, "sum.bytes": 0} | time,
        ])  # fmt: skip
        for key in batch.schema.values():
            self.assertEqual(key, registry.ulogd[key.name])
        wanted = nfacct.decode(messages, {"sum.name"}, 1.0, Counter())
        self.assertEqual(list(wanted.schema), ["sum.name"])

    def test_refused(self):
        """Messages that are no counters are counted by what is wrong."""
        good = message(b"x\0", 1, 2)
        wrong = {
            "attribute length": good[:-2],
            "attribute missing": message(b"x\0", 1, 2)[:20],
            "attribute size": message(b"x\0", 1, 2, attr(2, b"abcd")),
            "type": good[:5] + b"\1" + good[6:],
            "length": good + b"\0",
        }
        for reason, octets in wrong.items():
            if reason != "length":
                octets = len(octets).to_bytes(4, "little") + octets[4:]
            refused = Counter()
            self.assertEqual(nfacct.decode([octets, good], ALL, 1.0, refused).n, 1)
            self.assertEqual(refused, {reason: 1})

    @given(st.integers(0, 80), st.integers(0, 80), st.binary(max_size=6))
    def test_damaged(self, end, at, patch):
        """Damaged messages raise nothing but MessageError."""
        whole = bytearray(message(b"http\0", 5, 6))
        whole[at % len(whole) : at % len(whole) + len(patch)] = patch
        try:
            nfacct.counter(bytes(whole[:end]))
        except MessageError as error:
            self.assertTrue(error.reason)
