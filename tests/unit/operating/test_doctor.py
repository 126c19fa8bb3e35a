"""Tests of ulogd_tw.operating.doctor: what is said of a machine, and the exit status."""

import io
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import cli
from ulogd_tw.metering import conntrack_settings
from ulogd_tw.operating import doctor

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
        self.patch(doctor, "DEFAULT_CONFIG", "/nonexistent")

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

    def test_configuration(self):
        """Its mistakes come first."""
        self.assertEqual(self.points(COLLECTOR)["configuration"][0], "ok")
        self.assertEqual(self.points(COLLECTOR.replace("receive_buffer", "receive_bufer"))["configuration"][0], "wrong")
        self.assertEqual(doctor.examine("/nonexistent/ulogd.conf")[0].state, "wrong")

    def status(self, *words):
        self.patch(sys, "argv", ["ulogd-tw", "doctor", *words])
        self.patch(sys, "stdout", io.StringIO())
        return self.assertRaises(SystemExit, cli.main).code, sys.stdout.getvalue()

    def test_command(self):
        """``ulogd-tw doctor`` prints a line a point; status 1 where one is wrong."""
        status, said = self.status()
        self.assertEqual(status, 0, said)
        self.assertIn("ok     nf_conntrack_acct: 1\n", said)
        self.set(acct=0)
        status, said = self.status()
        self.assertEqual(status, 1)
        self.assertIn("wrong  nf_conntrack_acct: 0: accounting is off (no packets and octets); sysctl -w", said)
