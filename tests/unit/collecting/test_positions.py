"""Sequence Numbers of UDP exporters that outlive a kill."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.ipfix.test_netflow import record5, v5, v9
from tests.unit.ipfix.wire import COUNTER, a_set, hexed, message
from ulogd_tw.collecting.kept_numbers import KeptNumbers
from ulogd_tw.collecting.positions import Position, Positions, load, newest, resume
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporters import Allowed, Exporters, sender
from ulogd_tw.ipfix.limits import Limits

PLACE = "127.0.0.1:4739"
DATA = a_set(256, hexed("00000001"), hexed("00000002"), hexed("00000003"))
"""Three records."""


class Run:
    """A run of a collector, without sockets."""

    def __init__(self, path, most=1000, keying="strict"):
        self.counters = Counters("COLLECTOR")
        self.decoder = Decoder(ALL, self.counters, Limits())
        self.exporters = Exporters(keying, 10_000, 10_000, Allowed(()), 1800)
        self.exporters.heard = set()
        self.path, self.most = path, most
        self.positions = None

    def begin(self, now, places=(PLACE,)):
        """Read what the run before has left, and note from now on."""
        found = load(self.path, self.most) if os.path.exists(self.path) else []
        resumed = resume(found, places, self.decoder, self.exporters, 1800, now)
        self.positions = Positions(self.path, self.most)
        self.exporters.heard = set(self.exporters)
        self.note(now)
        return resumed

    def note(self, now):
        self.positions.note(self.exporters.heard, self.exporters, now)
        self.exporters.heard.clear()

    def take(self, *messages, host="192.0.2.1", port=5000, now=1000.0):
        name = sender(host, port)
        session = self.exporters.find(PLACE, name, now) or self.exporters.admit(PLACE, name, (host, port), now)
        for octets in messages:
            self.decoder.feed(session, octets, now)
        self.decoder.drain(now)
        self.note(now)
        return session

    @property
    def lost(self):
        return dict(self.counters.lost)


class PositionTests(SynchronousTestCase):
    """The first run is gone without a word; the second one counts."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "positions")
        self.first = Run(self.path)
        self.first.begin(1000.0)

    def again(self, now=1010.0, **options):
        then = Run(self.path, **options)
        then.begin(now)
        return then

    def test_records_of_ipfix(self):
        """In records: after three of them, number 10 shows that seven are missing."""
        self.first.take(message(a_set(2, COUNTER)), message(DATA, number=0))
        then = self.again()
        session = then.take(message(a_set(2, COUNTER), DATA, number=10), now=1010.0)
        self.assertEqual({"restart": 7}, then.lost)
        self.assertEqual((7, 7), (session.lost, session.lost_restart))

    def test_records_of_v5(self):
        self.first.take(v5(record5(), record5(), number=100))
        then = self.again()
        then.take(v5(record5(), number=150), now=1010.0)
        self.assertEqual({"restart": 48}, then.lost)

    def test_packets_of_v9(self):
        """In packets: 7 came, 8 to 11 did not."""
        self.first.take(v9(number=7))
        then = self.again()
        then.take(v9(number=12, uptime=110_000, seconds=1010), now=1010.0)
        self.assertEqual({"restart": 4}, then.lost)

    def test_nothing_missing(self):
        self.first.take(message(a_set(2, COUNTER)), message(DATA, number=0))
        then = self.again()
        then.take(message(DATA, number=3), now=1010.0)
        self.assertEqual({}, then.lost)

    def test_later_gaps_are_others(self):
        """Only the gap between the runs is one of the restart, whether it is there or not."""
        for number, expected in ((3, {"sequence": 4}), (13, {"restart": 10, "sequence": 4})):
            Path(self.path).unlink()
            self.first = Run(self.path)
            self.first.begin(1000.0)
            self.first.take(message(a_set(2, COUNTER), DATA, number=0))
            then = self.again()
            then.take(message(a_set(2, COUNTER), DATA, number=number), now=1010.0)
            then.take(message(DATA, number=number + 7), now=1010.0)
            self.assertEqual(expected, then.lost)

    def test_late_messages(self):
        """Such a Message of the gap is taken off again; the rest of the gap is lost."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        then = self.again()
        then.take(message(a_set(2, COUNTER), DATA, number=13), message(DATA, number=10), now=1010.0)
        self.assertEqual({"restart": 7}, then.lost)

    def test_a_restarted_exporter(self):
        """Numbers that begin anew are no loss."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=1_000_000))
        then = self.again()
        then.take(message(a_set(2, COUNTER), DATA, number=0, export_time=1010), now=1010.0)
        then.take(message(DATA, number=3, export_time=1011), now=1011.0)
        self.assertEqual({}, then.lost)

    def test_a_long_time(self):
        """An hour at 10,000 records a second is a loss; in ten seconds so many cannot have come."""
        for now, lost in ((4600.0 - 1900, {"restart": 17_000_000}), (1010.0, {})):
            Path(self.path).unlink(missing_ok=True)
            self.first = Run(self.path)
            self.first.begin(1000.0)
            self.first.take(message(a_set(2, COUNTER), DATA, number=0))
            then = self.again(now)
            then.take(message(a_set(2, COUNTER), DATA, number=17_000_003), now=now)
            self.assertEqual(lost, then.lost)

    def test_too_old(self):
        """Exporters silent for idle_timeout are forgotten."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        self.assertEqual(0, len(self.again(now=2900.0).exporters))

    def test_another_address(self):
        """What another socket had is of no use for this one."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        then = Run(self.path)
        self.assertEqual(0, then.begin(1010.0, places=("127.0.0.1:9996",)))

    def test_templates_unknown_after_the_start(self):
        """The first message tells what is missing before it, though its records wait for their template."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        then = self.again()
        then.take(message(DATA, number=5), message(DATA, number=8), now=1010.0)
        self.assertEqual({"restart": 2}, then.lost)
        then.take(message(a_set(2, COUNTER), DATA, number=11), message(DATA, number=15), now=1010.0)
        self.assertEqual({"restart": 2, "sequence": 1}, then.lost)

    def test_heard_by_another_since(self):
        """Two collectors have had the address: the numbers of the one that heard it last count, whose ever they are.

        Within one second it is the one that is ahead, over the end of 32 bits too.
        """
        entry = Position(7, b"x" * 28, 1, 100, 1000)
        others = [entry._replace(last=999, number=500), entry._replace(number=2**32 - 5), entry._replace(place=8)]
        for order in itertools.permutations([entry, *others]):
            self.assertEqual({entry, others[2]}, set(newest(order)))
        later = entry._replace(last=1001, number=None)
        self.assertEqual([later], newest([entry, later, others[0]]))

    def test_only_of_some_addresses(self):
        """An address is found among those of many."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        found = [load(self.path, 1000, places) for places in (None, [PLACE, "x"], ["x"], [])]
        self.assertEqual([1, 1, 0, 0], [len(entries) for entries in found])

    def test_two_kills(self):
        """Exporters that sent nothing between two kills are known after the second one."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        self.again()
        then = self.again()
        then.take(message(a_set(2, COUNTER), DATA, number=5), now=1010.0)
        self.assertEqual({"restart": 2}, then.lost)

    def test_many(self):
        """The file grows with the domains, up to its bound; those that are gone make room."""
        for port in range(200):
            self.first.take(message(a_set(2, COUNTER), DATA, number=0), port=1000 + port)
        then = Run(self.path)
        self.assertEqual(200, then.begin(1010.0))
        few = Run(self.path, most=80)
        self.assertRaises(ValueError, load, self.path, -20_000)
        Path(self.path).unlink()
        few.begin(1000.0)
        for port in range(200):
            few.take(message(a_set(2, COUNTER), DATA, number=0), port=1000 + port)
        self.assertEqual(80, len(load(self.path, 80)))
        for session in few.exporters.forget_idle(10_000.0):
            few.decoder.forget(session)
        few.take(message(a_set(2, COUNTER), DATA, number=0), port=7, now=10_000.0)
        self.assertEqual([7], [int.from_bytes(entry.sender[2:4], "big") for entry in load(self.path, 80)])

    def test_families(self):
        """IPv6, and IPv4 by a socket for both."""
        for host in ("2001:db8::1", "192.0.2.9"):
            self.first.take(message(a_set(2, COUNTER), DATA, number=0), host=host)
        then = self.again()
        self.assertEqual({"2001:db8::1", "192.0.2.9"}, {session.peer for session in then.exporters})

    def test_damage(self):
        """Another file, or a cut one, is refused."""
        self.first.take(message(a_set(2, COUNTER), DATA, number=0))
        whole = Path(self.path).read_bytes()
        for octets in (b"", b"x" * 8192, whole[:5000], b"ulogd_tw positions 2\n" + whole[21:]):
            Path(self.path).write_bytes(octets)
            self.assertRaises(ValueError, load, self.path, 1000)
        self.assertEqual(0o600, Path(Run(self.path).path).stat().st_mode & 0o777)


class WakeUpTests(SynchronousTestCase):
    """Datagrams of one wake-up that are decoded in several steps."""

    def test_all_are_noted(self):
        """Each number is noted before its records go on, also where every Message has its template (32 a step)."""
        folder = tempfile.mkdtemp(prefix="utw-positions-")
        self.addCleanup(shutil.rmtree, folder, True)
        path, noted = os.path.join(folder, "positions"), []
        found = Collecting(self, emit=lambda batch: noted.append((load(path, 1000)[0].number, batch.n)))
        found.plugin._numbers = KeptNumbers(path, found.plugin)
        found.plugin._numbers.begin(found.plugin.reception, ())
        self.addCleanup(found.plugin._numbers.close)
        sent = [message(a_set(2, COUNTER), DATA, number=3 * place) for place in range(100)]
        found.datagrams(*((octets, "192.0.2.1", 5000) for octets in sent[:1]))
        found.datagrams(*((octets, "192.0.2.1", 5000) for octets in sent[1:]))
        self.assertEqual(300, sum(rows for _, rows in noted))
        self.assertEqual(list(itertools.accumulate(rows for _, rows in noted)), [number for number, _ in noted])
