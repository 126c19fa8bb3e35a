"""Rows as FlowMessage beside Google's own library, and as Arrow IPC beside pyarrow."""

import ipaddress

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key, known
from ulogd_tw.kafka.flow_message import FIELDS, KEYS, FlowMessages, varint
from ulogd_tw.kafka.formats import ArrowRows, ProtobufRows, Terms
from ulogd_tw.kafka.row_keys import Anywhere, RowKeys

try:
    import pyarrow
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from hypothesis import strategies
except ImportError:
    pyarrow = strategies = None

NUMBERS = {
    "type": 1, "sampling_rate": 3, "src_addr": 6, "dst_addr": 7, "bytes": 9, "packets": 10, "sampler_address": 11,
    "next_hop": 12, "next_hop_as": 13, "src_as": 14, "dst_as": 15, "src_net": 16, "dst_net": 17, "in_if": 18,
    "out_if": 19, "proto": 20, "src_port": 21, "dst_port": 22, "ip_tos": 23, "forwarding_status": 24, "ip_ttl": 25,
    "tcp_flags": 26, "src_mac": 27, "dst_mac": 28, "vlan_id": 29, "etype": 30, "icmp_type": 31, "icmp_code": 32,
    "src_vlan": 33, "dst_vlan": 34, "fragment_id": 35, "fragment_offset": 36, "ipv6_flow_label": 37,
    "observation_domain_id": 70, "observation_point_id": 71, "bgp_next_hop": 100, "time_received_ns": 110,
    "time_flow_start_ns": 111, "time_flow_end_ns": 112,
}  # fmt: skip
"""The numbers in goflow2's flow.proto."""
OCTETS = {"src_addr", "dst_addr", "sampler_address", "next_hop", "bgp_next_hop"}
SCHEMA = Schema([
    known("sourceIPv4Address"), known("destinationIPv4Address"), known("sourceTransportPort"),
    known("octetDeltaCount"), known("flowStartMilliseconds"), known("sourceMacAddress"), Key("exporter", types.IPV6),
])  # fmt: skip


def flow_message():
    """The class of FlowMessage, made by Google's library."""
    file = descriptor_pb2.FileDescriptorProto(name="flow.proto", package="flowpb", syntax="proto3")
    message = file.message_type.add(name="FlowMessage")
    for name, number in NUMBERS.items():
        message.field.add(name=name, number=number, label=1, type=12 if name in OCTETS else 4)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("flowpb.FlowMessage"))


def batch(octets, ports=None, missing=None):
    """Rows with these numbers."""
    n = len(octets)
    columns = {
        "sourceIPv4Address": np.arange(0x0A000000, 0x0A000000 + n, dtype=np.uint32),
        "destinationIPv4Address": np.full(n, 0xC0000201, np.uint32),
        "sourceTransportPort": np.array(ports or [0] * n, np.uint16),
        "octetDeltaCount": np.array(octets, np.uint64),
        "flowStartMilliseconds": np.full(n, 1_795_961_999_123, np.uint64),
        "sourceMacAddress": np.full(n, 0x0242AC110002, np.uint64),
        "exporter": np.tile(np.array([0x20010DB8 << 32, 1], np.uint64), (n, 1)),
    }
    masks = {"destinationIPv4Address": np.array(missing)} if missing else None
    return Batch(SCHEMA, columns, masks, n=n, now=1.5)


class FlowMessageTests(SynchronousTestCase):
    """goflow2's FlowMessage."""

    if pyarrow is None:
        skip = "install: protobuf and pyarrow"

    def read(self, octets):
        return flow_message().FromString(octets)

    def values(self, rows):
        return FlowMessages(Anywhere(KEYS).find, False).values(rows).to_list()

    def test_numbers(self):
        """Each field has the number of flow.proto."""
        self.assertEqual({}, {f.name: f.number for f in FIELDS if NUMBERS[f.name] != f.number})

    def test_row(self):
        """A row has each of its keys in its field, addresses of 4 or 16 octets, times in nanoseconds."""
        (found,) = map(self.read, self.values(batch([1500], [443])))
        expected = flow_message()(
            type=4, src_addr=bytes([10, 0, 0, 0]), dst_addr=bytes([192, 0, 2, 1]), src_port=443, bytes=1500,
            etype=0x0800, time_flow_start_ns=1_795_961_999_123_000_000, src_mac=0x0242AC110002,
            sampler_address=ipaddress.ip_address("2001:db8::1").packed, time_received_ns=1_500_000_000,
        )  # fmt: skip
        self.assertEqual(str(expected), str(found))

    def test_octets_as_google_writes_them(self):
        """Our octets, written again by Google's library, have the same length: nothing is written in vain."""
        for octets in self.values(batch([0, 1, 127, 128, 2**63, 2**64 - 1], [0, 1, 127, 128, 16383, 65535])):
            self.assertEqual(len(octets), len(self.read(octets).SerializeToString()))

    def test_missing(self):
        """A missing value is no field."""
        found = [self.read(octets) for octets in self.values(batch([1, 2], missing=[True, False]))]
        self.assertEqual([b"", bytes([192, 0, 2, 1])], [one.dst_addr for one in found])

    @given(strategies and strategies.lists(strategies.integers(0, 2**64 - 1), min_size=1, max_size=40))
    def test_any_numbers(self, numbers):
        """Every number comes back."""
        self.assertEqual(numbers, [self.read(octets).bytes for octets in self.values(batch(numbers))])

    def test_many_rows(self):
        """More rows than are written at once come in their order."""
        found = self.values(batch(list(range(20_000))))
        self.assertEqual(list(range(0, 20_000, 999)), [self.read(octets).bytes for octets in found[::999]])

    def test_many_in_a_message(self):
        """Many rows of one message have their length before them."""
        rows = batch([300, 5])
        keys = RowKeys((), Anywhere(()).find)
        (sent,) = ProtobufRows(Terms(10, 9000, Anywhere(KEYS).find), keys).messages(rows, rows, 0).messages
        self.assertEqual(b"".join(varint(len(one)) + one for one in self.values(rows)), sent["value"])


class ArrowTests(SynchronousTestCase):
    """Arrow IPC."""

    if pyarrow is None:
        skip = "install: pyarrow"

    def messages(self, rows, most_rows=0, most_octets=900_000, key=()):
        chosen = RowKeys(key, Anywhere(key).find)
        return ArrowRows(Terms(most_rows, most_octets, None), chosen).messages(rows, rows, 3)

    def read(self, message):
        return pyarrow.ipc.open_stream(message["value"]).read_all()

    def test_columns(self):
        """pyarrow reads the columns: numbers, times, addresses of 16 octets, missing values as NULL."""
        (message,) = self.messages(batch([7, 8], [1, 2], missing=[True, False])).messages
        table = self.read(message)
        self.assertEqual([7, 8], table["octetDeltaCount"].to_pylist())
        self.assertEqual([None, 0xFFFF_C0000201], [v and v.int for v in table["destinationIPv4Address"].to_pylist()])
        self.assertEqual([1_795_961_999_123] * 2, table["flowStartMilliseconds"].to_pylist())

    def test_size(self):
        """Messages have about the octets that they may have, and each row is in one."""
        found = self.messages(batch(list(range(5000))), most_octets=50_000)
        self.assertLess(3, len(found.messages))
        self.assertLess(max(len(one["value"]) for one in found.messages), 60_000)
        self.assertEqual(
            list(range(5000)), [v for one in found.messages for v in self.read(one)["octetDeltaCount"].to_pylist()]
        )

    def test_partitions(self):
        """With a key, a message has the rows of one partition."""
        found = self.messages(batch(list(range(300))), key=("sourceAddress",))
        self.assertEqual({0, 1, 2}, {one["partition"] for one in found.messages})
        for message, rows in zip(found.messages, found.rows, strict=True):
            self.assertEqual(rows.tolist(), self.read(message)["octetDeltaCount"].to_pylist())
