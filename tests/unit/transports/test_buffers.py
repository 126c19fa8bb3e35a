"""How much the kernel may queue, by options and memory."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports.netlink import buffers

MB = 1 << 20


class BuffersTests(SynchronousTestCase):
    """The limit on machines of several sizes."""

    def limit(self, memory, *options):
        self.patch(buffers, "memory", lambda: memory * MB)
        return buffers.limit(*options) / MB

    def test_memory(self):
        """A router of 256 MB gives 8 MB, a large machine 256 MB, whatever is small 1 MB."""
        self.assertEqual([8, 64, 256, 1], [self.limit(memory, 0) for memory in (256, 2048, 65536, 16)])

    def test_options(self):
        """receive_buffer goes before the memory, ulogd2's size raises it, its maximum goes before all."""
        self.assertEqual(100, self.limit(256, 100 * MB))
        self.assertEqual(20, self.limit(256, 0, 20 * MB))
        self.assertEqual(8, self.limit(256, 0, 217088))
        self.assertEqual(1085440 / MB, self.limit(65536, 0, 217088, 1085440))
        self.assertEqual(2, self.limit(65536, 100 * MB, 0, 2 * MB))
        self.assertEqual(8, self.limit(256, 0, 0, 100 * MB))

    def test_this_machine(self):
        """Its memory is more than its smallest queue."""
        self.assertGreater(buffers.memory(), buffers.LEAST)
