"""What exporters tell in options records, put to use: sampling, names, types, losses, flow keys."""

import json
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.ipfix.test_netflow import record5, v5, v9, v9_options
from tests.unit.ipfix.wire import VARIABLE, Collected, a_set, hexed, message, options_template, template, varying
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Limits
from ulogd_tw.ipfix.options_records import USED

FLOW = template(256, (10, 4), (14, 4), (1, 8), (2, 4))
SAMPLED = frozenset({"sampling_factor", "octetDeltaCount"})


def flow(ingress=1, egress=2, octets=1000, packets=10):
    """A record of `FLOW`."""
    return struct.pack("!IIQI", ingress, egress, octets, packets)


def options(ident, *fields, scopes=1):
    """A Set with an Options Template."""
    return a_set(3, options_template(ident, scopes, *fields))


def factors(found, *messages):
    """Factor and octets of each Data Record."""
    return [
        (row["sampling_factor"], row["octetDeltaCount"]) for row in found.rows(*messages) if "sampling_factor" in row
    ]


class SamplingTests(SynchronousTestCase):
    """How many packets stand behind one."""

    def told(self, *fields_values, wanted=SAMPLED, scale=False, scopes=1, **keywords):
        """The factor and octets of a record after an options record with these (element, length, value)."""
        found = Collected(wanted, scale=scale, **keywords)
        fields = [(element, length) for element, length, _ in fields_values]
        values = b"".join(
            struct.pack("!d", value) if isinstance(value, float) else value.to_bytes(length, "big")
            for _, length, value in fields_values
        )
        found.rows(message(options(300, *fields, scopes=scopes), a_set(300, values)))
        (row,) = factors(found, message(a_set(2, FLOW), a_set(256, flow())))
        return row

    def test_nothing_told(self):
        """1 where the exporter says nothing, and octets as they are."""
        found = Collected(SAMPLED)
        self.assertEqual([(1.0, 1000)], factors(found, message(a_set(2, FLOW), a_set(256, flow()))))

    def test_elements(self):
        """samplingInterval; PSAMP's interval and space, size and population, probability (RFC 5477 section 8)."""
        process = (143, 4, 7)
        for fields, factor in (
            ([(34, 4, 100)], 100),
            ([(305, 4, 1), (306, 4, 99)], 100),
            ([(305, 4, 10), (306, 4, 0)], 1),
            ([(305, 4, 2), (306, 4, 3)], 2.5),
            ([(309, 4, 1), (310, 4, 256)], 256),
            ([(305, 4, 1), (309, 4, 1), (310, 4, 256)], 256),
            ([(311, 8, 0.001)], 1000),
            ([(34, 4, 0)], 1),
            ([(309, 4, 0), (310, 4, 5)], 1),
            ([(311, 8, 0.0)], 1),
        ):
            self.assertEqual((factor, 1000), self.told(process, *fields), fields)

    def test_scaled(self):
        """scale_sampled=1 multiplies octets and packets, rounded to whole ones; the factor is kept."""
        self.assertEqual((100, 100_000), self.told((143, 4, 7), (34, 4, 100), scale=True))
        self.assertEqual((2.5, 2500), self.told((143, 4, 7), (305, 4, 2), (306, 4, 3), scale=True))
        found = Collected(ALL, scale=True)
        found.rows(message(options(300, (143, 4), (34, 4)), a_set(300, struct.pack("!II", 7, 1 << 31))))
        (row,) = found.rows(message(a_set(2, FLOW), a_set(256, flow(octets=3, packets=4_000_000_000))))
        self.assertEqual(
            (3 << 31, 4_000_000_000 << 31, 1 << 31, 1),
            (row["octetDeltaCount"], row["packetDeltaCount"], row["sampling_factor"], row["ingressInterface"]),
        )

    def test_beyond_64_bits(self):
        """Counts that are too large for their type when they are multiplied stop at its end, and are counted."""
        for rate, kept, expected in ((4, 2**62 - 1, 4 * (2**62 - 1)), (4.5, 2**50, 4.5 * 2**50)):
            found = Collected(ALL, scale=True)
            size, population = (2, round(rate * 2))
            told = options(300, (149, 4), (309, 4), (310, 4)), a_set(300, struct.pack("!III", 1, size, population))
            sent = a_set(2, template(256, (1, 8), (2, 8))), a_set(256, struct.pack("!QQ", 2**63, kept))
            found.rows(message(*told))
            (row,) = found.rows(message(*sent))
            self.assertEqual((2**64 - 1, expected), (row["octetDeltaCount"], row["packetDeltaCount"]))
            self.assertEqual(1, found.counters.figures["counts_saturated"])

    def test_no_probability(self):
        """A probability that is next to none says nothing."""
        found = Collected(ALL, scale=True)
        found.rows(message(options(300, (149, 4), (311, 8)), a_set(300, struct.pack("!Id", 1, 1e-310))))
        (row,) = found.rows(message(a_set(2, template(256, (1, 8))), a_set(256, struct.pack("!Q", 7))))
        self.assertEqual((7, 1.0), (row["octetDeltaCount"], row["sampling_factor"]))

    def test_impossible_size(self):
        """A rate of 16 octets says nothing, also where it is all that the record has."""
        rate, own = (34, 16, 100), (143, 4, 7)
        self.assertEqual((1, 1000), self.told(own, rate))
        self.assertEqual((50, 1000), self.told(own, rate, (305, 4, 50)))

    def test_samplers(self):
        """A record that names its sampler is scaled by that one's rate; others by the only rate there is."""
        found = Collected(SAMPLED)
        tell = options(300, (302, 8), (34, 4))
        found.rows(message(tell, a_set(300, struct.pack("!QI", 1, 10), struct.pack("!QI", 2, 20))))
        named = template(257, (302, 1), (1, 8))
        rows = [struct.pack("!BQ", sampler, 5) for sampler in (1, 2, 3, 1)]
        got = factors(found, message(a_set(2, named, FLOW), a_set(257, *rows), a_set(256, flow())))
        self.assertCountEqual([(10, 5), (20, 5), (1, 5), (10, 5), (1, 1000)], got)
        found.rows(message(a_set(300, struct.pack("!QI", 1, 20))))
        self.assertEqual([(20, 1000)], factors(found, message(a_set(256, flow()))))

    def test_own_fields(self):
        """What a record says itself goes before what its exporter has said."""
        found = Collected(SAMPLED)
        found.rows(message(options(300, (143, 4), (34, 4)), a_set(300, struct.pack("!II", 7, 50))))
        own = template(257, (34, 4), (1, 8))
        rows = [struct.pack("!IQ", rate, 5) for rate in (0, 1, 1000)]
        self.assertEqual([(50, 5), (1, 5), (1000, 5)], factors(found, message(a_set(2, own), a_set(257, *rows))))

    def test_domains(self):
        """Each Observation Domain its own; domain 0 stands for the whole exporter; a scope may name another domain."""
        found = Collected(SAMPLED)
        tell = options(300, (149, 4), (34, 4))
        found.rows(
            message(tell, a_set(300, struct.pack("!II", 2, 20)), domain=9),
            message(options(300, (143, 4), (34, 4)), a_set(300, struct.pack("!II", 7, 5)), domain=0),
        )
        for domain, factor in ((1, 5), (2, 20)):
            octets = message(a_set(2, FLOW), a_set(256, flow()), domain=domain)
            self.assertEqual([(factor, 1000)], factors(found, octets))

    def test_netflow5(self):
        """V5-1: the 14 low bits of the header's sampling field."""
        for scale, octets in ((False, 1000), (True, 64_000)):
            found = Collected(frozenset({"sampling_factor", "dOctets"}), scale=scale)
            packet = bytearray(v5(record5()))
            self.assertEqual([1.0], [row["sampling_factor"] for row in found.rows(bytes(packet))])
            packet[22:24] = struct.pack("!H", 1 << 14 | 64)
            packet[16:20] = struct.pack("!I", 1)
            (row,) = found.rows(bytes(packet))
            self.assertEqual((64, octets), (row["sampling_factor"], row["dOctets"]))

    def test_netflow9(self):
        """A sampler's id and random interval, as Cisco's routers have them; another sampler has not that rate."""
        found = Collected(SAMPLED)
        tell = v9_options(300, [(1, 4)], [(48, 1), (50, 4)])
        flow9 = template(256, (48, 1), (1, 4))
        found.rows(v9(a_set(1, tell), a_set(300, hexed("0a000001 01 00007530"), bytes(3))))
        rows = a_set(256, hexed("01 00000005"), hexed("02 00000006"), bytes(2))
        self.assertEqual([(30_000, 5), (1, 6)], factors(found, v9(a_set(0, flow9), rows, number=1)))

    def test_corpus(self):
        """Captures of real routers, with the rates that their options records have by the reference decode."""
        for case, factor in (
            ("akvorado-data-and-templates", 100),
            ("akvorado-mpls", 10),
            ("akvorado-options-and-data", 30_000),
            ("akvorado-physical-interfaces", 1000),
            ("akvorado-sampling-rate", 2048),
            ("pmacct-104-ipfixv10-ipv6-cisco-sampling-option-00", 256),
        ):
            found = Collected(frozenset({"sampling_factor", "record_kind"}), reliable=False)
            lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
            packets = [bytes.fromhex(json.loads(line)["hex"]) for line in lines]
            found.rows(*packets)  # options come last in some
            got = {
                value
                for batch in found.batches(*packets)
                if b"data" in batch.columns["record_kind"].values
                for value in batch.columns["sampling_factor"].tolist()
            }
            self.assertEqual({factor}, got, case)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20))
    def test_batch_equals_row_by_row(self, rows):
        """Records of several domains and samplers in one batch are scaled as each by itself."""
        tell = options(300, (302, 8), (34, 4))
        told = [
            message(tell, a_set(300, struct.pack("!QI", 1, 10 * d), struct.pack("!QI", 2, 20 + d)), domain=d)
            for d in (1, 2)
        ]
        named = a_set(2, template(257, (302, 1), (34, 4), (1, 8)))
        sent = [message(named, a_set(257, struct.pack("!BIQ", s, own, 3)), domain=d) for d, s, own in rows]
        together, single = (Collected(SAMPLED, scale=True).feed(*told) for _ in range(2))
        together.rows()
        single.rows()
        self.assertEqual(factors(together, *sent), [row for octets in sent for row in factors(single, octets)])


class SizeTests(SynchronousTestCase):
    """Options templates of any elements in any sizes."""

    KEYS = [registry.key(name) for name in USED]
    ELEMENTS = sorted(ident for key in KEYS if key for enterprise, ident in key.elements if not enterprise)

    @given(
        st.lists(st.tuples(st.sampled_from([*ELEMENTS, 141, 999]), st.integers(1, 20)), min_size=1, max_size=6),
        st.integers(1, 6),
        st.binary(min_size=120, max_size=240),
    )
    def test_any(self, fields, scopes, octets):
        """Every record is a row, and what comes afterwards is read."""
        found = Collected(ALL)
        size = sum(length for _, length in fields)
        records = octets[: len(octets) // size * size]
        rows = found.rows(message(options(300, *fields, scopes=min(scopes, len(fields))), a_set(300, records)))
        self.assertEqual(len(records) // size, len(rows))
        self.assertEqual(1, len(found.rows(message(a_set(2, FLOW), a_set(256, flow())))))


class NameTests(SynchronousTestCase):
    """Interfaces and applications by name."""

    def tell(self, found, *names):
        """Options records of interfaces, as Cisco has them (fixed length, filled up with zeros)."""
        rows = [struct.pack("!I16s", index, name) for index, name in names]
        return found.rows(message(options(300, (10, 4), (82, 16)), a_set(300, *rows)))

    def test_interfaces(self):
        """By the index of either direction; missing where it was not told."""
        found = Collected(frozenset({"ingressInterfaceName", "egressInterfaceName"}))
        self.assertEqual([], self.tell(found, (1, b"eth0"), (2, b"eth1")) and [])
        rows = found.rows(message(a_set(2, FLOW), a_set(256, flow(1, 2), flow(2, 3), flow(3, 1))))
        self.assertEqual(
            [
                {"ingressInterfaceName": b"eth0", "egressInterfaceName": b"eth1"},
                {"ingressInterfaceName": b"eth1"},
                {"egressInterfaceName": b"eth0"},
            ],
            rows,
        )
        self.tell(found, (3, b"ppp0"))
        (row,) = found.rows(message(a_set(256, flow(3, 9))))
        self.assertEqual({"ingressInterfaceName": b"ppp0"}, row)

    def test_description(self):
        """Where there is no name the description is taken (Cisco ASR 9000)."""
        found = Collected(frozenset({"ingressInterfaceName"}))
        row = struct.pack("!I", 1) + varying(b"TenGigE0/0/0/1")
        found.rows(message(options(300, (10, 4), (83, VARIABLE)), a_set(300, row)))
        self.assertEqual(
            [{"ingressInterfaceName": b"TenGigE0/0/0/1"}], found.rows(message(a_set(2, FLOW), a_set(256, flow())))
        )

    def test_netflow5(self):
        """V5's interfaces too: the exporter may tell their names by v9."""
        found = Collected(frozenset({"ingressInterfaceName"}))
        self.assertEqual([{}], found.rows(v5(record5())))

    def test_every_key(self):
        """Outputs that print all get names only with add_names=1, and then only where there are some."""
        for name, expected in ((False, set()), (True, {"ingressInterfaceName"})):
            found = Collected(ALL, name=name)
            sent = message(a_set(2, FLOW), a_set(256, flow(1, 2)))
            self.assertNotIn("ingressInterfaceName", found.rows(sent)[0])
            self.tell(found, (1, b"eth0"))
            self.assertEqual(expected, {k for k in found.rows(sent)[0] if k.endswith("Name")})

    def test_applications(self):
        """AP-1: applicationId of any length."""
        found = Collected(frozenset({"applicationName"}))
        tell = options(300, (95, VARIABLE), (96, VARIABLE))
        rows = [varying(ident) + varying(name) for ident, name in ((hexed("03000050"), b"http"), (b"\x0d\x01", b"dns"))]
        found.rows(message(tell, a_set(300, *rows)))
        fixed, any_length = template(256, (95, 4)), template(257, (95, VARIABLE))
        sent = message(
            a_set(2, fixed, any_length), a_set(256, hexed("03000050"), hexed("03000051")),
            a_set(257, varying(b"\x0d\x01"), varying(hexed("03000050")), varying(b"")),
        )  # fmt: skip
        got = [row.get("applicationName") for row in found.rows(sent)]
        self.assertCountEqual([b"http", None, b"dns", b"http", None], got)

    def test_filled_up(self):
        """An application is the same in however many octets its selector came (RFC 6759 section 4.1)."""
        told = {"0300000050": b"http", "0d01c5": b"slls", "14000000090000000007": b"cisc"}
        sent = {"0350": b"http", "03000000000050": b"http", "0d000001c5": b"slls", "140000000907": b"cisc",
                "1400000907": None, "0d": None, "0d01c500": None}  # fmt: skip
        found = Collected(frozenset({"applicationName"}))
        rows = [varying(hexed(ident)) + varying(name) for ident, name in told.items()]
        found.rows(message(options(300, (95, VARIABLE), (96, VARIABLE)), a_set(300, *rows)))
        rows = found.rows(message(a_set(2, template(256, (95, VARIABLE))), a_set(256, *map(varying, map(hexed, sent)))))
        self.assertEqual(list(sent.values()), [row.get("applicationName") for row in rows])

    def test_own_name(self):
        """A record that has the name itself keeps it."""
        found = Collected(frozenset({"applicationName"}))
        sent = message(a_set(2, template(256, (95, 4), (96, 4))), a_set(256, hexed("03000050"), b"mine"))
        self.assertEqual([{"applicationName": b"mine"}], found.rows(sent))

    def test_corpus(self):
        """Names that real exporters told, by the reference decode."""
        for case, wanted, column in (
            ("logstash-netflow-9-cisco-nbar-options-template-260", "applicationName", "application"),
            ("telegraf-ipfix-options", "applicationName", "application"),
            ("telegraf-netflow-v9-options", "interfaceName", "interface"),
            ("logstash-netflow-9-cisco-asr-9000-series-options-template-256", "interfaceDescription", "interface"),
        ):
            found = Collected(frozenset({"applicationName"}), reliable=False)
            lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
            found.rows(*(bytes.fromhex(json.loads(line)["hex"]) for line in lines))
            oracle = json.loads(shared_path("corpus", "ipfix", "oracle", f"{case}.json").read_text())
            names = {r["fields"][wanted] for r in oracle["records"] if r["kind"] == "options" and wanted in r["fields"]}
            (told,) = [domain.info for domain in found.session.domains.values() if domain.info]
            self.assertEqual(names, {name.decode() for name in told.names[column].values()}, case)
            self.assertGreater(len(names), 3)

    def test_bounded(self):
        """Beyond the limit names are refused and counted; known ones may change. Long ones are cut."""
        found = Collected(frozenset({"ingressInterfaceName"}), limits=Limits(told=2))
        self.tell(found, (1, b"a"), (2, b"b"), (3, b"c"), (1, b"d"))
        self.assertEqual({"limit_told": 1}, found.errors)
        rows = found.rows(message(a_set(2, FLOW), a_set(256, flow(1), flow(2), flow(3))))
        self.assertEqual([{"ingressInterfaceName": b"d"}, {"ingressInterfaceName": b"b"}, {}], rows)
        found.decoder.forget(found.session)
        self.assertEqual(0, found.decoder.intake.templates._kept.told)


class StatisticsTests(SynchronousTestCase):
    """OPT-5, OPT-6: losses that exporters tell become counters."""

    TELL = options(300, (144, 4), (166, 8), (167, 8), (168, 8))

    def row(self, process, *values):
        return a_set(300, struct.pack("!IQQQ", process, *values))

    def test_grow(self):
        """Total counters count by what they have grown; one that is smaller has begun again."""
        found = Collected(frozenset())
        more, lost = found.counters.figures, found.counters.lost
        found.rows(message(self.TELL, self.row(1, 5, 50, 500), self.row(2, 0, 0, 0)))
        self.assertEqual((5, 50, 500), (lost["exporter"], more["exporter_not_sent_packets"],
                                        more["exporter_not_sent_octets"]))  # fmt: skip
        found.rows(message(self.row(1, 7, 60, 600)), message(self.row(2, 1, 10, 100)))
        self.assertEqual((8, 70), (lost["exporter"], more["exporter_not_sent_packets"]))
        found.rows(message(self.row(1, 3, 30, 300)))
        self.assertEqual((11, 100), (lost["exporter"], more["exporter_not_sent_packets"]))

    def test_metering(self):
        """ignoredPacketTotalCount and ignoredOctetTotalCount of a Metering Process."""
        found = Collected(frozenset())
        tell = options(300, (149, 4), (143, 4), (164, 8), (165, 8), (323, 8), (323, 8), scopes=2)
        found.rows(message(tell, a_set(300, struct.pack("!IIQQQQ", 1, 9, 22, 2200, 1, 2))))
        more = found.counters.figures
        self.assertEqual((22, 2200), (more["exporter_ignored_packets"], more["exporter_ignored_octets"]))


class FlowKeyTests(SynchronousTestCase):
    """OPT-7: which fields of a template are flow keys."""

    def test_flow_keys(self):
        """OPT-7: kept where they fit; bits beyond the template's fields, and an unknown template, are errors."""
        found = Collected()
        tell = options(300, (145, 2), (173, 8))
        found.rows(message(a_set(2, FLOW), tell, a_set(300, struct.pack("!HQ", 256, 0b11))))
        self.assertEqual({256: 3}, found.session.domains[1].info.flow_keys)
        found.rows(message(a_set(300, struct.pack("!HQ", 256, 0b10000), struct.pack("!HQ", 999, 1))))
        self.assertEqual(2, found.errors["flow_keys"])
        self.assertEqual({256: 3}, found.session.domains[1].info.flow_keys)


DESCRIBE = options(300, (346, 4), (303, 2), (339, 1), (344, 1), (341, VARIABLE), scopes=2)


def described(pen, ident, code, semantics, name):
    """A record of RFC 5610."""
    return struct.pack("!IHBB", pen, ident, code, semantics) + varying(name)


TYPES = (
    ("octetArray", 9), ("unsigned8", 1), ("unsigned16", 2), ("unsigned32", 4), ("unsigned64", 8), ("signed8", 1),
    ("signed16", 2), ("signed32", 4), ("signed64", 8), ("float32", 4), ("float64", 8), ("boolean", 1),
    ("macAddress", 6), ("string", 9), ("dateTimeSeconds", 4), ("dateTimeMilliseconds", 8),
    ("dateTimeMicroseconds", 8), ("dateTimeNanoseconds", 8), ("ipv4Address", 4), ("ipv6Address", 16),
    ("basicList", 9), ("subTemplateList", 9), ("subTemplateMultiList", 9), ("unsigned256", 32),
)  # fmt: skip
"""The data types by their codes (IANA: IPFIX Information Element Data Types), each with a size that it may have."""


class TypeTests(SynchronousTestCase):
    """TY-1 to TY-3: elements that an exporter describes itself (RFC 5610)."""

    def test_name_and_type(self):
        """The element has its name and type from then on, whether its template came before or after."""
        for template_first in (True, False):
            found = Collected()
            told = message(DESCRIBE, a_set(300, described(32473, 5, 3, 3, b"fooCount")))
            sent = message(a_set(2, template(256, (5, 4, 32473), (1, 4))))
            for octets in (sent, told) if template_first else (told, sent):
                found.rows(octets)
            (batch,) = found.batches(message(a_set(256, struct.pack("!II", 77, 5))))
            self.assertEqual([77], batch.columns["fooCount"].tolist())
            key = batch.schema["fooCount"]
            self.assertEqual(("unsigned32", ((32473, 5),), "deltaCounter"),
                             (key.type.name, key.elements, key.semantics))  # fmt: skip

    def test_types(self):
        """TY-2: codes of data types; a string, an address, a signed number of reduced size."""
        found = Collected()
        rows = [described(32473, 1, 13, 0, b"fooName"), described(32473, 2, 18, 0, b"fooAddress")]
        rows += [described(32473, 3, 8, 0, b"fooTemperature")]
        found.rows(message(DESCRIBE, a_set(300, *rows)))
        fields = template(256, (1, VARIABLE, 32473), (2, 4, 32473), (3, 2, 32473))
        row = varying("Köln".encode()) + hexed("c0000201") + struct.pack("!h", -12)
        (got,) = found.rows(message(a_set(2, fields), a_set(256, row)))
        self.assertEqual({"fooName": "Köln".encode(), "fooAddress": 0xC0000201, "fooTemperature": -12}, got)

    def test_codes(self):
        """TY-2: every code means its type; one that is not known leaves the element what it was."""
        unknown = ((code, ("octetArray", 4)) for code in (99, 255))
        for code, (name, octets) in (*enumerate(TYPES), *unknown):
            found = Collected()
            found.rows(message(DESCRIBE, a_set(300, described(32473, 5, code, 0, b"foo"))))
            told = a_set(2, template(256, (5, octets, 32473)))
            (batch,) = found.batches(message(told, a_set(256, b"\1" * octets)))
            key = batch.schema["foo" if code < len(TYPES) else "e32473id5"]
            self.assertEqual(name, key.type.name, code)

    def test_not_overwritten(self):
        """TY-3: not IANA's elements, nor known ones of enterprises; a taken name gets its enterprise in front."""
        found = Collected()
        rows = [described(0, 1, 13, 0, b"wrong"), described(29305, 1, 13, 0, b"wrong"),
                described(29305, 32000, 13, 0, b"wrong"),
                described(32473, 1, 4, 0, b"octetDeltaCount"), described(32473, 2, 4, 0, b"bad name!"),
                described(32473, 3, 99, 0, b"fooStrange")]  # fmt: skip
        found.rows(message(DESCRIBE, a_set(300, *rows)))
        fields = template(256, (1, 4), (1, 4, 29305), (1, 4, 32473), (2, 4, 32473), (3, 4, 32473),
                          (32000, 4, 29305))  # fmt: skip
        (row,) = found.rows(message(a_set(2, fields), a_set(256, struct.pack("!6I", 1, 2, 3, 4, 5, 6))))
        self.assertEqual(
            {"octetDeltaCount": 1, "reverseOctetDeltaCount": 2, "e32473.octetDeltaCount": 3,
             "e32473id2": hexed("00000004"), "e32473id3": hexed("00000005"), "e29305id32000": hexed("00000006")}, row,
        )  # fmt: skip
        self.assertEqual(1, found.errors["element_name"])

    def test_by_number(self):
        """Who asks for it by number gets the octets, whatever the exporter calls it."""
        found = Collected(frozenset({"e32473id5"}))
        found.rows(message(DESCRIBE, a_set(300, described(32473, 5, 3, 3, b"fooCount"))))
        sent = message(a_set(2, template(256, (5, 4, 32473))), a_set(256, hexed("0000004d")))
        self.assertEqual([{"e32473id5": hexed("0000004d")}], found.rows(sent))

    def test_of_its_session(self):
        """TY-3: another exporter's element of this number stays unknown; a forgotten session's too."""
        found = Collected()
        found.rows(message(DESCRIBE, a_set(300, described(32473, 5, 3, 3, b"fooCount"))))
        other = type(found.session)("192.0.2.9", 1, reliable=True)
        sent = message(a_set(2, template(256, (5, 4, 32473))), a_set(256, hexed("0000004d")))
        found.decoder.feed(other, sent, 1.0)
        self.assertEqual([{"e32473id5": hexed("0000004d")}], found.rows())
        found.decoder.forget(found.session)
        self.assertEqual([{"e32473id5": hexed("0000004d")}], found.rows(sent))
