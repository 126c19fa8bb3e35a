"""NetFlow v9 and v5: captures of shared/corpus/ipfix, octets written by hand, packets of an independent encoder."""

import csv
import ipaddress
import json
import struct
from collections import Counter, defaultdict

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given, shared_path
from tests.unit.ipfix.test_corpus import Replay
from tests.unit.ipfix.wire import (
    Collected,
    a_set,
    as_people_write,
    check,
    counts,
    hexed,
    ipv4,
    message,
    template,
    without_our_times,
)
from ulogd_tw import config, tap
from ulogd_tw.core.keys import NETFLOW5_KEYS, NETFLOW9, registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.ipfix import decoder
from ulogd_tw.ipfix.session import Session

REASONS = {"flowset length": "set_length", "count 55582 with 1464 octets": "length", "shorter than a header": "length"}
"""How we call what the reference says of a malformed packet."""


def our_types():
    """{reference's name: (our name, type)} of the v9 field types that IANA does not know."""
    with shared_path("data", "netflow_v9_elements.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["meaning_differs"] and not row["same_number_iana_name"]]
    return {f"v9id{row['field_type']}": (row["v9_name"], row["type"]) for row in rows}


def explained(fields, types, without_scope):
    """A record of the reference as we show it.

    v9's own field types have names and types where it has plain octets; a scope of no octets has no number, which it
    shows as 0.
    """
    found = []
    for name, value in fields.items():
        bare, _, occurrence = name.partition("#")
        if bare in types:
            name, kind = types[bare]
            name += f"#{occurrence}" if occurrence else ""
            if kind.startswith("unsigned"):
                value = int(value, 16)
            elif kind == "ipv4Address":
                value = str(ipaddress.IPv4Address(bytes.fromhex(value)))
            elif kind == "string":
                value = bytes.fromhex(value).rstrip(b"\0").decode("utf-8", "replace")
        if without_scope and name == "scopeSystem":
            value = ""
        if not bare.startswith("paddingOctets"):
            found.append((name, as_people_write(name, value)))
    return tuple(found)


def reference(oracle, packets):
    """(index of the packet, (domain, template id, kind, fields as we show them)) of each record of the reference."""
    types = our_types()
    scopeless = {(t["domain"], t["tid"]) for t in oracle["templates"] if t["scope_fields"] and not t["fields"][0][2]}
    for record in oracle["records"]:
        domain, packet = record["domain"], packets[record["msg"]]
        if packet[:2] == b"\0\5":  # the reference has 0 for every engine
            domain = int.from_bytes(packet[20:22], "big")
        fields = explained(record["fields"], types, (record["domain"], record["tid"]) in scopeless)
        yield record["msg"], (domain, record["tid"], record["kind"], fields)


def v9(*sets, number=0, source=1, uptime=100_000, seconds=1000, count=0):
    """A packet of v9."""
    return struct.pack("!HHIIII", 9, count, uptime, seconds, number, source) + b"".join(sets)


def v9_options(ident, scopes, options):
    """An Options Template Record of v9."""
    fields = [*scopes, *options]
    head = struct.pack("!HHH", ident, 4 * len(scopes), 4 * len(options))
    return head + b"".join(struct.pack("!HH", *field) for field in fields)


def record5(source="192.0.2.1", octets=1000, first=90_000, last=95_000):
    """A record of v5 from 192.0.2.1 port 1024 to 198.51.100.7 port 53 over UDP, ten packets."""
    return (
        ipaddress.IPv4Address(source).packed
        + hexed("c6336407 cb007101 0003 0004 0000000a")
        + struct.pack("!III", octets, first, last)
        + hexed("0400 0035 00 1b 11 20 fde8 fde9 18 10 0000")
    )


def v5(*records, number=0, uptime=100_000, seconds=1000, nanoseconds=0, engine=(1, 2), count=None, sampling=0):
    """A packet of v5."""
    count = len(records) if count is None else count
    head = struct.pack("!HHIIIIBBH", 5, count, uptime, seconds, nanoseconds, number, *engine, sampling)
    return head + b"".join(records)


class CorpusTests(SynchronousTestCase):
    """Every case of v9 and v5, packet by packet and all packets at once."""

    def compare(self, oracle, at_once):
        case = oracle["case"]
        found = Replay(case, at_once)
        lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
        packets = [bytes.fromhex(json.loads(line)["hex"]) for line in lines]
        expected = defaultdict(Counter)
        for index, record in reference(oracle, packets):
            expected[None if at_once else index][record] += 1
        for place in sorted(set(expected) | set(found.rows), key=str):
            rows = without_our_times(found.rows[place], expected[place])
            self.assertEqual((Counter(), Counter()), (rows - expected[place], expected[place] - rows), (case, place))
        self.assertEqual(oracle["record_count"], found.counters.rows_received, case)
        errors = found.counters.errors
        reasons = (
            next(r for text, r in REASONS.items() if m["error"].startswith(text)) for m in oracle["malformed_messages"]
        )
        self.assertEqual(Counter(reasons), +Counter({r: errors[r] for r in set(REASONS.values())}), case)
        wrong = {"no template": "no_template", "reserved set id": "set_id", "zero-length records": "empty_records"}
        why = Counter(wrong[s["why"]] for s in oracle["undecodable_sets"])
        self.assertEqual(why, +Counter({reason: errors[reason] for reason in wrong.values()}), case)
        return oracle["record_count"]

    def test_cases(self):
        """All of the manifest's cases with all their records."""
        cases = Counter()
        for path in sorted(shared_path("corpus", "ipfix", "oracle").glob("*.json")):
            oracle = json.loads(path.read_text())
            if oracle["protocol"] in ("", "netflow5", "netflow9", "netflow5+netflow9"):
                cases["cases"] += 1
                cases["records"] += self.compare(oracle, at_once=False)
                self.compare(oracle, at_once=True)
        with shared_path("corpus", "ipfix", "manifest.csv").open() as file:
            others = [line for line in csv.DictReader(file) if line["protocol"] not in ("ipfix", "sflow5")]
        self.assertEqual(cases, {"cases": len(others), "records": sum(int(line["records"]) for line in others)})


FLOW9 = template(256, (8, 4), (12, 4), (7, 2), (1, 4), (22, 4), (21, 4))
ROW9 = hexed("c0000201 c6336407 0400 000003e8") + struct.pack("!II", 90_000, 95_000)


class Version9Tests(SynchronousTestCase):
    """Octets written by hand."""

    def test_record(self):
        """V9-1, V9-3, V9-6: a template and a record; uptime 100 s at second 1000, so 90 s of uptime is second 990."""
        found = Collected()
        (batch,) = found.batches(v9(a_set(0, FLOW9), a_set(256, ROW9, b"\0\0"), source=77, count=9999))
        (row,) = batch.rows()
        self.assertEqual(
            row,
            {
                "exporter": ipv4("192.0.2.1"), "exporter_port": 5000, "observationDomainId": 77, "templateId": 256,
                "record_kind": b"data", "received_ms": 2_000_000, "export_time": 1000,
                "sourceIPv4Address": ipv4("192.0.2.1"), "destinationIPv4Address": ipv4("198.51.100.7"),
                "sourceTransportPort": 1024, "octetDeltaCount": 1000,
                "flowStartSysUpTime": 90_000, "flowEndSysUpTime": 95_000,
                "flowStartMilliseconds": 990_000, "flowEndMilliseconds": 995_000,
            },
        )  # fmt: skip
        self.assertEqual(found.errors, {})
        self.assertEqual(found.decoder.malformed, 0)

    def times(self, uptime, offset, seconds=10_000_000):
        packet = v9(
            a_set(0, template(256, (22, 4))), a_set(256, struct.pack("!I", offset)), uptime=uptime, seconds=seconds
        )
        (row,) = Collected().rows(packet)
        return row.get("flowStartMilliseconds")

    def test_wrap(self):
        """V9-6: a flow from before the uptime began again; one a little later than the header; the widest distance."""
        self.assertEqual(self.times(5000, 2**32 - 1000), 10_000_000_000 - 6000)
        self.assertEqual(self.times(0, 2**32 - 1), 10_000_000_000 - 1)
        self.assertEqual(self.times(5000, 6000), 10_000_000_000 + 1000)
        self.assertEqual(self.times(2**32 - 1000, 500), 10_000_000_000 + 1500)
        self.assertEqual(self.times(2**32 - 1, 0), 10_000_000_001)
        self.assertEqual(self.times(2**31, 0), 10_000_000_000 - 2**31)

    def test_before_1970(self):
        """A time before 1970, from an exporter without a clock, is no value."""
        self.assertIsNone(self.times(5000, 1000, seconds=1))

    def test_uptime_that_is_no_value(self):
        """Nothing is made of an uptime of a size that no number has (with H3C's variable length)."""
        packet = v9(
            a_set(0, template(256, (22, 65535))), a_set(256, b"\4" + struct.pack("!I", 90_000), b"\x09" + bytes(9))
        )
        self.assertEqual(
            Collected().rows(packet), [{"flowStartSysUpTime": 90_000, "flowStartMilliseconds": 990_000}, {}]
        )

    def test_clock_of_each_packet(self):
        """Records of several packets that are decoded together have the clock of their own packet."""
        found = Collected(frozenset({"flowStartMilliseconds"}))
        row = a_set(256, struct.pack("!I", 0), struct.pack("!I", 1000))
        packets = [v9(a_set(0, template(256, (22, 4))), row, number=0, seconds=2000, uptime=10_000)]
        packets.append(v9(row, number=1, seconds=2005, uptime=20_000))
        (batch,) = found.batches(*packets)
        self.assertEqual(batch.columns["flowStartMilliseconds"].tolist(), [1_990_000, 1_991_000, 1_985_000, 1_986_000])
        self.assertEqual(set(batch.schema), {"flowStartMilliseconds"})

    def test_own_times(self):
        """A template with the absolute time keeps what the record says."""
        packet = v9(a_set(0, template(256, (22, 4), (152, 8))), a_set(256, struct.pack("!IQ", 90_000, 123_456)))
        (row,) = Collected().rows(packet)
        self.assertEqual(row["flowStartMilliseconds"], 123_456)

    def test_only_what_is_wanted(self):
        """Nothing is added that nobody asked for."""
        (batch,) = Collected(frozenset({"octetDeltaCount"})).batches(v9(a_set(0, FLOW9), a_set(256, ROW9)))
        self.assertEqual(list(batch.schema), ["octetDeltaCount"])

    def test_options(self):
        """V9-4: scopes by octets of fields, their names; one without a scope is an options record too."""
        scoped = v9_options(300, [(1, 4), (2, 2), (3, 1), (4, 0), (5, 1), (9, 1)], [(34, 4)])
        alone = v9_options(301, [], [(34, 4)])
        found = Collected()
        batches = found.batches(
            v9(
                a_set(1, scoped, alone, b"\0\0"),
                a_set(300, hexed("0a000001 0007 03 05 09 00000064")),
                a_set(301, hexed("00000002")),
            )
        )
        rows = [row for batch in batches for row in batch.rows()]
        self.assertEqual([row["record_kind"] for row in rows], [b"options", b"options"])
        kept = [{k: v for k, v in row.items() if k.startswith(("scope", "v9scope", "sampling"))} for row in rows]
        expected = {"scopeSystem": 0x0A000001, "scopeInterface": 7, "scopeLineCard": 3, "scopeCache": b"",
                    "scopeTemplate": 5, "v9scope9": b"\x09", "samplingInterval": 100}  # fmt: skip
        self.assertEqual(kept, [expected, {"samplingInterval": 2}])

    def test_meanings(self):
        """V9-3, V9-7: 40000 is a number as any; IPFIX's reading of it, with an enterprise, is another layout."""
        found = Collected()
        fields = template(256, (40000, 4), (40005, 1), (65, 2), (1, 4))
        (row,) = found.rows(v9(a_set(0, fields), a_set(256, b"joe\0", b"\2", b"ab", struct.pack("!I", 5))))
        self.assertEqual(row, {"username": b"joe\0", "fw_event": 2, "v9id65": b"ab", "octetDeltaCount": 5})

    def test_domains_apart(self):
        """Templates and sequences of v9 and IPFIX with equal ids of one peer have nothing in common."""
        found = Collected()
        data = a_set(256, struct.pack("!I", 7))
        rows = found.rows(
            v9(a_set(0, template(256, (2, 4))), data, number=5),
            message(a_set(2, template(256, (1, 4))), data, number=100),
            v9(data, number=6),
            message(data, number=101),
        )
        self.assertEqual(Counter(map(tuple, rows)), {("packetDeltaCount",): 2, ("octetDeltaCount",): 2})
        self.assertEqual((found.lost, found.errors), (0, {}))

    def test_sequence(self):
        """V9-2: packets are counted, not records, for each Source ID."""
        found = Collected()
        data = a_set(256, ROW9, ROW9, ROW9)
        found.feed(
            v9(a_set(0, FLOW9), data, number=2**32 - 1), v9(data, number=0), v9(data, number=3), v9(number=9, source=2)
        )
        self.assertEqual(found.lost, 2)
        self.assertEqual([e.detail for e in found.decoder.events if e.kind == "sequence_gap"], ["2 packets"])
        found.feed(v9(data, number=1))
        self.assertEqual((found.lost, found.errors), (1, {}))

    def test_replaced(self):
        """V9-5: another template of the same id counts from then on; the same one again is no event."""
        found = Collected()
        data = a_set(256, struct.pack("!I", 7))
        rows = found.rows(
            v9(a_set(0, template(256, (1, 4))), data, number=0),
            v9(a_set(0, template(256, (1, 4))), data, number=1),
            v9(a_set(0, template(256, (2, 4))), data, number=2),
        )
        self.assertEqual(
            sorted(rows, key=str), [{"octetDeltaCount": 7}, {"octetDeltaCount": 7}, {"packetDeltaCount": 7}]
        )
        self.assertEqual(
            [kind for kind in found.kinds if kind.startswith("template")], ["template", "template_changed"]
        )

    def test_fill(self):
        """V9-7: zeros after the last FlowSet; else an impossible length is malformed, what is before stays."""
        good = v9(a_set(0, FLOW9), a_set(256, ROW9))
        for fill, malformed in ((b"\0", 0), (b"\7\7\7", 0), (bytes(600), 0), (bytes(8) + b"\1", 1), (b"\1\0\0\3", 1)):
            found = Collected()
            self.assertEqual(len(found.rows(good + fill)), 1, fill)
            self.assertEqual(
                (found.decoder.malformed, found.counters.errors["set_length"]), (malformed, malformed), fill
            )

    def test_records_of_no_octets(self):
        """A template of records without octets, and H3C's length 65535, which IPFIX would read as variable."""
        found = Collected()
        self.assertEqual(found.rows(v9(a_set(0, template(256, (1, 0))), a_set(256, b"abcd"))), [])
        self.assertEqual(found.errors, {"empty_records": 1})
        found = Collected()
        packet = v9(a_set(0, template(256, (82, 65535), (1, 4))), a_set(256, b"\4eth0", struct.pack("!I", 5)))
        self.assertEqual(found.rows(packet), [{"interfaceName": b"eth0", "octetDeltaCount": 5}])
        self.assertEqual(found.rows(v9(a_set(256, b"\xc8eth0", bytes(10)), number=1)), [])
        self.assertEqual((found.decoder.malformed, found.errors), (1, {"record": 1}))

    def test_lists(self):
        """A list of variable length is read by the templates of its own domain, as in IPFIX (RFC 6313)."""
        found, records = Collected(), b"\3" + struct.pack("!HI", 257, 5)  # allOf, template 257, one record
        packet = v9(
            a_set(0, template(257, (1, 4)) + template(256, (292, 65535))), a_set(256, bytes([len(records)]) + records)
        )
        texts = [row["subTemplateList"] for row in found.rows(packet)]
        self.assertEqual(texts, [b'{"semantic":3,"template":257,"records":[{"octetDeltaCount":5}]}'])

    def test_templates_that_are_wrong(self):
        """One that is cut costs its FlowSet from there on, an id below 256 or no field that template; nothing more."""
        other, data = template(300, (4, 1)), a_set(300, b"\6")
        for set_id, octets in (
            (0, other + FLOW9[:-1]),
            (0, template(255, (1, 4)) + other),
            (0, other + template(256)),
            (1, struct.pack("!HHH", 256, 65532, 65532) + bytes(range(1, 9))),
        ):
            found = Collected()
            packet = v9(a_set(set_id, octets), a_set(256, ROW9), a_set(0, other), data)
            self.assertEqual(found.rows(packet), [{"protocolIdentifier": 6}])
            self.assertEqual((found.decoder.malformed, found.errors), (0, {"template": 1, "no_template": 1}), octets)

    def test_option_lengths(self):
        """Lengths of an options template that are no whole number of fields are read in whole fields."""
        for scope, options in ((4, 9), (4, 11), (5, 8), (7, 10)):
            found = Collected()
            fields = struct.pack("!HHHHHH", 1, 4, 34, 4, 35, 1)
            record = struct.pack("!HHH", 256, scope, options) + fields
            after = v9_options(300, [(1, 4)], [(34, 4)])
            packet = v9(a_set(1, record, after), a_set(256, struct.pack("!IIB", 9, 100, 1)), a_set(300, bytes(8)))
            rows = found.rows(packet)
            self.assertEqual((rows[0]["samplingInterval"], rows[0]["samplingAlgorithm"]), (100, 1), (scope, options))
            self.assertEqual((2, {}), (len(rows), found.errors))

    def test_every_cut(self):
        """No cut of a packet raises, and the session is alive after it."""
        options = v9_options(300, [(1, 4)], [(34, 4)])
        packet = v9(a_set(0, FLOW9), a_set(1, options), a_set(256, ROW9), a_set(300, bytes(8)))
        for end in range(len(packet)):
            found = Collected()
            found.batches(packet[:end])
            self.assertEqual(len(found.rows(packet)), 2, end)

    @given(st.binary(max_size=120))
    def test_any_octets(self, octets):
        """Nothing raises, whatever follows a v9 or v5 header."""
        for packet in (v9(octets), v9(a_set(0, FLOW9), octets), v5(octets), b"\0\x09" + octets, b"\0\5" + octets):
            Collected().batches(packet)

    def test_slab(self):
        """Many packets in the rows of an array, with messages of IPFIX between them."""
        packets = [v9(a_set(0, FLOW9), number=0)] + [v9(a_set(256, ROW9), number=1 + i) for i in range(9)]
        packets[3:3] = [message(a_set(2, template(256, (1, 4)))), counts(1), v5(record5())]
        rows = np.zeros((len(packets), 256), np.uint8)
        for row, packet in zip(rows, packets, strict=True):
            row[: len(packet)] = np.frombuffer(packet, np.uint8)
        found = Collected()
        found.decoder.feed_slab([found.session] * len(packets), rows, np.array(list(map(len, packets))), 1.0)
        self.assertEqual(sorted(batch.n for batch in found.decoder.drain(1.0)), [1, 1, 9])
        self.assertEqual((found.lost, found.errors), (0, {}))


# An encoder of its own: (field type, octets, kind of the value)
_KINDS = (
    (1, 4, "u"), (1, 8, "u"), (2, 3, "u"), (4, 1, "u"), (5, 1, "u"), (7, 2, "u"), (10, 2, "u"), (10, 4, "u"),
    (8, 4, "4"), (12, 4, "4"), (62, 16, "6"), (56, 6, "u"), (61, 1, "u"), (82, 7, "s"), (95, 4, "s"), (40000, 5, "s"),
    (40001, 4, "4"), (57590, 2, "u"), (65, 2, "s"), (12345, 1, "s"),
)  # fmt: skip
_NAMES = {1: "octetDeltaCount", 2: "packetDeltaCount", 4: "protocolIdentifier", 5: "ipClassOfService",
          7: "sourceTransportPort", 10: "ingressInterface", 8: "sourceIPv4Address", 12: "destinationIPv4Address",
          62: "ipNextHopIPv6Address", 56: "sourceMacAddress", 61: "flowDirection", 82: "interfaceName",
          95: "applicationId",
          40000: "username", 40001: "xlate_src_addr_ipv4", 57590: "nprobe_proto", 65: "v9id65",
          12345: "v9id12345"}  # fmt: skip


class PropertyTests(SynchronousTestCase):
    """Packets of an encoder that knows nothing of ours."""

    @given(
        st.lists(st.sampled_from(_KINDS), min_size=1, max_size=8, unique_by=lambda kind: kind[0]),
        st.lists(st.integers(0, 2**512 - 1), min_size=1, max_size=5),
        st.integers(0, 3),
        st.integers(1, 4),
    )
    def test_records(self, kinds, seeds, padding, packets):
        """What an independent encoder writes is what is read: any template, any values, in any number of packets."""
        padding = min(padding, sum(octets for _, octets, _ in kinds) - 1)
        expected, records = [], []
        for seed in seeds:
            row, octets = {}, b""
            for ident, size, kind in kinds:
                seed, value = divmod(seed, 1 << 8 * size)
                octets += value.to_bytes(size, "big")
                row[_NAMES[ident]] = value.to_bytes(size, "big") if kind == "s" else value
            expected.append(row)
            records.append(octets)
        data = a_set(256, *records, bytes(padding))
        found = Collected()
        found.feed(v9(a_set(0, template(256, *(kind[:2] for kind in kinds))), number=0))
        rows = found.rows(*(v9(data, number=1 + number) for number in range(packets)))
        self.assertEqual(rows, expected * packets)
        self.assertEqual((found.lost, found.errors), (0, {}))


class Version5Tests(SynchronousTestCase):
    """Octets written by hand."""

    def test_record(self):
        """V5-1, V5-2: the classic names, absolute times with the nanoseconds of the header; domain = type and id."""
        found = Collected()
        (batch,) = found.batches(v5(record5(), nanoseconds=250_000_000))
        (row,) = batch.rows()
        self.assertEqual(
            row,
            {
                "exporter": ipv4("192.0.2.1"), "exporter_port": 5000, "observationDomainId": 0x0102, "templateId": 5,
                "record_kind": b"data", "received_ms": 2_000_000, "export_time": 1000,
                "srcaddr": ipv4("192.0.2.1"), "dstaddr": ipv4("198.51.100.7"), "nexthop": ipv4("203.0.113.1"),
                "input": 3, "output": 4, "dPkts": 10, "dOctets": 1000, "first": 90_000, "last": 95_000,
                "srcport": 1024, "dstport": 53, "tcp_flags": 0x1B, "prot": 17, "tos": 0x20,
                "src_as": 65000, "dst_as": 65001, "src_mask": 24, "dst_mask": 16,
                "flowStartMilliseconds": 990_250, "flowEndMilliseconds": 995_250,
            },
        )  # fmt: skip
        self.assertEqual(found.errors, {})

    def test_wrap(self):
        """The uptime began again between the start of the flow and its end."""
        (row,) = Collected().rows(v5(record5(first=2**32 - 1000, last=500), uptime=2000, seconds=10_000_000))
        self.assertEqual((row["flowStartMilliseconds"], row["flowEndMilliseconds"]), (9_999_997_000, 9_999_998_500))

    def test_no_uptime(self):
        """A header whose uptime is 0: the latest flow of the packet ended when it was sent, in v5 and v9."""
        fields = ((8, 4), (22, 4), (21, 4))
        records = [struct.pack("!III", 1, *times) for times in ((864_000_000, 864_005_000), (864_001_000, 864_002_000))]
        for sent in (
            v9(a_set(0, template(256, *fields)), a_set(256, *records), uptime=0, seconds=1_700_000_000),
            v5(record5(first=864_000_000, last=864_005_000), record5(first=864_001_000, last=864_002_000), uptime=0,
               seconds=1_700_000_000),
        ):  # fmt: skip
            rows = Collected(reliable=False).rows(sent)
            self.assertEqual(
                [(1_699_999_995_000, 1_700_000_000_000), (1_699_999_996_000, 1_699_999_997_000)],
                [(row["flowStartMilliseconds"], row["flowEndMilliseconds"]) for row in rows],
            )
        (row,) = Collected(frozenset({"flowStartMilliseconds"})).rows(v5(record5(), uptime=0))
        self.assertEqual({"flowStartMilliseconds": 995_000}, row)

    def test_sequence(self):
        """Flows are counted, for each engine."""
        found = Collected()
        found.feed(v5(record5(), record5(), number=9), v5(record5(), record5(), number=11), v5(record5(), number=16))
        found.feed(v5(record5(), number=500, engine=(1, 3)))
        self.assertEqual((found.lost, found.errors), (3, {}))

    def test_count(self):
        """A count beyond the packet drops it whole; octets after the last record are counted."""
        found = Collected()
        self.assertEqual(found.rows(v5(record5(), record5(), count=3)), [])
        self.assertEqual((found.decoder.malformed, found.errors), (1, {"length": 1}))
        self.assertEqual(len(found.rows(v5(record5(), b"abc", count=1))), 1)
        self.assertEqual(found.errors, {"length": 1, "trailing": 1})
        self.assertEqual(found.rows(v5()), [])

    def test_every_cut(self):
        """Each cut of a packet is malformed and raises nothing."""
        packet = v5(record5(), record5())
        for end in range(2, len(packet)):
            found = Collected()
            self.assertEqual(found.rows(packet[:end]), [], end)
            self.assertEqual(found.errors, {"length": 1}, end)

    def test_ipv6_exporter(self):
        """An exporter of the other family has its own layout."""
        (batch,) = Collected(peer="2001:db8::1").batches(v5(record5()))
        self.assertEqual(next(iter(batch.rows()))["exporter"], 0x20010DB8 << 96 | 1)


class RequestTests(SynchronousTestCase):
    """Who asks by IANA's name, or by v5's, gets the datum of any version."""

    PACKETS = (
        v5(record5()),
        v9(a_set(0, template(256, (8, 4), (1, 4), (2, 4), (7, 2), (4, 1), (22, 4))),
           a_set(256, hexed("c0000201 000003e8 0000000a 0400 11"), struct.pack("!I", 90_000))),
        message(a_set(2, template(257, (8, 4), (1, 4), (2, 4), (7, 2), (4, 1), (152, 8))),
                a_set(257, hexed("c0000201 000003e8 0000000a 0400 11"), struct.pack("!Q", 990_000))),
    )  # fmt: skip
    VALUES = {
        "sourceIPv4Address": ipv4("192.0.2.1"), "sourceAddress": ipv4("192.0.2.1"), "srcaddr": ipv4("192.0.2.1"),
        "octetDeltaCount": 1000, "dOctets": 1000, "packetDeltaCount": 10, "dPkts": 10, "sourceTransportPort": 1024,
        "protocolIdentifier": 17, "prot": 17, "orig.ip.protocol": 17, "flowStartMilliseconds": 990_000,
        "flowStartSeconds": 990, "flow.start.sec": 990,
    }  # fmt: skip

    def test_by_name(self):
        """Also where everything is wanted, by someone else."""
        provided, sources = Provided((), open_=True), Sources()
        for name in self.VALUES:
            sources.add(name, provided.recipes(name))
        wanted = frozenset(i for recipes in sources.recipes.values() for recipe in recipes for i in recipe.inputs)
        for whose in (wanted, ALL):
            batches = Collected(whose).batches(*self.PACKETS)
            self.assertEqual(len(batches), 3)
            for batch in batches:
                found = {name: sources.find(batch, name) for name in self.VALUES}
                self.assertEqual({n: f and f.values.tolist()[0] for n, f in found.items()}, self.VALUES, batch)

    def test_names_of_v9_alone(self):
        """A field type that only v9 knows, an unknown one and a scope can be asked for."""
        provided = Provided((), open_=True)
        for name in ("username", "fw_event", "v9id65", "scopeSystem", "v9scope77"):
            self.assertIn(name, {i for recipe in provided.recipes(name) for i in recipe.inputs})
        self.assertEqual(provided.recipes("scopeNothing"), ())

    def test_elements_of_v5(self):
        """Each field of v5 is the Information Element that it says."""
        meanings = {
            "srcaddr": "sourceIPv4Address", "dstaddr": "destinationIPv4Address", "nexthop": "ipNextHopIPv4Address",
            "input": "ingressInterface", "output": "egressInterface", "dPkts": "packetDeltaCount",
            "dOctets": "octetDeltaCount", "first": "flowStartSysUpTime", "last": "flowEndSysUpTime",
            "srcport": "sourceTransportPort", "dstport": "destinationTransportPort", "tcp_flags": "tcpControlBits",
            "prot": "protocolIdentifier", "tos": "ipClassOfService", "src_as": "bgpSourceAsNumber",
            "dst_as": "bgpDestinationAsNumber", "src_mask": "sourceIPv4PrefixLength",
            "dst_mask": "destinationIPv4PrefixLength",
        }  # fmt: skip
        self.assertEqual({key.name: registry.element(*key.element).name for key in NETFLOW5_KEYS}, meanings)

    def test_tables(self):
        """No name of v9's own or of v5 is one of IANA's or ulogd2's; a v5 key has its element's kind of type."""
        own = {key.name for key in registry.netflow9.values() if key.element[0] == NETFLOW9}
        own |= {key.name for key in NETFLOW5_KEYS}
        others = {key.name for key in registry.iana.values()} | set(registry.ulogd) | set(registry.netfilter)
        self.assertEqual(own & others, set())
        for key in NETFLOW5_KEYS:
            self.assertEqual(key.type.kind, registry.element(*key.element).type.kind)


@st.composite
def packet_runs(draw):
    """Runs of packets of v9 and v5, mostly alike, of two sessions: (session, packet)."""
    found, numbers, flows = [], {}, {}
    for _ in range(draw(st.integers(1, 6))):
        session = draw(st.integers(0, 1))
        kind = draw(st.sampled_from(("v9", "v9", "v5", "v5", "told", "two", "options", "ipfix", "cut")))
        source = draw(st.sampled_from((1, 1, 2)))
        rows = draw(st.integers(0, 3))
        seconds = draw(st.sampled_from((1000, 1001)))
        for _ in range(draw(st.sampled_from((1, 3, 4, 9)))):
            uptime = draw(st.integers(90_000, 110_000))
            jump = draw(st.sampled_from((0,) * 9 + (1, -1, 1 << 31)))
            if kind in ("v5", "cut"):
                number = flows.get((session, source), 0)
                octets = v5(*[record5(octets=n) for n in range(rows)], number=(number + jump) & 0xFFFFFFFF,
                            uptime=uptime, seconds=seconds, nanoseconds=draw(st.sampled_from((0, 5_000_000))),
                            engine=(0, source))  # fmt: skip
                octets = octets[:-1] if kind == "cut" else octets
                flows[session, source] = number + rows
            elif kind == "ipfix":
                octets = counts(*range(rows), number=0)
            else:
                number = numbers.get((session, source), 0)
                sets = {
                    "v9": [a_set(256, *[ROW9] * rows, bytes(draw(st.sampled_from((0, 0, 2)))))],
                    "two": [a_set(256, ROW9), a_set(256, ROW9)],
                    "told": [a_set(0, FLOW9)],
                    "options": [a_set(1, v9_options(300, [(1, 4)], [(34, 4)])), a_set(300, bytes(8))],
                }[kind]
                octets = v9(*sets, number=(number + jump) & 0xFFFFFFFF, source=source, uptime=uptime, seconds=seconds)
                numbers[session, source] = number + 1
            found.append((session, octets))
    return found


class SlabTests(SynchronousTestCase):
    """Packets in the rows of an array."""

    def fed(self, parts, at_once):
        found = Collected(reliable=False)
        sessions = [found.session, Session("2001:db8::1", 1, reliable=False)]
        for session in sessions:
            found.decoder.feed(session, v9(a_set(0, FLOW9), number=0xFFFFFFFF), 1.0)
            found.decoder.feed(session, message(a_set(2, template(256, (1, 4)))), 1.0)
        out = []
        for part in parts:
            if at_once:
                rows = np.full((len(part), 256), 0xA5, np.uint8)
                for row, (_, packet) in zip(rows, part, strict=True):
                    row[: len(packet)] = np.frombuffer(packet, np.uint8)
                lengths = np.array([len(packet) for _, packet in part])
                found.decoder.feed_slab([sessions[i] for i, _ in part], rows, lengths, 2.5)
                rows[:] = 0x5A
            else:
                for session, packet in part:
                    found.decoder.feed(sessions[session], packet, 2.5)
            for batch in found.decoder.drain(3.0):
                check(batch)
                out.append([sorted(row.items()) for row in batch.rows()])
        return out, found.counters.as_dict(), found.kinds, [(s.messages, s.lost) for s in sessions]

    def test_a_number_far_ahead(self):
        """A number that is far ahead in the midst of others: what comes after is judged as if each came alone."""
        for lib in dict.fromkeys((decoder.lib, None)):
            self.patch(decoder, "lib", lib)
            for packet in (
                lambda number, seconds: v9(a_set(256, ROW9), number=number, seconds=seconds, uptime=100 * seconds),
                lambda number, seconds: message(a_set(256, bytes(4)), number=number, export_time=seconds),
            ):
                run = [(0, packet(number, 1000)) for number in (0, 1, (1 << 31) - 2, 2, 3, 4)]
                parts = [run, [(0, packet(number, 1001)) for number in (5, 6, 7)]]
                self.assertEqual(self.fed(parts, False), self.fed(parts, True))

    @given(st.lists(packet_runs(), min_size=1, max_size=3))
    def test_same_as_one_by_one(self, parts):
        """Rows, times, counters, events and order are those of feeding each packet, without the kernel."""
        self.patch(decoder, "lib", None)
        self.assertEqual(self.fed(parts, False), self.fed(parts, True))

    @examples(200)
    @given(st.lists(packet_runs(), min_size=1, max_size=3))
    def test_same_as_one_by_one_walked(self, parts):
        """The same by the kernel, but for the order of different templates' rows."""
        plain, walked = self.fed(parts, False), self.fed(parts, True)
        for found in (plain, walked):
            found[0][:] = sorted(repr(row) for batch in found[0] for row in batch)
            found[2].sort()
        self.assertEqual(plain, walked)


class SeldomTests(SynchronousTestCase):
    """Counters under v5's own names, where a stack asks for octets and packets only."""

    def test_counters_of_v5(self):
        """AGGREGATE below COLLECTOR, and nothing that asks for every key."""
        text = "[global]\nstack=c:COLLECTOR,a:AGGREGATE,g:GPRINT\n[a]\nkey=protocolIdentifier\n[g]\nfile=stdout\n"
        graph = tap.Built(config.parse(text, "f"), prepare=False).graph
        decoder = graph.inputs[0].plugin.decoder()
        decoder.feed(Session("192.0.2.1", 40000, reliable=False), v5(record5()), 1000.0)
        (batch,) = decoder.drain(1000.0)
        aggregate = graph.filters[0].plugin
        for name, expected in (("octetDeltaCount", 1000), ("packetDeltaCount", 10)):
            self.assertEqual([expected], aggregate.find(batch, name).values.tolist(), name)
