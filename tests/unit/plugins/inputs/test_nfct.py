"""NFCT: options, groups, and what becomes of messages; the kernel is that of the transport's tests."""

import struct
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.netfilter.messages import DESTROY, NEW, UPDATE, attr, be, counters, flow_tuple, message, nest, ports
from tests.unit.transports.test_netlink import Kernel, Reactor
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.metering import conntrack_settings
from ulogd_tw.plugins.inputs.nfct import NFCT
from ulogd_tw.transports.netlink import buffers
from ulogd_tw.transports.netlink.port import NetlinkPort

A, B = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02"


def flow(event, ident, *more):
    """A UDP flow of this id."""
    return message(event, 2, flow_tuple(1, A, B, 17, *ports(1, 2)), attr(12, be(4, ident)), *more)


class NfctTestCase(SynchronousTestCase):
    """An instance with a kernel of our own, and the rows that it emitted."""

    def make(self, kernel=None, wanted=ALL, **values):
        self.kernel, self.dump, self.clock, self.rows = kernel or Kernel(), Kernel(), Reactor(), []
        self.dump.fileno = lambda: 98
        self.clock.advance(1000.5)
        plugin = NFCT("ct1", Options(NFCT.options, values), reactor=self.clock)
        plugin.clock = self.clock.seconds
        plugin.wanted = wanted
        plugin.emit = lambda batch: self.rows.extend(batch.rows())
        # Events are read up to 1024 at a time, the parts of a dump 8 at a time.
        self.patch(NetlinkPort, "make_socket", lambda *_: self.dump if self.kernel.made else self.kernel.make())
        self.patch(
            NetlinkPort, "make_slab", lambda _, n, *shape: (self.dump if n == 8 else self.kernel).slab(n, *shape)
        )
        return plugin

    def memberships(self):
        return [value for level, option, value in self.kernel.options if (level, option) == (270, 1)]


class OptionTests(NfctTestCase):
    """What the options mean."""

    def test_groups(self):
        """Only the groups whose events become rows are joined."""
        for values, groups in (
            ({}, [3]),
            ({"hash_enable": False}, [1, 3]),
            ({"hash_enable": False, "event_mask": 7}, [1, 2, 3]),
            ({"hash_enable": False, "event_mask": 2}, [2]),
        ):
            plugin = self.make(**values)
            plugin.open()
            self.assertEqual(self.memberships(), groups, values)
            plugin.stop()

    def test_old_configuration(self):
        """Every option of ulogd2's NFCT is declared with ulogd2's default, and none of its defaults is a mistake."""
        ulogd2 = {
            "pollinterval": 0, "hash_enable": 1, "hash_buckets": 8192, "hash_max_entries": 32768, "event_mask": 5,
            "netlink_socket_buffer_size": 0, "netlink_socket_buffer_maxsize": 0, "netlink_resync_timeout": 60,
            "reliable": 0, "accept_src_filter": (), "accept_dst_filter": (), "accept_proto_filter": (),
        }  # fmt: skip
        declared = {option.name: option for option in NFCT.options}
        self.assertEqual({name: declared[name].default for name in ulogd2}, ulogd2)
        self.assertEqual(list(self.make().mistakes()), [])

    def test_mistakes(self):
        """What is not there yet or can give no row is said, with the option's name."""
        for values in (
            {"pollinterval": -1}, {"event_mask": 8}, {"event_mask": 1}, {"event_mask": 0, "hash_enable": False},
            {"pollinterval": 5, "hash_enable": False}, {"active_timeout": 60.0, "hash_enable": False},
            {"reset": True},
        ):  # fmt: skip
            self.assertEqual([option for option, _ in self.make(**values).mistakes()], [next(iter(values))], values)

    def test_buffer(self):
        """The default goes by the memory; ulogd2's sizes are a least and a largest one."""
        self.patch(buffers, "memory", lambda: 512 << 20)
        for values, octets in (
            ({}, 16 << 20),
            ({"netlink_socket_buffer_size": 1 << 20, "netlink_socket_buffer_maxsize": 4 << 20}, 4 << 20),
            ({"netlink_socket_buffer_size": 64 << 20}, 64 << 20),
            ({"netlink_socket_buffer_maxsize": 512 << 20}, 16 << 20),
            ({"receive_buffer": 1 << 20}, 1 << 20),
        ):
            plugin = self.make(**values)
            plugin.open()
            self.assertEqual(self.kernel.buffer, octets, values)
            plugin.stop()

    def test_no_privilege(self):
        """The refusal of the kernel stops the stack with the remedy."""
        error = self.assertRaises(StartError, self.make(Kernel(refuse=1)).open)
        self.assertIn("CAP_NET_ADMIN", error.remedy)


class EventTests(NfctTestCase):
    """From messages to rows."""

    def started(self, **values):
        plugin = self.make(**values)
        plugin.open()
        plugin.begin()
        self.addCleanup(plugin.stop)
        return plugin, plugin._port

    def test_rows_and_counters(self):
        """Each message is a row; what cannot be decoded is counted."""
        plugin, port = self.started(wanted=frozenset({"ct.id", "ct.event", "orig.raw.pktlen", "flow.end.sec"}))
        sent = [flow(DESTROY, 7, counters(9, 1, 60)), flow(NEW, 8), message((0x200, 0), 2)]
        self.kernel.queue.extend((octets, 0) for octets in sent)
        port.doRead()
        self.assertEqual(self.rows, [
            {"ct.id": 7, "ct.event": 4, "orig.raw.pktlen": 60, "flow.end.sec": 1000},
            {"ct.id": 8, "ct.event": 1},
        ])  # fmt: skip
        counted = plugin.counters.as_dict()
        self.assertEqual(
            [counted[n] for n in ("messages_received", "octets_received", "rows_received", "errors")],
            [3, sum(map(len, sent)), 2, {"type": 1}],
        )

    def test_accept(self):
        """The filters choose by network and protocol, families apart; what they leave out is counted as filtered."""
        option = {o.name: o for o in NFCT.options}
        six = ip_address("fd77::1").packed, ip_address("fd78::1").packed
        sent = [
            message(DESTROY, 2, flow_tuple(1, A, B, 6), attr(12, be(4, 1))),
            message(DESTROY, 2, flow_tuple(1, B, A, 17), attr(12, be(4, 2))),
            message(DESTROY, 10, flow_tuple(1, *six, 6), attr(12, be(4, 3))),
            message(DESTROY, 10, flow_tuple(1, *reversed(six), 58), attr(12, be(4, 4))),
            message(DESTROY, 2, attr(12, be(4, 5))),
        ]
        for name, value, kept in (
            ("accept_src_filter", "10.0.0.1", [1]),
            ("accept_src_filter", "10.0.0.0/8, fd77::/16", [1, 2, 3]),
            ("accept_dst_filter", "fd77::1/128 192.0.2.0/24", [4]),
            ("accept_dst_filter", "0.0.0.0/0", [1, 2]),
            ("accept_proto_filter", "tcp,58", [1, 3, 4]),
        ):
            plugin, port = self.started(wanted=frozenset({"ct.id"}), **{name: option[name].read(value)})
            self.kernel.queue.extend((octets, 0) for octets in sent)
            port.doRead()
            port.doRead()
            self.assertEqual(self.rows, [{"ct.id": ident} for ident in kept], value)
            self.assertEqual(plugin.counters.rows_filtered, 5 - len(kept))

    def test_bad_filters(self):
        """A filter that cannot be read says what is wrong."""
        option = {o.name: o for o in NFCT.options}
        for name, value in (("src", "10.0.0.300"), ("proto", "tpc"), ("proto", "256")):
            self.assertRaises(ValueError, option[f"accept_{name}_filter"].read, value)

    def test_drops(self):
        """Drops of the kernel are counted exactly and logged at most once a minute."""
        plugin, port = self.started()
        with patch.object(plugin, "log") as log:
            for drops in (5, 7, 8):
                self.kernel.drops = drops
                self.clock.advance(1)
            self.assertEqual(log.error.call_count, 1)
            self.kernel.drops = 18
            self.clock.advance(60)
            self.assertEqual(log.error.call_args.kwargs["n"], 13)
        self.assertEqual(plugin.counters.lost["kernel"], 18)

    def test_stop_emits_the_rest(self):
        """What the socket holds at the stop becomes rows before the stop has ended."""
        plugin, port = self.started()
        self.kernel.queue.extend((flow(DESTROY, i), 0) for i in range(50))
        done = plugin.stop()
        while not done.called:
            self.clock.advance(0)
        self.assertEqual([row["ct.id"] for row in self.rows], list(range(50)))

    def answer(self, *messages, error=None):
        """The kernel's answer to the dump that was asked for last, read by the reactor."""
        sequence = struct.unpack_from("<I", self.dump.sent[-1], 8)[0]
        for octets in messages:
            self.dump.queue.append((octets[:8] + struct.pack("<II", sequence, 4242) + octets[16:], 0))
        kind, code = (3, 0) if error is None else (2, -error)
        self.dump.queue.append((struct.pack("<IHHIIi", 20, kind, 2, sequence, 4242, code), 0))
        while self.dump.queue:
            next(reader for reader in self.clock.readers if reader.fileno() == 98).doRead()
        self.clock.advance(0)
        self.clock.advance(0)

    def test_old_flows(self):
        """What the first dump has and a later one has not, without an event, is told; with one it is told by that."""
        plugin, port = self.started(wanted=frozenset({"ct.id", "ct.event", "flow.end.sec"}))
        # IPCTNL_MSG_CT_GET as a dump, asked for before the start has ended.
        self.assertEqual([struct.unpack_from("<HH", octets, 4) for octets in self.dump.sent], [(0x101, 0x301)])
        self.answer(*[flow(UPDATE, ident) for ident in (1, 2, 3)])
        self.assertEqual((self.rows, plugin.counters.figures["flows"]()["followed"]), ([], 3))
        self.kernel.queue.append((flow(DESTROY, 1), 0))
        port.doRead()
        self.clock.advance(60)
        self.answer(flow(UPDATE, 3))
        self.assertEqual(self.rows, [{"ct.id": 1, "ct.event": 4, "flow.end.sec": 1000}, {"ct.id": 2, "ct.event": 4}])
        self.clock.advance(60)
        self.answer()
        self.assertEqual([row["ct.id"] for row in self.rows], [1, 2, 3])
        self.assertEqual(plugin.counters.rows_received, 3)
        asked = len(self.dump.sent)
        self.clock.advance(600)
        self.assertEqual(len(self.dump.sent), asked, "nothing is followed any more")

    def test_events_before_what_lacks(self):
        """The end that still waits in the socket when a dump is complete is told once, by its event."""
        plugin, port = self.started(wanted=frozenset({"ct.id", "flow.end.sec"}))
        self.answer(flow(UPDATE, 1))
        self.kernel.queue.append((flow(DESTROY, 1), 0))
        self.clock.advance(60)
        self.answer()
        self.assertEqual(self.rows, [{"ct.id": 1, "flow.end.sec": 1060}])

    def test_loss(self):
        """After a loss the table is read at once, and every flow that is in it is followed then."""
        plugin, port = self.started(wanted=frozenset({"ct.id"}))
        self.answer()
        self.kernel.drops = 7
        self.clock.advance(1)
        self.clock.advance(0)
        self.answer(flow(UPDATE, 5))
        self.clock.advance(60)
        self.answer()
        self.assertEqual((self.rows, plugin.counters.lost), ([{"ct.id": 5}], {"kernel": 7}))

    def test_failed_dump(self):
        """A refusal is said with the remedy, and the dump is tried again."""
        plugin, _ = self.started()
        with patch.object(plugin._dumps, "log") as log:
            self.answer(error=1)
            self.assertIn("CAP_NET_ADMIN", log.error.call_args.kwargs["remedy"])
        self.assertEqual(plugin.counters.figures["flows"]()["dump_failures"], 1)
        self.clock.advance(10)
        self.answer(flow(UPDATE, 5))
        self.assertEqual(plugin.counters.figures["flows"]()["followed"], 1)

    def test_no_table(self):
        """With resync=0 or hash_enable=0 nothing is asked of the kernel."""
        for values in ({"resync": 0.0}, {"hash_enable": False}):
            self.started(**values)
            self.kernel.drops = 7
            self.clock.advance(100)
            self.assertEqual(self.dump.sent, [], values)

    def test_polling(self):
        """With pollinterval there are no events, and no socket for them."""
        self.make(pollinterval=5, wanted=frozenset({"ct.id", "ct.event"}))
        self.kernel.made = True  # the first socket is that of the dumps
        plugin = NFCT("ct1", Options(NFCT.options, {"pollinterval": 5}), reactor=self.clock)
        plugin.wanted = frozenset({"ct.id", "ct.event"})
        plugin.emit = lambda batch: self.rows.extend(batch.rows())
        plugin.open()
        plugin.begin()
        self.addCleanup(plugin.stop)
        for idents in ((1, 2), (2, 3), ()):
            self.answer(*[flow(UPDATE, ident) for ident in idents])
            self.clock.advance(5)
        self.assertEqual(self.rows, [{"ct.id": ident, "ct.event": 4} for ident in (1, 2, 3)])

    def test_rows_outlive_the_slab(self):
        """Batches that were kept do not change when the slab is filled anew."""
        plugin, port = self.started(wanted=frozenset({"ct.id", "orig.ip.saddr", "ct.helper"}))
        kept = []
        plugin.emit = kept.append
        self.kernel.queue.extend((flow(DESTROY, i, nest(5, attr(1, b"ftp\0"))), 0) for i in range(3))
        port.doRead()
        before = [list(batch.rows()) for batch in kept]
        self.kernel.rows[:] = 0xFF
        self.assertEqual([list(batch.rows()) for batch in kept], before)


class PreflightTests(NfctTestCase):
    """The settings of the kernel."""

    def check(self, wanted=ALL, **settings):
        with TemporaryDirectory() as folder:
            for name, value in settings.items():
                Path(folder, f"nf_conntrack_{name}").write_text(f"{value}\n")
            plugin = self.make(wanted=wanted)
            with patch.object(conntrack_settings, "SYSCTLS", Path(folder)), patch.object(plugin, "log") as log:
                plugin.open()
            plugin.stop()
        return [call.args[0].format(**call.kwargs) for call in log.warn.call_args_list]

    def test_one_warning(self):
        """All that is wrong is said at once, with one command."""
        (said,) = self.check(acct=0, timestamp=0, events=2)
        self.assertIn(
            "Run: sysctl -w net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1 "
            "net.netfilter.nf_conntrack_events=1 (",
            said,
        )

    def test_nothing_wrong(self):
        """With good settings, or where nobody wants what is not kept, nothing is said."""
        self.assertEqual(self.check(acct=1, timestamp=1, events=1), [])
        self.assertEqual(self.check(wanted=frozenset({"ct.id"}), acct=0, timestamp=0, events=1), [])

    def test_not_tracking(self):
        """Packets pass and no connection is tracked: said once. While nothing passes it is looked again."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.patch(conntrack_settings, "SYSCTLS", folder)
        self.patch(conntrack_settings, "SNMP", folder / "snmp")
        for count, passed, expected in (
            ("0", 7, (1, None)),
            ("0", 0, (0, 1.0)),
            ("3", 7, (0, None)),
            ("3", 0, (0, None)),
        ):
            (folder / "nf_conntrack_count").write_text(f"{count}\n")
            self.pass_packets(100)
            plugin = self.make()
            plugin.open()
            self.pass_packets(100 + passed)
            with patch.object(plugin, "log") as log:
                delay = plugin.wake(0.0)
            plugin.stop()
            self.assertEqual(expected, (log.warn.call_count, delay), (count, passed))

    def pass_packets(self, received):
        """As many have come, and three were sent."""
        text = f"Ip: Forwarding InReceives InHdrErrors OutRequests\nIp: 1 {received} 0 3\nIcmp: InMsgs\nIcmp: 0\n"
        conntrack_settings.SNMP.write_text(text)

    def test_not_loaded(self):
        """Without connection tracking it says how to load it."""
        (said,) = self.check()
        self.assertIn(f"Run: {conntrack_settings.TRACKING}", said)
