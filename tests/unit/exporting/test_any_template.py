"""Stacks below a collector whose exporters send fields of any length, also impossible ones."""

import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core.doubles import KEEP
from tests.unit.ipfix.wire import VARIABLE, a_set, message, template, varying
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.exporting.directions import directions
from ulogd_tw.ipfix.session import Session
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
from ulogd_tw.plugins.filters.ip2str import IP2STR
from ulogd_tw.plugins.outputs.ipfix import IPFIX

ELEMENTS = (
    1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 14, 21, 22, 23, 27, 28, 32, 34, 48, 56, 61, 82, 85, 86, 95, 96, 130, 136, 139, 148,
    150, 151, 152, 153, 154, 155, 156, 157, 160, 225, 227, 239, 276, 302, 305, 306, 309, 310, 311,
)  # fmt: skip
"""What plugins look at, of every type."""
LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, VARIABLE)
fields = st.tuples(st.sampled_from(ELEMENTS), st.sampled_from(LENGTHS), st.sampled_from((0, 29305)))


class COLLECTED(Collecting):
    """Messages of one exporter, by hand."""

    name = "COLLECTED"
    options = Collecting.decoding_options


class AnyTemplateTests(SynchronousTestCase):
    """COLLECTED -> each kind of plugin."""

    def stack(self, *plugins, **options):
        classes = {c.name: c for c in (COLLECTED, AGGREGATE, IP2STR, KEEP, IPFIX)}
        given_options = {"IPFIX": {"collectors": ("tcp:[::1]:1",)}}

        def read(instance, class_):
            return Options(class_.all_options(), given_options.get(class_.name, {}) | options.get(class_.name, {})), []

        path = (("in", "COLLECTED"), *((name.lower(), name) for name in plugins))
        builder = Builder(lambda name, position: classes[name], read)
        graph = builder.build([StackSpec("s", "t:1", path)])
        self.assertEqual([], builder.mistakes)
        return graph

    def feed(self, graph, octets):
        source = graph.instances["in"]
        decoder = source.decoder()
        decoder.feed(Session("192.0.2.1", 1, reliable=True), octets, 1000.0)
        source.emit_all(decoder, False, 1000.0)
        self.assertEqual({}, graph.unaccounted())
        for instance in graph.instances.values():
            self.assertEqual(set(), set(instance.counters.errors) - {"value", "record"}, instance)
            self.assertEqual(set(), set(instance.counters.dropped) - {"key_range"}, instance)

    @given(st.lists(fields, min_size=1, max_size=8), st.integers(1, 3), st.binary(max_size=400), st.booleans())
    def test_every_plugin(self, chosen, n, octets, scale):
        """Nothing raises: what cannot be a value of its element is octets, and no number."""
        if not sum(length for _, length, _ in chosen):
            chosen = [*chosen, (4, 1, 0)]
        octets = octets.ljust(400, b"\1") * 3
        record = b"".join(
            varying(octets[:7]) if length == VARIABLE else octets[at : at + length]
            for at, (_, length, _) in enumerate(chosen)
        )
        specifiers = [(e, length, pen) if pen else (e, length) for e, length, pen in chosen]
        sent = message(a_set(2, template(256, *specifiers)), a_set(256, *[record] * n))
        options = {"COLLECTED": {"scale_sampled": scale, "clock_skew": 0.0}}
        keys = "sourceAddress,protocolIdentifier,flowStartSeconds,ingressInterfaceName,sampling_factor,interfaceName"
        for plugins in (("AGGREGATE", "KEEP"), ("IP2STR", "KEEP"), ("KEEP",)):
            graph = self.stack(*plugins, AGGREGATE={"key": keys}, **options)
            self.feed(graph, sent)
            if "AGGREGATE" in plugins:
                graph.instances["aggregate"].flush()
                rows = [row for batch in graph.instances["keep"].batches for row in batch.rows()]
                left = graph.instances["aggregate"].counters.dropped["key_range"]
                self.assertEqual(n, sum(row["flows"] for row in rows) + left)

    @given(st.lists(fields, min_size=1, max_size=8), st.binary(min_size=200, max_size=200))
    def test_exporter(self, chosen, octets):
        """The exporter makes a record of each, with what it can send of it."""
        if not sum(length for _, length, _ in chosen):
            return
        record = b"".join(
            varying(octets[:7]) if length == VARIABLE else octets[at : at + length]
            for at, (_, length, _) in enumerate(chosen)
        )
        specifiers = [(e, length, pen) if pen else (e, length) for e, length, pen in chosen]
        graph = self.stack("IPFIX")
        exporter = graph.instances["ipfix"]
        got = []
        exporter.write = lambda batch: got.extend(directions(exporter.find, batch)) and None
        self.feed(graph, message(a_set(2, template(256, *specifiers)), a_set(256, record, record)))
        self.assertEqual(2 if got else 0, sum(one.n for one in got))

    def test_copied(self):
        """Inputs keep the octets of records for outputs that copy them, and for no others."""
        for options in ({}, {"fields": "all"}, {"fields": "biflow"}):
            self.assertTrue(self.stack("IPFIX", IPFIX=options).instances["in"].copied, options)
        for options in (
            {"fields": "uniflow"},
            {"fields": "octetDeltaCount:4"},
            {"version": "9", "collectors": ("udp:[::1]:1",)},
            {"anonymise": "truncate"},
        ):
            self.assertFalse(self.stack("IPFIX", IPFIX=options).instances["in"].copied, options)
        aggregated = self.stack("AGGREGATE", "IPFIX", AGGREGATE={"key": "protocolIdentifier"})
        self.assertFalse(aggregated.instances["in"].copied)
        self.assertFalse(self.stack("IP2STR", "KEEP").instances["in"].copied)

    def test_times_of_impossible_length(self):
        """A start in seconds of three octets is no start."""
        graph = self.stack("AGGREGATE", "KEEP", AGGREGATE={"key": "protocolIdentifier"})
        fields = template(256, (4, 1), (150, 3), (151, 4))
        self.feed(graph, message(a_set(2, fields), a_set(256, struct.pack("!B3sI", 6, b"abc", 500))))
        graph.instances["aggregate"].flush()
        (row,) = [row for batch in graph.instances["keep"].batches for row in batch.rows()]
        self.assertEqual((None, 500_000), (row.get("first_ms"), row["last_ms"]))
