"""What the log says in place of Twisted."""

import time

from twisted.internet.address import IPv4Address
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.logs import OutOfDescriptors


class OutOfDescriptorsTests(SynchronousTestCase):
    """Twisted's lines for each connection without a descriptor, as twisted.internet.tcp writes them."""

    def test_once_a_minute(self):
        """One line for all of them, with their number since the last one, an address and a way out."""
        said, now = [], [0.0]
        self.patch(OutOfDescriptors, "log", Logger("x", observer=lambda event: said.append(formatEvent(event))))
        self.patch(time, "monotonic", lambda: now[0])
        observer = OutOfDescriptors()
        tcp = Logger("twisted.internet.tcp", observer=observer)
        for place in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            tcp.info("EMFILE encountered; releasing reserved file descriptor.")
            tcp.info("EMFILE recovery: Closed socket from {address}", address=IPv4Address("TCP", place, 9))
            tcp.info("Re-reserving EMFILE recovery file descriptor.")
        self.assertEqual(1, len(said))
        now[0] = 61.0
        tcp.info("EMFILE recovery: Closed socket from {address}", address=("192.0.2.4", 9))
        self.assertEqual(2, len(said))
        self.assertIn("3 connections were closed, the last from 192.0.2.4", said[1])
        self.assertIn("LimitNOFILE", said[1])
