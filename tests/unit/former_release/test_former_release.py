"""State, spools and caches of the release before are read; `README.md` here says what is in them."""

import shutil
import tempfile
from pathlib import Path

from tests.unit.collecting.test_template_cache import _Collector
from tests.unit.exporting.doubles import Reader
from tests.unit.ipfix.test_netflow import record5, v5, v9
from tests.unit.ipfix.wire import a_set, hexed, message
from tests.unit.plugins.filters.test_aggregate import AggregateCase
from ulogd_tw.exporting.message_spool import MessageSpool
from ulogd_tw.ipfix.exporters import sender
from ulogd_tw.spool import Spool

HERE = Path(__file__).parent
WRITTEN = 1796087456.0
"""When the messages came, s since 1970."""
RECORD = hexed("0a000005 c0000201 00000001")
"""A record of the template that was sent then."""


class FormerReleaseTests(AggregateCase):
    """Each file, in a copy."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        for path in HERE.iterdir():
            if path.is_file():
                shutil.copy(path, self.directory / path.name)

    def test_templates(self):
        """Records of IPFIX and v9 are decoded at once."""
        collector = _Collector(str(self.directory / "templates"))
        collector.load(now=WRITTEN + 10)
        self.assertEqual({}, dict(collector.counters.errors))
        place, name = "127.0.0.1:47390", sender("127.0.0.1", 47399)
        session = collector.exporters.find(place, name, WRITTEN + 10)
        for octets in (
            message(a_set(256, RECORD), number=30, export_time=int(WRITTEN)),
            v9(a_set(256, RECORD), number=8, seconds=int(WRITTEN), count=1),
            v5(record5(), number=102, seconds=int(WRITTEN)),
        ):
            collector.decoder.feed(session, octets, WRITTEN + 10)
        rows = [row for batch in collector.decoder.drain(WRITTEN + 10) for row in batch.rows()]
        self.assertEqual(3, len(rows))
        self.assertEqual({}, dict(collector.counters.lost) | dict(collector.counters.errors))

    def test_open_intervals(self):
        """All 37 rows of them go on."""
        self.make(
            key="sourceIPv4Address,destinationIPv4Address", functions="max(packetDeltaCount)", interval=3600,
            state_file=str(self.directory / "intervals"),
        )  # fmt: skip
        self.agg.fault = self.fail
        self.agg.open()
        self.addCleanup(self.agg.stop)
        self.assertEqual({}, dict(self.agg.counters.errors))
        self.agg.flush = None
        self.agg.wake(WRITTEN + 7200)
        self.agg.wake(WRITTEN + 7200)
        self.assertEqual(37, sum(row["flows"] for row in self.rows()))

    def test_spooled_rows(self):
        """In the order in which they came: 20 and 10 of IPFIX among them."""
        batches = [batch for _, batch in Spool(str(self.directory), "json2").load()]
        self.assertEqual(37, sum(batch.n for batch in batches))
        self.assertEqual([30], [b.n for b in batches if set(b.columns["observationDomainId"].tolist()) == {1}][:1])

    def test_spooled_messages(self):
        """As many records as another reader finds."""
        spool = MessageSpool(self.directory / "spool", 1 << 20, 1e9)
        (self.directory / "spool").mkdir()
        shutil.copy(HERE / "messages.ipfix", self.directory / "spool" / "000000000000.ipfix")
        spool.open(WRITTEN, 0.0)
        reader = Reader()
        reader.stream((HERE / "messages.ipfix").read_bytes())
        self.assertEqual(len(reader.records), spool.records)
        self.assertGreater(spool.records, 30)
