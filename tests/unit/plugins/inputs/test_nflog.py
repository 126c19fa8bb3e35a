"""NFLOG and ULOG: options, what is asked of the kernel, and what becomes of messages."""

import errno
import struct
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.netfilter.logged import header, packet, row
from tests.unit.netfilter.messages import attr, be
from tests.unit.transports.test_multi_message_port import AskedKernel
from tests.unit.transports.test_netlink import Reactor, netlink
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.netfilter.nflog_decoder import KEYS
from ulogd_tw.plugins.inputs import ulog
from ulogd_tw.plugins.inputs.nflog import NFLOG, groups
from ulogd_tw.plugins.inputs.ulog import ULOG
from ulogd_tw.transports.netlink.multi_message_port import MultiMessagePort

PING = bytes.fromhex("45000054d7a9400040011b4a0a0900010a0900020800d3f51234000100")


def logged(number, *more, family=2, group=5):
    """A packet of this sequence number."""
    before = header(0x800, 1), attr(10, b"in\0"), attr(12, be(4, number))
    return packet(family, *before, *more, attr(9, PING), group=group)


class LogTestCase(SynchronousTestCase):
    """An instance with a kernel of our own, and the rows that it emitted."""

    def make(self, kernel=None, wanted=ALL, class_=NFLOG, **values):
        self.kernel, self.clock, self.rows = kernel or AskedKernel(), Reactor(), []
        self.clock.advance(1000.5)
        plugin = class_("log1", Options(class_.options, values), reactor=self.clock)
        plugin.clock = self.clock.seconds
        plugin.wanted = wanted
        plugin.emit = lambda batch: self.rows.extend(batch.rows())
        self.patch(MultiMessagePort, "make_socket", self.kernel)
        self.patch(MultiMessagePort, "make_slab", self.kernel.slab)
        return plugin

    def started(self, *arguments, **values):
        plugin = self.make(*arguments, **values)
        plugin.open()
        plugin.begin()
        self.addCleanup(plugin.stop)
        return plugin, next(iter(self.clock.readers))

    def asked(self):
        """(family, group, {attribute: payload}) of the configuring messages."""
        found = []
        for octets in self.kernel.sent:
            self.assertEqual(octets[4:6], b"\1\4")
            attributes, at = {}, 20
            while at < len(octets):
                size, kind = struct.unpack_from("<HH", octets, at)
                attributes[kind] = octets[at + 4 : at + size]
                at += (size + 3) & ~3
            found.append((octets[16], int.from_bytes(octets[18:20], "big"), attributes))
        return found


class OptionTests(LogTestCase):
    """What the options mean."""

    def test_old_configuration(self):
        """Every option of ulogd2's NFLOG is declared with ulogd2's default, and none of its defaults is a mistake."""
        ulogd2 = {
            "bufsize": 150000, "group": (0,), "unbind": 1, "bind": 0, "seq_local": 0, "seq_global": 0,
            "numeric_label": 0, "netlink_socket_buffer_size": 0, "netlink_socket_buffer_maxsize": 0,
            "netlink_qthreshold": 0, "netlink_qtimeout": 0, "attach_conntrack": 0,
        }  # fmt: skip
        declared = {option.name: option for option in NFLOG.options}
        self.assertEqual({name: declared[name].default for name in ulogd2}, ulogd2)
        self.assertEqual(list(self.make().mistakes()), [])

    def test_mistakes(self):
        """Values that cannot be are said with the option's name."""
        for values in ({"numeric_label": 256}, {"netlink_qtimeout": -1}, {"netlink_qthreshold": 1 << 31}):
            self.assertEqual([name for name, _ in self.make(**values).mistakes()], [*values])

    def test_groups(self):
        """Groups are numbers of 16 bits, each once."""
        self.assertEqual(groups("5, 6 0x7 5"), (5, 6, 7))
        for written in ("", "65536", "-1", "x"):
            self.assertRaises(ValueError, groups, written)

    def test_group(self):
        """One message takes a group: whole packets, datagrams of 32 KiB, at most 0.1 s late, numbered."""
        plugin = self.make(group=(5,))
        plugin.open()
        self.assertEqual(self.asked(), [(0, 5, {
            1: b"\1", 2: b"\0\0\xff\xff\2\0", 3: b"\0\0\x80\0", 4: b"\0\0\0\x0a", 6: b"\0\1",
        })])  # fmt: skip
        plugin.stop()
        self.assertEqual(self.asked()[1:], [(0, 5, {1: b"\2"})])

    def test_settings(self):
        """What the options say goes to the kernel."""
        plugin = self.make(
            group=(5, 6), seq_global=True, netlink_qthreshold=7, netlink_qtimeout=200, copy_range=128,
            attach_conntrack=True, receive_buffer=1 << 30, netlink_socket_buffer_maxsize=512 << 20,
        )  # fmt: skip
        plugin.open()
        settings = {1: b"\1", 2: b"\0\0\0\x80\2\0", 3: b"\0\0\x80\0", 4: be(4, 200), 5: be(4, 7), 6: b"\0\7"}
        self.assertEqual(self.asked(), [(0, 5, settings), (0, 6, settings)])
        self.assertEqual(self.kernel.buffer, 512 << 20)
        plugin.stop()

    def test_no_packets_wanted(self):
        """Where nobody wants the packets, the kernel does not copy them."""
        self.make(group=(5,), wanted=frozenset({"oob.prefix"})).open()
        self.assertEqual(self.asked()[0][2][2], b"\0\0\0\0\1\0")

    def test_system_logging(self):
        """Group 0, or bind=1, takes what the kernel itself logs with; unbind=0 takes it from nobody."""
        for values, commands in (({}, [4, 3] * 3), ({"group": (5,), "bind": True, "unbind": False}, [3] * 3)):
            self.make(**values).open()
            asked = self.asked()
            self.assertEqual([attributes[1][0] for _, _, attributes in asked[:-1]], commands)
            self.assertEqual({family for family, _, _ in asked[:-1]}, {2, 10, 7})

    def test_keys(self):
        """Numbers and the connection are given only where the options ask for them, as in ulogd2."""

        def names(**values):
            return {key.name for key in self.make(**values).keys()}

        numbers = {"oob.seq.local", "oob.seq.global"}
        self.assertEqual(names() & (numbers | {"ct.id"}), set())
        self.assertEqual(names(seq_local=True, seq_global=True) & numbers, numbers)
        self.assertLessEqual({"ct.mark", "ct.id", "orig.ip.saddr", "reply.l4.sport"}, names(attach_conntrack=True))


class RefusalTests(LogTestCase):
    """What the kernel does not let us do."""

    def refused(self, number, **values):
        plugin = self.make(AskedKernel([number]), **values)
        error = self.assertRaises(StartError, plugin.open)
        self.assertTrue(self.kernel.closed)
        return str(error)

    def test_no_privilege(self):
        """The capability is named."""
        self.assertIn("group 5: netlink request refused: Operation not permitted; this needs CAP_NET_ADMIN",
                      self.refused(errno.EPERM, group=(5,)))  # fmt: skip
        self.assertIn("CAP_NET_ADMIN", self.refused(errno.EPERM))

    def test_taken(self):
        """A group that another program has is said, with who has it where the kernel tells."""
        with patch("ulogd_tw.plugins.inputs.nflog.OWNERS", self.mktemp()) as path:
            with open(path, "w") as file:
                file.write("    4     99     0 2 65535    100  1\n    5   1234     0 2 65535    100  1\n")
            for number in (errno.EPERM, errno.EBUSY):
                said = self.refused(number, group=(5,))
                self.assertIn("group 5 is in use by another program (netlink port 1234", said)
        self.assertIn("group 6 is in use by another program; ", self.refused(errno.EBUSY, group=(6,)))

    def test_no_module(self):
        """A kernel without nfnetlink_log."""
        self.assertIn("modprobe nfnetlink_log", self.refused(errno.EINVAL, group=(5,)))

    def test_no_connections(self):
        """Where the kernel cannot attach connections, packets are logged without, with one warning."""
        plugin = self.make(AskedKernel([errno.EOPNOTSUPP]), group=(5, 6), attach_conntrack=True)
        with patch.object(plugin, "log") as log:
            plugin.open()
        self.assertEqual([attributes[6] for _, _, attributes in self.asked()], [b"\0\5", b"\0\1", b"\0\1"])
        self.assertEqual(log.warn.call_count, 1)


class PacketTests(LogTestCase):
    """From messages to rows."""

    def test_rows_and_counters(self):
        """Each message is a row; what cannot be decoded is counted."""
        plugin, port = self.started(group=(5,), numeric_label=3)
        sent = [logged(0), logged(1, attr(2, be(4, 9))), packet(2)]
        self.kernel.queue.extend([(sent[0] + sent[1], 0), (sent[2], 0)])
        port.doRead()
        kept = {key.name for key in plugin.keys()}
        expected = [{k: v for k, v in row(m, 1000.5, 3).items() if k in kept} for m in sent[:2]]
        self.assertEqual(self.rows, expected)
        counted = plugin.counters.as_dict()
        self.assertEqual(
            [counted[n] for n in ("messages_received", "octets_received", "rows_received", "errors", "lost")],
            [3, sum(map(len, sent)), 2, {"attribute missing": 1}, {}],
        )

    def test_loss(self):
        """Packets that are missing by their numbers are lost, in each group; said at most once a minute."""
        plugin, port = self.started(group=(5, 6))
        with patch.object(plugin, "log") as log:
            for number in (0, 5, 7):
                self.kernel.queue.extend([(logged(number), 0), (logged(number // 5, group=6), 0)])
                port.doRead()
            self.assertEqual(log.error.call_count, 1)
        self.assertEqual(plugin.counters.lost, {"kernel": 5})

    def test_datagrams_lost(self):
        """What the socket could not hold is a figure; its packets are counted by their numbers."""
        plugin, port = self.started(group=(5,))
        self.kernel.drops = 3
        self.kernel.queue.extend([errno.ENOBUFS, (logged(0), 0)])
        port.doRead()
        figures = plugin.counters.as_dict()["netlink"]
        self.assertEqual((figures["datagrams_lost"], figures["overruns"], plugin.counters.lost), (3, 1, {}))

    def test_stop_emits_the_rest(self):
        """What the kernel had gathered becomes rows before the stop has ended."""
        plugin, port = self.started(group=(5,))
        self.kernel.queue.extend([(logged(n), 0) for n in range(300)] + [(netlink(3), 0)])
        done = plugin.stop()
        while not done.called:
            self.clock.advance(0)
        self.assertEqual(len(self.rows), 300)

    def test_rows_outlive_the_slab(self):
        """Batches that were kept do not change when the slab is filled anew."""
        plugin, port = self.started(group=(5,))
        kept = []
        plugin.emit = kept.append
        self.kernel.queue.extend((logged(n), 0) for n in range(3))
        port.doRead()
        before = [list(batch.rows()) for batch in kept]
        self.kernel.rows[:] = 0xFF
        self.assertEqual([list(batch.rows()) for batch in kept], before)


class UlogTests(LogTestCase):
    """Configurations for ULOG."""

    def test_old_configuration(self):
        """ulogd2's options with its defaults; the group is read as one of NFLOG, without system logging."""
        declared = {option.name: option.default for option in ULOG.options}
        self.assertEqual([declared[name] for name in ("bufsize", "nlgroup", "rmem", "numeric_label")],
                         [150000, 32, 131071, 0])  # fmt: skip
        plugin = self.make(class_=ULOG)
        self.assertEqual(list(plugin.mistakes()), [])
        plugin.open()
        self.assertEqual([(group, attributes[1]) for _, group, attributes in self.asked()], [(32, b"\1")])

    def test_mistakes(self):
        """ULOG had 32 groups."""
        self.assertEqual([name for name, _ in self.make(class_=ULOG, nlgroup=33).mistakes()], ["nlgroup"])

    def test_one_message(self):
        """It says how the rules must change."""
        plugin = self.make(class_=ULOG, nlgroup=4)
        with patch.object(plugin, "log") as log:
            plugin.open()
        (call,) = log.warn.call_args_list
        self.assertIn("-j NFLOG --nflog-group 4", call.args[0].format(**call.kwargs))

    def test_keys(self):
        """The keys are ulogd2's of ULOG, in its order, with names of interfaces: empty where there is none."""
        self.assertEqual([key.name for key in ULOG.provides], [
            "raw.mac", "raw.pkt", "raw.pktlen", "raw.pktcount", "oob.prefix", "oob.time.sec", "oob.time.usec",
            "oob.mark", "oob.in", "oob.out", "oob.hook", "raw.mac_len", "oob.family", "oob.protocol", "raw.label",
        ])  # fmt: skip
        self.patch(ulog.socket, "if_indextoname", {7: "eth7"}.__getitem__)
        for wanted in (ALL, frozenset({"oob.in", "oob.out"})):
            plugin, port = self.started(class_=ULOG, wanted=wanted, nlgroup=5)
            self.kernel.queue.extend([(logged(0, attr(4, be(4, 7))), 0), (logged(1), 0)])
            port.doRead()
            self.assertEqual([(r["oob.in"], r["oob.out"]) for r in self.rows], [(b"eth7", b""), (b"", b"")])
            self.assertLessEqual(set(self.rows[0]), {key.name for key in ULOG.provides} & set(self.rows[0]))
        self.assertEqual(len(KEYS), 24)

    def test_gone(self):
        """An interface that has gone meanwhile has no name."""
        self.assertEqual(ulog._name(0x7FFFFFFF), b"")
