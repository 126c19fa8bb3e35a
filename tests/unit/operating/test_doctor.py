"""Tests of ulogd_tw.operating.doctor: what is said of a machine, and the exit status."""

import io
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import cli
from ulogd_tw.metering import conntrack_settings
from ulogd_tw.operating import doctor
from ulogd_tw.transports.netlink import rtnetlink

COLLECTOR = """[global]
stack=col1:COLLECTOR,json1:JSON
[col1]
listen="udp:4739"
receive_buffer=64M
[json1]
file="stdout"
"""


class DoctorTests(SynchronousTestCase):
    """Points about a machine of our own."""

    def setUp(self):
        folder = Path(self.mktemp())
        folder.mkdir()
        self.settings = folder
        self.set(acct=1, timestamp=1, events=1, count=5, max=100)
        rmem = folder / "rmem_max"
        rmem.write_text("212992\n")
        self.patch(conntrack_settings, "SYSCTLS", folder)
        self.patch(doctor, "_RMEM_MAX", rmem)
        self.patch(doctor, "_capabilities", lambda: 1 << 12)
        self.patch(doctor.Machine, "_netlink", lambda self, where: iter(()))
        self.patch(doctor.configuration, "default_path", lambda: "/nonexistent")

    def set(self, **values):
        for name, value in values.items():
            (self.settings / f"nf_conntrack_{name}").write_text(f"{value}\n")

    def points(self, text=None):
        """{name: state, remedy} of every point."""
        path = None
        if text is not None:
            path = self.mktemp()
            Path(path).write_text(text)
        return {finding.name: (finding.state, finding.remedy) for finding in doctor.examine(path)}

    def test_settings(self):
        """Each setting that is off is said with the command that sets it."""
        self.set(acct=0, events=2, count=95)
        found = self.points()
        self.assertEqual(found["nf_conntrack_acct"], ("wrong", "sysctl -w net.netfilter.nf_conntrack_acct=1"))
        self.assertEqual(found["nf_conntrack_events"], ("wrong", "sysctl -w net.netfilter.nf_conntrack_events=1"))
        self.assertEqual(found["nf_conntrack_timestamp"], ("ok", ""))
        self.assertEqual(found["nf_conntrack_max"], ("wrong", "sysctl -w net.netfilter.nf_conntrack_max=200"))

    def test_sysctl(self):
        """What NFCT sets itself is no fault."""
        self.set(acct=0)
        text = "[global]\nstack=ct1:NFCT,json1:JSON\n[ct1]\nsysctl=1\n[json1]\nfile=stdout\n"
        self.assertEqual(self.points(text)["nf_conntrack_acct"], ("ok", ""))

    def test_collector_needs_no_privilege(self):
        """Without NFCT no privilege is missed, but large buffers need the sysctl then."""
        self.patch(doctor, "_capabilities", lambda: 0)
        found = self.points(COLLECTOR)
        self.assertEqual(found["CAP_NET_ADMIN"], ("unused", ""))
        self.assertEqual(found["net.core.rmem_max"], ("wrong", f"sysctl -w net.core.rmem_max={64 << 20}"))
        self.assertFalse([name for name in found if "conntrack" in name])
        found = self.points(COLLECTOR.replace("col1:COLLECTOR", "col1:NFCT").replace('listen="udp:4739"\n', ""))
        self.assertEqual(found["CAP_NET_ADMIN"][0], "wrong")
        self.assertIn("AmbientCapabilities=CAP_NET_ADMIN", found["CAP_NET_ADMIN"][1])

    def network(self, text):
        """The points of a machine with lo, eth0 up, eth1 down, 192.0.2.1, and no route to 198.51.100.0/24."""
        links = [rtnetlink.Link(1, "lo"), rtnetlink.Link(2, "eth0"), rtnetlink.Link(3, "eth1", up=False)]
        self.patch(rtnetlink, "links", lambda: links)
        self.patch(rtnetlink, "addresses", lambda: {"127.0.0.1", "192.0.2.1", "fe80::1%eth0"})
        unreachable = "Network is unreachable"
        self.patch(rtnetlink, "route_fault", lambda to: unreachable if to.startswith("198.51.100.") else "")
        return self.points(text)

    def test_interfaces(self):
        """Interfaces to capture on: there and up, down, not there."""
        self.patch(doctor, "_capabilities", lambda: 1 << 12 | 1 << 13)
        text = "[global]\nstack=p1:PACKET,base1:BASE,json1:JSON\n[p1]\ninterface=%s\n[json1]\nfile=stdout\n"
        for name, state, remedy in (
            ("eth0", "ok", ""), ("eth1", "wrong", "ip link set eth1 up"),
            ("eth9", "wrong", "ip link show lists the interfaces"),
        ):  # fmt: skip
            self.assertEqual((state, remedy), self.network(text % name)[f"interface {name}"])

    def test_addresses_and_routes(self):
        """Addresses to listen on must be this machine's; collectors named by address need a route."""
        found = self.network(COLLECTOR.replace("udp:4739", "udp:192.0.2.1:4739 udp:192.0.2.77:4739 tcp:4739"))
        self.assertEqual("ok", found["listen udp:192.0.2.1:4739"][0])
        self.assertEqual("wrong", found["listen udp:192.0.2.77:4739"][0])
        self.assertEqual(2, len([name for name in found if name.startswith("listen ")]))
        text = COLLECTOR.replace("json1:JSON", "exp1:IPFIX").replace("[json1]\nfile=", "[exp1]\ncollectors=")
        found = self.network(text.replace("stdout", "udp:198.51.100.7:4739 tcp:192.0.2.9:4739 tcp:host.example:4739"))
        routes = {name: point[0] for name, point in found.items() if name.startswith("collector ")}
        self.assertEqual({"collector udp:198.51.100.7:4739": "wrong", "collector tcp:192.0.2.9:4739": "ok"}, routes)

    def test_configuration(self):
        """Its stacks and mistakes come first; what the service tolerates is a remark."""
        self.assertEqual(self.points(COLLECTOR)["stack"][0], "ok")
        tolerated = self.points(COLLECTOR.replace("receive_buffer", "receive_bufer"))
        self.assertEqual(("ok", "remark"), (tolerated["stack"][0], tolerated["configuration"][0]))
        strict = self.points(
            "[global]\nstrict=1\n" + COLLECTOR.replace("receive_buffer", "receive_bufer").partition("\n")[2]
        )
        self.assertEqual((False, "wrong"), ("stack" in strict, strict["configuration"][0]))
        broken = self.points(COLLECTOR.replace("udp:4739", "udp:99999"))
        self.assertEqual((False, "wrong"), ("stack" in broken, broken["configuration"][0]))
        self.assertEqual(doctor.examine("/nonexistent/ulogd.conf")[0].state, "wrong")

    def status(self, *words):
        self.patch(sys, "argv", ["ulogd-tw", "doctor", *words])
        self.patch(sys, "stdout", io.StringIO())
        return self.assertRaises(SystemExit, cli.main).code, sys.stdout.getvalue()

    def test_command(self):
        """``ulogd-tw doctor`` prints a line a point; status 1 where one is wrong."""
        status, said = self.status()
        self.assertEqual(status, 0, said)
        self.assertIn("ok      nf_conntrack_acct: 1\n", said)
        self.set(acct=0)
        status, said = self.status()
        self.assertEqual(status, 1)
        self.assertIn("wrong   nf_conntrack_acct: 0: accounting is off (no packets and octets); sysctl -w", said)
