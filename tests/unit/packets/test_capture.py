"""Capture files: every form, every cut."""

import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.packets.wire import block, pcap, pcapng
from ulogd_tw.core.errors import MessageError
from ulogd_tw.packets import capture as module
from ulogd_tw.packets.capture import Capture

PACKETS = [(1.5, b"first packet"), (2.25, b""), (1_700_000_000.125, bytes(range(200)))]


def read(octets, *cuts):
    """Time and octets of each packet; the file comes in pieces."""
    capture, found, at = Capture(), [], 0
    for cut in (*sorted(cuts), len(octets)):
        try:
            packets = capture.feed(octets[at:cut])
        except MessageError as error:
            return [*found, *_plain(error.before)], error
        found += _plain(packets)
        at = cut
    return found, capture.waiting


def _plain(packets):
    return [
        (float(time), packets.octets[start : start + length].tobytes())
        for time, start, length in zip(packets.times, packets.starts.tolist(), packets.lengths.tolist(), strict=True)
    ]


forms = st.one_of(
    st.builds(lambda order, nano: lambda packets: pcap(packets, order=order, nanoseconds=nano),
              st.sampled_from("<>"), st.booleans()),
    st.builds(lambda order, resolution: lambda packets: pcapng(packets, order=order, resolution=resolution),
              st.sampled_from("<>"), st.sampled_from((None, 3, 9, 128 | 10))),
)  # fmt: skip


class CaptureTests(SynchronousTestCase):
    """pcap and pcapng."""

    @given(forms, st.lists(st.integers(0, 500), max_size=5))
    def test_forms(self, form, cuts):
        """Both byte orders and every resolution, in any pieces, give the same packets."""
        octets = form(PACKETS)
        self.assertEqual((PACKETS, 0), read(octets, *(cut for cut in cuts if cut < len(octets))))

    @given(forms, st.data())
    def test_cut(self, form, data):
        """A file that is cut gives the packets before that, and says that octets are left."""
        octets = form(PACKETS)
        whole = [len(form(PACKETS[:n])) for n in range(len(PACKETS) + 1)]
        size = data.draw(st.integers(0, len(octets)))
        found, waiting = read(octets[:size])
        n = sum(end <= size for end in whole[1:])
        self.assertEqual(PACKETS[:n], found)
        if size >= whole[0]:
            self.assertEqual(size - whole[n], waiting)

    @given(st.binary(max_size=200), forms, st.integers(24, 400), st.binary(min_size=1, max_size=8))
    def test_garbage(self, garbage, form, place, wrong):
        """Nothing but MessageError, whatever comes."""
        read(garbage)
        octets = form(PACKETS)
        read(octets[:place] + wrong + octets[place + len(wrong) :])

    def test_no_capture(self):
        """Other files are refused by name of what they begin with."""
        _, error = read(b"GIF89a" + bytes(40))
        self.assertIn("47494638", str(error))

    def test_lengths(self):
        """Impossible lengths end the file; what stood before them is there."""
        found, error = read(pcap(PACKETS[:1]) + bytes(8) + b"\xff\xff\xff\x7f" + bytes(4))
        self.assertEqual((PACKETS[:1], "packet 2 has 2147483647 octets"), (found, str(error)))
        _, error = read(pcapng(PACKETS[:1]) + b"\6\0\0\0" + b"\3\0\0\0" + bytes(12))
        self.assertIn("has the length 3", str(error))

    def test_interfaces(self):
        """Packets of several interfaces with their own links and clocks; simple packets; a second section."""
        section = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        one = block("<", 1, struct.pack("<HHI", 1, 0, 3))
        offset = struct.pack("<HHqHH", 14, 8, 1000, 0, 0)
        two = block("<", 1, struct.pack("<HHI", 113, 0, 0) + offset)
        packet = block("<", 6, struct.pack("<IIIII", 1, 0, 2_000_000, 2, 2) + b"ab")
        simple = block("<", 3, struct.pack("<I", 9) + b"abcd")
        unknown = block("<", 6, struct.pack("<IIIII", 7, 0, 0, 2, 2) + b"ab")
        capture = Capture()
        packets = capture.feed(section + one + two + packet + simple + unknown + pcapng(PACKETS[:1], order=">"))
        self.assertEqual([113, 1, 101], packets.links.tolist())
        self.assertEqual([1002.0, 0.0, 1.5], packets.times.tolist())
        self.assertEqual([b"ab", b"abc", b"first packet"], [octets for _, octets in _plain(packets)])

    def test_times(self):
        """A time before 1970 or after 2106 is none."""
        section = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        for offset, expected in ((-(2**63), 0.0), (2**63 - 1, 0.0), (2**32, 0.0), (2**32 - 2, 2.0**32 - 1), (-2, 0.0)):
            one = block("<", 1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHqHH", 14, 8, offset, 0, 0))
            packet = block("<", 6, struct.pack("<IIIII", 0, 0, 1_000_000, 2, 2) + b"ab")
            self.assertEqual([(expected, b"ab")], read(section + one + packet)[0], offset)

    def test_last_time(self):
        """The last nanosecond that there is is before the first that is none."""
        head = pcap([], nanoseconds=True)
        packets = Capture().feed(head + struct.pack("<IIII", 2**32 - 1, 999_999_999, 1, 1) + b"x")
        self.assertTrue(2**32 - 1 < packets.times[0] < 2**32, packets.times)

    def test_many_interfaces(self):
        """A section has so many interfaces at most."""
        self.patch(module, "MOST_INTERFACES", 3)
        section = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        one = block("<", 1, struct.pack("<HHI", 1, 0, 0))
        self.assertEqual(([], 0), read(2 * (section + 3 * one)))
        self.assertIn("more than 3 interfaces", str(read(section + 4 * one)[1]))
