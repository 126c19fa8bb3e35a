"""The flows that NFCT follows outlive a restart: those that ended meanwhile are reported once."""

import json
import logging
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.netfilter.messages import UPDATE
from tests.unit.netfilter.test_followed_flows import Table, octets
from ulogd_tw.core.counters import Counters
from ulogd_tw.metering.kept_connections import KeptConnections
from ulogd_tw.metering.kept_connections import threads as kept_threads


class _Plugin:
    """What it asks of NFCT."""

    instance = "ct1"
    log = logging.getLogger("tests.unit")

    def __init__(self):
        self.counters = Counters("NFCT")
        self.log = self
        self.said = []

    def info(self, text, **fields):
        self.said.append(text.format(**fields))

    error = info

    def fault(self, error):
        raise error


class Run(Table):
    """One run of NFCT, without a kernel; threads do their work at once."""

    def __init__(self, directory, **options):
        super().__init__(**options)
        self.plugin = _Plugin()
        self.clock = Clock()
        self.clock.getThreadPool = lambda: ThreadPool
        self.kept = KeptConnections(directory, 1.0, self.flows, self.plugin, self.clock)
        self.kept.begin()

    def dump(self, *idents, packets=1):
        """The kernel has these flows."""
        self.flows.begin()
        self.part([octets(UPDATE, ident, packets) for ident in idents])
        self.finish()

    def killed(self):
        """Its files are as they are."""
        self.kept.stopped = True

    @property
    def ended_ports(self):
        return sorted(row["orig.l4.sport"] for row in self.rows)


class KeptTests(SynchronousTestCase):
    """Two runs in one directory."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)

        def at_once(reactor, pool, call, *arguments):
            from twisted.internet.defer import maybeDeferred

            return maybeDeferred(call, *arguments)

        self.patch(kept_threads, "deferToThreadPool", at_once)

    def run_of(self, *idents, **options):
        run = Run(self.directory, **options)
        run.dump(*idents)
        return run

    def test_ended_meanwhile(self):
        """Of both families, with the counters that were known."""
        first = self.run_of(1, 2, 3, 4)
        self.successResultOf(first.kept.stop())
        then = Run(self.directory)
        self.assertEqual(4, then.kept.restored)
        then.dump(2, 3)
        self.assertEqual([1, 4], then.ended_ports)
        self.assertEqual({4}, {row["ct.event"] for row in then.rows})

    def test_reported_before_a_kill(self):
        """Their end is not reported again, though the file still has them; also where nothing was saved since."""
        first = self.run_of(1, 2, 3, 4)
        first.clock.advance(1.0)
        first.ended(1)
        first.dump(2, 3)  # 4 has gone without an event
        first.killed()
        self.assertEqual([1, 4], first.ended_ports)
        then = Run(self.directory)
        then.dump(2)
        self.assertEqual([3], then.ended_ports)

    def test_the_list_of_ends_is_bounded(self):
        """Each saving leaves the later ends only."""
        first = self.run_of(*range(100))
        for ident in range(50):
            first.ended(ident)
            first.clock.advance(1.0)
        size = (self.directory / "connections.ended").stat().st_size
        self.assertLess(size, 5 * 8)
        self.assertEqual(0o600, (self.directory / "connections").stat().st_mode & 0o777)

    def test_nothing_new(self):
        """Is not written again."""
        first = self.run_of(1, 2)
        first.clock.advance(1.0)
        before = (self.directory / "connections").stat()
        first.clock.advance(5.0)
        self.assertEqual(before.st_mtime_ns, (self.directory / "connections").stat().st_mtime_ns)

    def test_reports_go_on(self):
        """With active_timeout the last row has what came since the row before, as if there had been no restart."""
        first = Run(self.directory, active_ms=50_000)
        first.dump(1, packets=7)
        self.assertEqual([7], [row["orig.raw.pktcount"] for row in first.rows])
        self.successResultOf(first.kept.stop())
        then = Run(self.directory, active_ms=50_000)
        then.ended(1, packets=9)
        self.assertEqual([2], [row["orig.raw.pktcount"] for row in then.rows])

    @given(st.data())
    def test_damage(self, data):
        """A file that is cut or changed is set aside, counted and said; nothing of it is taken."""
        path = self.directory / "connections"
        if not hasattr(self, "whole"):
            first = self.run_of(1, 2)
            self.successResultOf(first.kept.stop())
            self.whole = path.read_bytes()
        if data.draw(st.booleans()):
            wrong = self.whole[: data.draw(st.integers(0, len(self.whole) - 1))]
        else:
            at = data.draw(st.integers(self.whole.index(b"\n") + 1, len(self.whole) - 13))
            wrong = self.whole[:at] + bytes([self.whole[at] ^ data.draw(st.integers(1, 255))]) + self.whole[at + 1 :]
        path.write_bytes(wrong)
        then = Run(self.directory)
        self.assertEqual((0, 1), (then.kept.restored, then.plugin.counters.errors["state"]))
        self.assertIn("connections.aside", then.plugin.said[0])

    def test_of_a_newer_release(self):
        """It is there for the newer release."""
        octets_ = json.dumps({"ulogd_tw": "connections", "version": 2}).encode() + b"\nnew"
        (self.directory / "connections").write_bytes(octets_)
        then = Run(self.directory)
        self.assertEqual(1, then.plugin.counters.errors["state"])
        self.assertEqual(octets_, (self.directory / "connections.aside").read_bytes())

    def test_too_large(self):
        with open(self.directory / "connections", "wb") as file:
            file.truncate(100 << 20)
        then = Run(self.directory, most=1000)
        self.assertEqual(1, then.plugin.counters.errors["state"])
