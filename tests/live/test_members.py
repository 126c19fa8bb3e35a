"""Other members of the kinds of `test_cases`: what exporters send, written with struct, with right values by hand.

Each goes over UDP to a running service and through PCAPIN, to JSON and to AGGREGATE -> SQLITE3.
"""

import json
import socket
from typing import NamedTuple

from twisted.trial.unittest import TestCase

from tests.live.service import temporary
from tests.live.test_cases import Case, over_udp, table_of, through_pcapin
from tests.unit.ipfix.test_netflow import v9
from tests.unit.ipfix.test_scopes import flows, flows9, record, tell, tell9
from tests.unit.ipfix.wire import a_set, message, template
from tests.unit.packets import wire as packets

NOW = 1_700_000_000
"""Export Time of the first Message."""


class Member(NamedTuple):
    """Messages, the key of AGGREGATE, and the columns of all rows of either output as tuples."""

    messages: list[bytes]
    key: str
    json: tuple[tuple[str, ...], list[tuple]]
    sums: tuple[tuple[str, ...], list[tuple]]


def address(host):
    """10.0.0.HOST as octets."""
    return socket.inet_aton(f"10.0.0.{host}")


def ipfix(*sets, seconds=0, number=0, domain=1):
    """A Message of so many seconds after `NOW`."""
    return message(*sets, export_time=NOW + seconds, number=number, domain=domain)


TUPLE = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1)]
ENDS = record(address(1), address(2), (2, 1000), (2, 53), (1, 17))
FACTORS = ("sourceIPv4Address", "sampling_factor", "octetDeltaCount")
SUMS = ("sourceAddress", "octets")


def factors(*rows):
    """Columns of JSON and of the table for rows of (host, factor), each of 9 octets as sent."""
    return ((FACTORS, [(f"10.0.0.{host}", factor, 9 * factor) for host, factor in rows]),
            (SUMS, [(f"10.0.0.{host}", 9 * factor) for host, factor in rows]))  # fmt: skip


def samplers_by_interface():
    """Huawei: scope Interface, a sampler for each; flows name the interface only."""
    table = tell9(300, [(2, 4)], [(48, 1), (49, 1), (50, 2)], record((4, 5), (1, 1), (1, 2), (2, 100)),
                  record((4, 7), (1, 2), (1, 2), (2, 200)))  # fmt: skip
    rows = (record(address(n), (4, index), (4, 9)) for n, index in ((1, 5), (2, 7), (3, 9)))
    sent = flows9(256, [(8, 4), (10, 4), (1, 4)], *rows)
    packets = [v9(table, seconds=NOW), v9(sent, seconds=NOW, number=1)]
    return Member(packets, "sourceAddress", *factors((1, 100), (2, 200), (3, 1)))


def interface_of_the_direction():
    """A flow that was metered on its way out has the rate of the interface by which it leaves."""
    table = tell9(
        300, [(2, 4)], [(34, 4), (35, 1)], *(record((4, i), (4, rate), (1, 2)) for i, rate in ((5, 100), (7, 200)))
    )
    rows = (
        record(address(n), (4, i), (4, e), (1, d), (4, 9)) for n, i, e, d in ((1, 5, 7, 0), (2, 5, 7, 1), (3, 9, 7, 0))
    )
    sent = flows9(256, [(8, 4), (10, 4), (14, 4), (61, 1), (1, 4)], *rows)
    packets = [v9(table, seconds=NOW), v9(sent, seconds=NOW, number=1)]
    return Member(packets, "sourceAddress", *factors((1, 100), (2, 200), (3, 1)))


def rate_taken_back():
    """Sampling is switched off: the rate is 0 from then on."""
    messages = []
    for number, rate in enumerate((100, 0)):
        sets = tell(300, [(149, 4)], [(34, 4)], record((4, 1), (4, rate)))
        messages.append(ipfix(sets, flows(256, [(8, 4), (1, 4)], record(address(number), (4, 9))), number=2 * number))
    return Member(messages, "sourceAddress", *factors((0, 100), (1, 1)))


def names_with_rests():
    """A name ends at its first NUL; an empty one hides none of domain 0; ids of applications in fewer octets."""
    empty = tell(257, [(10, 4)], [(82, 8)], record((4, 5), bytes(8)))
    told = tell(257, [(10, 4)], [(82, 8)], record((4, 5), b"eth0\0\xff\xfe\1"))
    apps = tell(258, [(95, 4)], [(96, 4)], record(b"\x0d\0\1\xc5", b"ssl\0"))
    rows = {size: record((4, 5), b"\x0d" + (453).to_bytes(size - 1, "big"), (4, 9)) for size in (3, 4, 6)}
    sent = [flows(300 + size, [(10, 4), (95, size), (1, 4)], row) for size, row in rows.items()]
    names = ("ingressInterfaceName", "applicationName")
    messages = [ipfix(told, domain=0), ipfix(empty, apps), *(ipfix(one, number=2 + n) for n, one in enumerate(sent))]
    return Member(messages, "applicationId,ingressInterfaceName,applicationName", (names, [("eth0", "ssl")] * 3),
                  (("applicationId", *names, "flows"), [("13:453", "eth0", "ssl", 3)]))  # fmt: skip


def totals(*rows):
    """Messages of one flow, each with a row of start and end in seconds after `NOW`, reason and octets."""
    first, *others = (
        record(ENDS, (8, 1000 * (NOW + start)), (8, 1000 * (NOW + end)), (1, reason), (8, octets), (8, octets // 10))
        for start, end, reason, octets in rows
    )
    layout = [*TUPLE, (152, 8), (153, 8), (136, 1), (85, 8), (86, 8)]
    return [ipfix(flows(256, layout, first)), *(ipfix(a_set(256, one), number=n) for n, one in enumerate(others, 1))]


def active_timeouts():
    """YAF: at each active timeout a new flow begins, with a new start and totals from 0."""
    messages = totals((-90, -60, 2, 100), (-60, -30, 2, 200), (-30, -1, 1, 50))
    return Member(
        messages, "5tuple", (("octetTotalCount",), [(100,), (200,), (50,)]), (("flows", "octets"), [(3, 350)])
    )


def late_totals():
    """Totals of one flow that overtake each other."""
    messages = totals((-90, -60, 0, 100), (-90, -30, 0, 300), (-90, -45, 0, 200), (-90, -1, 0, 400))
    columns = ("octetTotalCount",), [(100,), (300,), (200,), (400,)]
    return Member(messages, "5tuple", columns, (("flows", "octets"), [(4, 400)]))


def inner_ethernet():
    """MAC addresses of both headers beside one tuple: those of the inner one."""
    fields = [(56, 6), (80, 6), (56, 6), (80, 6), (8, 4), (1, 4)]
    row = record((6, 1), (6, 2), (6, 3), (6, 4), address(1), (4, 9))
    inner = ("00:00:00:00:00:03", "00:00:00:00:00:04")
    names = ("sourceMacAddress", "destinationMacAddress")
    return Member([ipfix(flows(256, fields, row))], ",".join(names), (names, [inner]), (names, [inner]))


def restart_told_beside_data():
    """A new start of the exporter in front of data in one Message: the template of the former life is not used."""
    before = a_set(2, template(256, (8, 4), (1, 4)))
    boot = [tell(300, [(149, 4)], [(160, 8)], record((4, 1), (8, 1000 * (NOW + at)))) for at in (-9000, 50)]
    messages = [
        ipfix(before, boot[0], a_set(256, record(address(1), (4, 9)))),
        ipfix(boot[1], a_set(256, record((4, 9), address(2))), seconds=60, number=2),
        ipfix(a_set(2, template(256, (1, 4), (8, 4))), seconds=61, number=4),
    ]
    return Member(messages, "sourceAddress", *factors((1, 1), (2, 1)))


def scaled_beyond_64_bits():
    """2^60 octets of one in a thousand packets: 2^64-1."""
    sets = (
        tell(300, [(149, 4)], [(34, 4)], record((4, 1), (4, 1000))),
        flows(256, [(8, 4), (1, 8)], record(address(1), (8, 2**60))),
    )
    most = 2**64 - 1
    return Member([ipfix(*sets)], "sourceAddress", (("octetDeltaCount",), [(most,)]), (("octets",), [(str(most),)]))


MEMBERS = (samplers_by_interface, interface_of_the_direction, rate_taken_back, names_with_rests, active_timeouts,
           late_totals, inner_ethernet, restart_told_beside_data, scaled_beyond_64_bits)  # fmt: skip


def capture(member):
    """The file of its Messages, from one exporter."""
    path = temporary("member") / "sent.pcap"
    sent = [packets.udp("192.0.2.1", "192.0.2.250", (40000, 4739), octets) for octets in member.messages]
    path.write_bytes(packets.pcap([(NOW + 1, packet) for packet in sent]))
    return path


class MembersTests(TestCase):
    """A test for each member and way; see `_add`."""

    timeout = 120

    def check(self, make, run):
        """All rows of both outputs."""
        member = make()
        directory, _ = run(Case(member.key, None, None), capture(member))
        rows = [json.loads(line) for line in (directory / "flows.json").read_text().splitlines()]
        rows = [row for row in rows if row["record_kind"] == "data"]
        for (names, expected), found in ((member.json, rows), (member.sums, table_of(directory / "flows.db"))):
            self.assertCountEqual(expected, [tuple(row.get(name) for name in names) for row in found])


def _add(make, way, run):
    def test(self):
        self.check(make, run)

    test.__doc__ = f"{make.__doc__.splitlines()[0]} ({way})"
    setattr(MembersTests, f"test_{make.__name__}_{way}", test)


for _make in MEMBERS:
    _add(_make, "udp", over_udp)
    _add(_make, "pcapin", through_pcapin)
