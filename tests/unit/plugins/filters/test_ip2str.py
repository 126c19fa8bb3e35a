"""IP2STR against Python's own texts of addresses, one row at a time."""

import socket
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, Input, Output
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.ip2str import ADDRESSES, IP2STR

ADDRESS_KEYS = tuple(known(name) for name in ADDRESSES)


class Flows(Input):
    """Has the addresses of conntrack."""

    name = "FLOWS"
    otype = FLOW
    provides = ADDRESS_KEYS


class Sink(Output):
    """Asks for what `asked` says, and remembers the batches."""

    name = "SINK"
    itype = FLOW
    asked = ALL

    def requests(self, wanted):
        return self.asked

    def write(self, batch):
        self.got = batch


def stacked(asked=ALL):
    """The nodes of FLOWS -> IP2STR -> an output that asks for these keys."""
    classes = {"FLOWS": Flows, "IP2STR": IP2STR, "SINK": type("SINK", (Sink,), {"asked": asked})}
    builder = Builder(lambda name, _: classes[name], lambda _, class_: (Options(class_.all_options()), []))
    pairs = (("in1", "FLOWS"), ("str1", "IP2STR"), ("out1", "SINK"))
    graph = builder.build([StackSpec("x", "f:1", pairs)])
    assert not builder.mistakes, builder.mistakes
    return graph.nodes


def batch_of(missing=None, **held):
    """A batch of columns (`_` for a dot): integers for IPv4, pairs of halves for IPv6."""
    keys, columns = [], {}
    for name, values in held.items():
        name = name.replace("_", ".")
        wide = isinstance(values[0], tuple)
        keys.append(known(name).typed(types.IPV6 if wide else types.IPV4))
        columns[name] = np.array(values, np.uint64 if wide else np.uint32).reshape((-1, 2) if wide else -1)
    return Batch(Schema(keys), columns, missing, n=len(values), now=0.0)


class IP2STRTests(SynchronousTestCase):
    """The filter in a stack."""

    def passed(self, batch, asked=ALL):
        source, _, sink = stacked(asked)
        source.pass_on(batch)
        return sink.plugin.got

    def test_everything(self):
        """Where everything is printed, each address has its text beside it, IPv4 or IPv6."""
        got = self.passed(batch_of(orig_ip_saddr=[0x0A4D0001, 0xFFFFFFFF], reply_ip_daddr=[(0xFD77 << 48, 2), (0, 1)]))
        self.assertEqual([b"10.77.0.1", b"255.255.255.255"], got.columns["orig.ip.saddr.str"].to_list())
        self.assertEqual([b"fd77::2", b"::1"], got.columns["reply.ip.daddr.str"].to_list())
        names = ["orig.ip.saddr", "reply.ip.daddr", "orig.ip.saddr.str", "reply.ip.daddr.str"]
        self.assertEqual(names, list(got.schema))
        self.assertIs(types.STRING, got.schema["orig.ip.saddr.str"].type)

    def test_embedded(self):
        """IPv4 addresses in IPv6 ones have dots, as inet_ntop of ulogd2 writes them; with and without many rows."""
        values = [(0, 0xFFFF0A4D0001), (0, 0x0A4D0001), (0, 1), (0, 0xFFFE0A4D0001)]
        expected = [
            socket.inet_ntop(socket.AF_INET6, (h << 64 | low).to_bytes(16, "big")).encode() for h, low in values
        ]
        self.assertEqual([b"::ffff:10.77.0.1", b"::10.77.0.1", b"::1"], expected[:3])
        for times in (1, 100):
            got = self.passed(batch_of(orig_ip_saddr=values * times))
            self.assertEqual(expected * times, got.columns["orig.ip.saddr.str"].to_list())

    def test_only_what_is_wanted(self):
        """Only the texts that are asked for are made, and only their addresses are asked of the input."""
        source, filter_, sink = stacked({"orig.ip.saddr.str": True})
        self.assertEqual(frozenset({"orig.ip.saddr"}), source.plugin.wanted)
        source.pass_on(batch_of(orig_ip_saddr=[1], orig_ip_daddr=[2]))
        self.assertEqual(["orig.ip.saddr", "orig.ip.daddr", "orig.ip.saddr.str"], list(sink.plugin.got.schema))

    def test_nothing_wanted(self):
        """Where no text is asked for, the batch goes through as it is."""
        batch = batch_of(orig_ip_saddr=[1])
        self.assertIs(batch, self.passed(batch, {"orig.ip.saddr": True}))
        batch = batch_of(ip_saddr=[1])
        self.assertIs(batch, self.passed(batch, {"arp.saddr.str": False}))

    def test_missing(self):
        """A row without an address has no text either."""
        mask = np.array([False, True])
        got = self.passed(batch_of({"ip.saddr": mask}, ip_saddr=[1, 0]))
        self.assertEqual([False, True], got.missing["ip.saddr.str"].tolist())
        self.assertEqual(b"0.0.0.1", got.columns["ip.saddr.str"].to_list()[0])

    def test_rows_are_counted(self):
        """No row is lost or made."""
        source, filter_, sink = stacked()
        source.plugin.counters.rows_received += 2
        source.pass_on(batch_of(arp_saddr=[1, 2]))
        self.assertEqual((2, 2, 2), (filter_.plugin.counters.rows_received, filter_.plugin.counters.rows_emitted,
                                     sink.plugin.counters.rows_written))  # fmt: skip

    @given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60), st.integers(1, 3))
    def test_ipv4(self, addresses, times):
        """Every IPv4 address, in few rows and in many, as inet_ntop has it."""
        got = self.passed(batch_of(ip_saddr=addresses * times))
        texts = [str(IPv4Address(a)).encode() for a in addresses * times]
        self.assertEqual(texts, got.columns["ip.saddr.str"].to_list())

    groups = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xAB]) | st.integers(0, 0xFFFF), min_size=8, max_size=8)

    @given(st.lists(groups, min_size=1, max_size=60))
    def test_ipv6(self, addresses):
        """Every IPv6 address, in the form of RFC 5952."""
        octets = [b"".join(group.to_bytes(2, "big") for group in address) for address in addresses]
        halves = [(int.from_bytes(o[:8], "big"), int.from_bytes(o[8:], "big")) for o in octets]
        got = self.passed(batch_of(ip_daddr=halves))
        texts = [str(IPv6Address(o)).encode() for o in octets]
        self.assertEqual(texts, got.columns["ip.daddr.str"].to_list())
