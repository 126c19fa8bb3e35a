"""Cases from the field: exports after public reports, each with the right value, to JSON and AGGREGATE -> SQLITE3.

The inputs stand in `shared/cases`, captures in ``wire`` and messages in ``ipfix``. Each goes over UDP to a running
service and through PCAPIN; `CASES` says where the right values of its file are to be seen.
"""

import contextlib
import functools
import json
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import TestCase

from tests.live.service import Service, temporary
from tests.support import TOP, free_port, shared_path
from tests.unit.packets import wire as packets

NOT_YET = {}
"""Why a case is not right yet, by its name or ``NAME json``, ``NAME sqlite``: that is an expected failure."""


# the cases


class Outcome(NamedTuple):
    """What came out: Data Records of JSON, rows of the table, counters of the input."""

    rows: list[dict]
    sums: list[dict]
    counters: dict


class Case(NamedTuple):
    """Key columns of AGGREGATE, and what compares the outcome with the case's ``expected``."""

    key: str
    json: Callable[[Outcome, dict], None]
    sqlite: Callable[[Outcome, dict], None]
    options: str = ""


def same(expected, got):
    """Raise AssertionError with both where they differ."""
    assert expected == got, f"expected {expected}, got {got}"


def part(row, names):
    """A row with these columns only."""
    return {name: row.get(name) for name in names}


def a_row_has(rows, wanted):
    """Some row has all the wanted values."""
    assert any(part(row, wanted) == wanted for row in rows), f"no row with {wanted} in {rows}"


_AS_JSON = {"first_ms": "flowStartMilliseconds", "last_ms": "flowEndMilliseconds"}
_AS_SUMS = {"octetDeltaCount": "octets", "packetDeltaCount": "packets"}


def fields(*left_out, **others):
    """Compares a record with the expected fields, without some, under other names."""

    def compare(outcome, expected):
        names = {name: (_AS_JSON | others).get(name, name) for name in expected if name not in left_out}
        a_row_has(outcome.rows, {to: expected[name] for name, to in names.items()})

    return compare


def summed(*left_out, **others):
    """Compares a row of the table with the expected fields, without some, under other names."""

    def compare(outcome, expected):
        names = {name: (_AS_SUMS | others).get(name, name) for name in expected if name not in left_out}
        a_row_has(outcome.sums, {to: expected[name] for name, to in names.items()})

    return compare


def times_of_all(rows, names, expected):
    """Every row has the expected times; there are as many rows as expected."""
    same(
        [(expected["first_ms"], expected["last_ms"])] * expected["rows"], [tuple(part(r, names).values()) for r in rows]
    )


def gateway_json(outcome, expected):
    """Autonomous systems of three samples; communities and preference, wherever they stand, of the first."""
    first, second, third, *_ = outcome.rows
    sample = dict(expected["sample1"])
    communities, preference = sample.pop("communities"), sample.pop("localpref")
    same(sample, part(first, sample))
    text = json.dumps(first)
    assert all(f'"{community}"' in text or community in text for community in communities), text
    assert preference in first.values(), text
    same([], [name for name in second if name.startswith("bgp")])
    same(expected["sample3"], part(third, expected["sample3"]))


def gateway_sums(outcome, expected):
    """Groups by autonomous system: that of the first sample, one without, and one with the number 0."""
    sample = {k: v for k, v in expected["sample1"].items() if k.startswith("bgp")}
    a_row_has(outcome.sums, sample)
    a_row_has(outcome.sums, {"bgpSourceAsNumber": None, "bgpDestinationAsNumber": None})
    a_row_has(outcome.sums, expected["sample3"])


def samples_json(outcome, expected):
    """As many rows with the packet's source as there are samples."""
    same(["192.0.2.10"] * expected["samples"], [row.get("sourceIPv4Address") for row in outcome.rows])


def samples_sums(outcome, expected):
    """One group of as many flows."""
    same([("192.0.2.10", expected["samples"])], [(row["sourceAddress"], row["flows"]) for row in outcome.sums])


def names_json(outcome, expected):
    """Both records have the name without its padding."""
    same([expected["userName"]] * 2, [row["userName"] for row in outcome.rows])


def names_sums(outcome, expected):
    """Both are one group."""
    columns = ("userName", "octets")
    same([part(expected, columns)], [part(row, columns) for row in outcome.sums])


def ends(rows, address, port):
    """The sources of rows as ADDRESS:PORT, as the case of tunnels writes them."""
    return [f"{row.get(address) or row.get('sourceIPv6Address')}:{row.get(port)}" for row in rows]


def inner_json(outcome, expected):
    """The packets within; the rows of a family come together."""
    wanted = [text.partition(" ")[0] for text in expected["inner wanted on request"]]
    same(sorted(wanted), sorted(ends(outcome.rows, "sourceIPv4Address", "sourceTransportPort")))


def inner_sums(outcome, expected):
    """As many flows from each source."""
    wanted = [text.partition(" ")[0] for text in expected["inner wanted on request"]]
    got = ends([row for row in outcome.sums for _ in range(row["flows"])], "sourceAddress", "sourceTransportPort")
    same(sorted(wanted), sorted(got))


def factors(rows, expected):
    """The factor of each template."""
    same({int(ident): rate for ident, rate in expected.items()}, {r["templateId"]: r["sampling_factor"] for r in rows})


LAYER = ("sourceIPv4Address", "sourceTransportPort", "destinationIPv4Address", "destinationTransportPort",
         "protocolIdentifier")  # fmt: skip


def layers_json(outcome, expected):
    """The inner tuple under the bare names, the ends of the outer one as those of a tunnel."""
    row = next(row for row in outcome.rows if row["templateId"] == 340)
    inner, outer = expected["340"]["inner"], expected["340"]["outer"]
    same(inner, [row.get(name) for name in LAYER])
    same(outer, [row.get(f"tunnel.{name}") for name in ("source", "destination", "protocol")])
    same((None, None), (row.get("sourceIPv6Address"), row.get("destinationIPv6Address")))
    same([expected[name] for name in _AS_JSON], [row.get(name) for name in _AS_JSON.values()])


def layers_sums(outcome, expected):
    """The inner tuple is the group."""
    row = next(row for row in outcome.sums if row["templateId"] == 340)
    same(expected["340"]["inner"], [row[name.replace("IPv4", "")] for name in LAYER])
    same((expected["first_ms"], expected["last_ms"]), (row["first_ms"], row["last_ms"]))


def restart_sums(outcome, expected):
    """All flows, and their octets together."""
    same(
        (expected["rows"], sum(expected["octets"])),
        tuple(sum(r[name] for r in outcome.sums) for name in ("flows", "octets")),
    )


def counted(outcome, name):
    """A counter such as errors.list is 1 or more."""
    kind, _, reason = name.partition(".")
    assert outcome.counters[kind].get(reason, 0) > 0, f"{name}: {outcome.counters[kind]}"


def overflow_json(outcome, expected):
    """No time, and a value counted."""
    same([expected["time"]], [row.get("flowStartMilliseconds") for row in outcome.rows])
    counted(outcome, "errors.value")


def overflow_sums(outcome, expected):
    """The group has no first time."""
    same([expected["time"]], [row["first_ms"] for row in outcome.sums])


def described_json(outcome, expected):
    """All records have the fields that were described in the same second."""
    wanted = part(expected, ("myCount", "myName"))
    same([wanted] * expected["records with myCount and myName"], [part(row, wanted) for row in outcome.rows])


def described_sums(outcome, expected):
    """As many flows."""
    same(expected["records with myCount and myName"], sum(row["flows"] for row in outcome.sums))


def list_json(outcome, expected):
    """Records are there with what their lists have, not with octets; the fault is counted."""
    lists = [value for row in outcome.rows for name, value in row.items() if name.startswith("subTemplate")]
    assert lists and all(isinstance(value, dict) for value in lists), outcome.rows
    counted(outcome, "errors.list")


def list_sums(outcome, expected):
    """All records are kept; the fault is counted."""
    same(len(outcome.rows), sum(row["flows"] for row in outcome.sums))
    counted(outcome, "errors.list")


CASES = {
    "01-iosxe-options-other-domain-ipfix": Case("sampling_factor", fields(), summed()),
    "01-iosxe-options-other-domain-v9": Case(
        "sampling_factor,applicationName,ingressInterfaceName", fields(), summed()
    ),
    "02-asa-nsel-initiator-responder": Case(
        "username",
        fields(
            "last_ms",
            octets="initiatorOctets",
            packets="initiatorPackets",
            reply_octets="responderOctets",
            reply_packets="responderPackets",
        ),
        summed(),
    ),
    "06-v9-option-length-9": Case("applicationName", fields("flows", "rule"), summed("rule")),
    "09-yaf-and-vpp-times": Case(
        "sourceTransportPort",
        lambda outcome, expected: times_of_all(outcome.rows, _AS_JSON.values(), expected),
        lambda outcome, expected: times_of_all(outcome.sums, _AS_JSON, expected),
    ),
    "21-sflow-gateway": Case(
        "bgpSourceAsNumber,bgpDestinationAsNumber,bgpNextAdjacentAsNumber", gateway_json, gateway_sums
    ),
    "27-sflow-v2-v4": Case("sourceAddress", samples_json, samples_sums),
    "29-sflow-tunnels": Case(
        "sourceAddress,sourceTransportPort,tunnel.protocol", inner_json, inner_sums, "tunnels=inner\n"
    ),
    "31-datalink-frame-section": Case(
        "5tuple,dataLinkFrameSize",
        fields(octets="octetDeltaCount"),
        summed(sourceIPv4Address="sourceAddress", destinationIPv4Address="destinationAddress"),
    ),
    "43-same-string-padded": Case("userName", names_json, names_sums),
    "46-sampling-per-template": Case(
        "templateId,sampling_factor",
        lambda outcome, expected: factors(outcome.rows, expected),
        lambda outcome, expected: factors(outcome.sums, expected),
    ),
    "47-restart-data-before-template": Case(
        "sourceAddress",
        lambda outcome, expected: same(expected["octets"], [row["octetDeltaCount"] for row in outcome.rows]),
        restart_sums,
    ),
    "48-iosxr-srv6-inner-outer": Case("5tuple,templateId", layers_json, layers_sums),
    "60-system-init-in-options": Case("sourceAddress", fields(), summed()),
    "cumulative_totals": Case(
        "5tuple",
        lambda outcome, expected: same(expected["octets"], max(row["octetTotalCount"] for row in outcome.rows)),
        lambda outcome, expected: same(expected["octets"], sum(row["octets"] for row in outcome.sums)),
    ),
    "ms_overflow": Case("sourceAddress", overflow_json, overflow_sums),
    "rfc5610_same_second": Case("templateId", described_json, described_sums),
    "stl_trailing": Case("templateId", list_json, list_sums),
    "stml_unknown_block": Case("templateId", list_json, list_sums),
    "zero_template": Case(
        "sourceAddress",
        lambda outcome, expected: same(expected["data records"], len(outcome.rows)),
        lambda outcome, expected: same(expected["data records"], sum(row["flows"] for row in outcome.sums)),
    ),
}
"""By the name of the file."""


# what runs them


CONFIG = """
[in1]
{options}
scale_sampled=1
add_names=1
[json1]
file="{{dir}}/flows.json"
[agg1]
key="{key}"
[sql1]
db="{{dir}}/flows.db"
table=flows
create=1
"""
TABLE_STACK = "agg1:AGGREGATE,sql1:SQLITE3"


def datagrams(path):
    """((source, its port), payload) of the UDP datagrams in a pcap file of IPv4 packets."""
    octets, at = path.read_bytes(), 24
    while at < len(octets):
        (size,) = struct.unpack_from("<I", octets, at + 8)
        packet = octets[at + 16 : at + 16 + size]
        begin = 4 * (packet[0] & 15)
        yield (packet[12:16], packet[begin : begin + 2]), packet[begin + 8 :]
        at += 16 + size


def messages(octets):
    """The Messages of an IPFIX file."""
    while octets:
        size = int.from_bytes(octets[2:4], "big")
        yield octets[:size]
        octets = octets[size:]


def expected_of(name):
    """What the file of a case says beside its input."""
    return json.loads(file_of(name, "json").read_text())


def file_of(name, ending):
    """A file of a case; leaves the test out where it is not there."""
    folder = "wire" if name[0].isdigit() else "ipfix"
    return shared_path("cases", folder, f"{name}.{ending}")


def capture_of(name):
    """The capture of a case; one is written for cases that are messages."""
    if name[0].isdigit():
        return file_of(name, "pcap")
    case = expected_of(name)
    octets = [bytes.fromhex(step["hex"]) for step in case.get("steps", ())]
    octets = octets or list(messages(file_of(name, "ipfix").read_bytes()))
    path = temporary("case") / f"{name}.pcap"
    sent = [packets.udp("192.0.2.1", "192.0.2.250", (40000, 4739), message) for message in octets]
    path.write_bytes(packets.pcap([(1_700_000_001, packet) for packet in sent]))
    return path


@functools.cache
def outcome(name, way):
    """What a case becomes on its way: ``udp`` or ``pcapin``."""
    path = capture_of(name)
    directory, counters = {"udp": over_udp, "pcapin": through_pcapin}[way](CASES[name], path)
    lines = (directory / "flows.json").read_text().splitlines() if (directory / "flows.json").exists() else ()
    rows = [row for row in map(json.loads, lines) if row["record_kind"] == "data"]
    return Outcome(rows, table_of(directory / "flows.db"), counters["in1"])


def table_of(path):
    """The rows of the table; none where nothing was stored."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute("SELECT * FROM flows")]
        except sqlite3.OperationalError:
            return []


def over_udp(case, path):
    """Send the datagrams, each exporter from a socket of its own; the directory of what was written, the counters."""
    sent, port = list(datagrams(path)), free_port("udp")
    config = CONFIG.format(options=f'listen="udp:127.0.0.1:{port}"\n{case.options}', key=case.key)
    stacks = ["in1:COLLECTOR,json1:JSON", f"in1:COLLECTOR,{TABLE_STACK}"]
    with Service(stacks, config) as service, contextlib.ExitStack() as opened:
        sockets = {}
        for source, payload in sent:
            if source not in sockets:
                sockets[source] = opened.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                sockets[source].connect(("127.0.0.1", port))
            sockets[source].send(payload)
        service.wait_for("in1", "messages_received", len(sent))
    return service.directory, service.all_counters()


def through_pcapin(case, path):
    """Replay the capture to its end."""
    config = CONFIG.format(options=f'file="{path}"\nexit=1\n{case.options}', key=case.key)
    service = Service(["in1:PCAPIN,json1:JSON", f"in1:PCAPIN,{TABLE_STACK}"], config)
    argv = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "--config", service.config]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=TOP)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return service.directory, service.all_counters()


class CasesTests(TestCase):
    """A test for each case, way and output; see `_add`."""

    timeout = 120

    def check(self, name, way, output):
        """Compare; a case of NOT_YET that is wrong is an expected failure, one that is right an unexpected success."""
        expected = expected_of(name)["expected"]
        if why := NOT_YET.get(f"{name} {output}") or NOT_YET.get(name):
            self.todo = why
        getattr(CASES[name], output)(outcome(name, way), expected)

    def test_all(self):
        """Every file of the two folders is a case here, and NOT_YET names cases only."""
        folder = shared_path("cases")
        found = {path.stem for kind in ("wire", "ipfix") for path in (folder / kind).glob("*.json")}
        self.assertEqual(found, set(CASES))
        self.assertEqual({name.split()[0] for name in NOT_YET} - set(CASES), set())


def _add(name, way, output):
    def test(self):
        self.check(name, way, output)

    test.__doc__ = f"{name}: {output}, {way}."
    setattr(CasesTests, f"test_{name.replace('-', '_')}_{way}_{output}", test)


for _name in CASES:
    for _way in ("udp", "pcapin"):
        for _output in ("json", "sqlite"):
            _add(_name, _way, _output)
