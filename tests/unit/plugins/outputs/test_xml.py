"""XML: byte for byte what ulogd2 wrote, and documents that are whole."""

import itertools
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.writing.text_rows import GOLDEN, ByName, batch_of, in_zone
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW, RAW, SUM
from ulogd_tw.plugins.outputs.xml import XML, DocumentFile
from ulogd_tw.writing.xml_elements import _STATES

NOON = time.mktime(time.strptime("23112026-001037", "%d%m%Y-%H%M%S"))


class NamedXML(ByName, XML):
    """XML below plugins that give the keys under their own names."""


class Above:
    """An input above, of one type of rows."""

    def __init__(self, otype):
        self.otype = otype


def when(element):
    """The second of an element's date, in local time."""
    date = element.find("when") if element.find("when") is not None else element
    parts = [int(date.findtext(name)) for name in ("year", "month", "day", "hour", "min", "sec")]
    return time.mktime((*parts, 0, 0, -1))


def flow_row(element):
    """The keys of a <flow> of ulogd2."""
    row = {}
    for meta, word in zip(element.findall("meta"), ("orig", "reply"), strict=False):
        row |= {
            f"{word}.ip.saddr": meta.findtext("layer3/src"),
            f"{word}.ip.daddr": meta.findtext("layer3/dst"),
            f"{word}.ip.protocol": meta.find("layer4").get("protonum"),
            f"{word}.l4.sport": meta.findtext("layer4/sport"),
            f"{word}.l4.dport": meta.findtext("layer4/dport"),
            f"{word}.raw.pktcount": meta.findtext("counters/packets"),
            f"{word}.raw.pktlen": meta.findtext("counters/bytes"),
        }
    last = element.findall("meta")[2]
    state = last.findtext("state")
    status = (0 if last.find("unreplied") is not None else 2) | (4 if last.find("assured") is not None else 0)
    return row | {
        "ct.tcp.state": state and _STATES["ct.tcp.state"].index(state), "ct.timeout": last.findtext("timeout"),
        "ct.mark": last.findtext("mark"), "ct.id": last.findtext("id"), "ct.status": status,
        "flow.start.sec": 1000, "flow.start.usec": 999_999, "flow.end.usec": 999_999,
        "flow.end.sec": 1000 + int(last.findtext("deltatime")),
    }  # fmt: skip


def packet_row(element):
    """The keys of a <log> of ulogd2."""
    source = element.findtext("hw/src")
    return {
        "raw.pkt": bytes.fromhex(element.findtext("payload")), "oob.prefix": element.findtext("prefix"),
        "oob.hook": element.findtext("hook"), "oob.protocol": int(element.findtext("hw/proto"), 16),
        "raw.mac.saddr": source and bytes.fromhex(source), "oob.mark": element.findtext("mark"),
        "oob.ifindex_in": element.findtext("indev"), "oob.ifindex_out": element.findtext("outdev"),
    }  # fmt: skip


def sum_row(element):
    """The keys of an <obj> of ulogd2."""
    return {"sum.name": element.findtext("name"), "sum.pkts": element.findtext("pkts"),
            "sum.bytes": element.findtext("bytes")}  # fmt: skip


def batches(elements, row_of):
    """Batches of elements of one second and family; what an element does not have is missing."""

    def kind(element):
        return when(element), element.find("meta/layer3") is not None and element.find("meta/layer3").get("protoname")

    for (second, _), group in itertools.groupby(elements, kind):
        rows = [row_of(element) for element in group]
        filler = {"raw.mac.saddr": b""}
        batch = batch_of([{n: filler.get(n, 0) if v is None else v for n, v in row.items()} for row in rows], second)
        for name in rows[0]:
            if any(row[name] is None for row in rows):
                batch.missing[name] = np.array([row[name] is None for row in rows])
        yield batch


class XmlTests(SynchronousTestCase):
    """An output with a clock at the time of the golden files."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def output(self, *types, **options):
        self.patch(DocumentFile, "wall", staticmethod(lambda: NOON))
        made = NamedXML("xml1", Options(XML.all_options(), {"directory": str(self.folder), **options}), Clock())
        made.inputs = tuple(Above(otype) for otype in types)
        made.open()
        return made

    def assertGolden(self, word, otype, row_of):
        name = f"ulogd-{word}-23112026-001037.xml"
        golden = shared_path(*GOLDEN, name).read_bytes()
        out = self.output(otype)
        for batch in batches(list(ElementTree.fromstring(golden)), row_of):
            self.assertIsNone(out.write(batch))
        self.successResultOf(out.stop())
        self.assertEqual(golden.splitlines(), (self.folder / name).read_bytes().splitlines())
        self.assertEqual(golden, (self.folder / name).read_bytes())

    def test_golden_flows(self):
        """Flows of both families and all their protocols."""
        self.assertGolden("flow", FLOW, flow_row)

    def test_golden_packets(self):
        """Packets of both directions, with marks."""
        self.assertGolden("pkt", RAW, packet_row)

    def test_golden_sums(self):
        """Counters, which have 20 digits."""
        self.assertGolden("sum", SUM, sum_row)

    def test_kinds(self):
        """One instance below several inputs has a document for each kind of rows, empty ones too."""
        out = self.output(FLOW, SUM, FLOW)
        out.write(batch_of([{"sum.name": "a<b&c\1", "sum.pkts": 1, "sum.bytes": 2}], NOON))
        self.successResultOf(out.stop())
        flows, sums = sorted(self.folder.iterdir())
        self.assertEqual([], list(ElementTree.parse(flows).getroot()))
        self.assertEqual("a<b&c?", ElementTree.parse(sums).getroot().findtext("obj/name"))

    def test_rotation(self):
        """SIGHUP closes the document and begins one of another name, within the same second too."""
        out = self.output(SUM)
        for _ in range(3):
            out.write(batch_of([{"sum.name": "a", "sum.pkts": 1, "sum.bytes": 2}], NOON))
            out.reopen()
        self.successResultOf(out.stop())
        lengths = [len(ElementTree.parse(path).getroot()) for path in self.folder.iterdir()]
        self.assertEqual([0, 1, 1, 1], sorted(lengths))

    def test_days(self):
        """The week begins with Sunday, 1: 2026-11-22."""
        in_zone(self, "UTC")
        out = self.output(SUM)
        out.write(batch_of([{"sum.name": "a", "sum.pkts": 1, "sum.bytes": 2}], 1795305600.0))
        self.successResultOf(out.stop())
        (path,) = self.folder.iterdir()
        self.assertIn("<wday>1</wday><day>22</day><month>11</month><year>2026</year>", path.read_text())

    def test_no_directory(self):
        """A directory that is not there keeps the stack from starting."""
        self.folder.rmdir()
        error = self.assertRaises(StartError, self.output, FLOW)
        self.assertIn("cannot be opened", str(error))
