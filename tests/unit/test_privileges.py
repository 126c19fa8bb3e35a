"""The capabilities that a service keeps when it changes to another user."""

import ctypes
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import privileges, registry
from ulogd_tw.core.capabilities import NET_ADMIN, NET_RAW


class Libc:
    """What the kernel is asked; it refuses the first so many sets."""

    def __init__(self, refused=0):
        self.asked, self._refused = [], refused

    def prctl(self, *numbers):
        self.asked.append(numbers)

    def capset(self, header, words):
        self.asked.append(list(words))
        self._refused -= 1
        return -1 if self._refused >= 0 else 0


class PrivilegesTests(SynchronousTestCase):
    """By the capabilities of a process, and what is asked of the kernel (prctl(2), capset(2))."""

    def be(self, uid, refused=0, **masks):
        chosen = {name: {bit for bit in range(64) if mask >> bit & 1} for name, mask in masks.items()}
        self.patch(privileges, "of_process", lambda kind: chosen.get(kind, set()))
        self.patch(privileges.os, "geteuid", lambda: uid)
        libc = Libc(refused)
        self.patch(ctypes, "CDLL", lambda _: libc)
        return libc.asked

    def test_of_process(self):
        """Those of this process are what the kernel tells in /proc/self/status (proc(5))."""
        told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if "Cap" in line)
        for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            found = sum(1 << capability for capability in privileges.of_process(kind))
            self.assertEqual(int(told[kind], 16), found, kind)

    def test_kept(self):
        """Of all that root had, those that are needed: permitted, effective and inheritable."""
        asked = self.be(65534, CapPrm=0x1FFFFFFFFFF, CapAmb=0)
        privileges.keep_only({NET_ADMIN, NET_RAW})
        self.assertEqual([[0x3000] * 3 + [0] * 3], asked)

    def test_refused(self):
        """Then it has none at all."""
        asked = self.be(65534, refused=1, CapPrm=0x1FFFFFFFFFF, CapAmb=0)
        privileges.keep_only({NET_ADMIN})
        self.assertEqual([0] * 6, asked[-1])

    def test_left_alone(self):
        """Root that stays root, and whoever was given its capabilities, by systemd."""
        for uid, masks in (
            (0, {"CapPrm": 0x1FFFFFFFFFF}),
            (9, {"CapPrm": 0x1000, "CapAmb": 0x1000}),
            (9, {"CapPrm": 0}),
        ):
            asked = self.be(uid, **masks)
            privileges.keep_only({NET_ADMIN})
            self.assertEqual([], asked)

    def test_handed_on(self):
        """Each that can be inherited (PR_CAP_AMBIENT 47, PR_CAP_AMBIENT_RAISE 2); root needs nothing."""
        asked, environment = self.be(65534, CapPrm=0x3000, CapInh=0x1000), {}
        privileges.hand_on(environment)
        self.assertEqual([(47, 2, NET_ADMIN, 0, 0)], asked)
        self.assertEqual(1, len(environment))
        for uid, ambient in ((0, 0), (65534, 0x1000)):
            asked, environment = self.be(uid, CapPrm=0x3000, CapInh=0x1000, CapAmb=ambient), {}
            privileges.hand_on(environment)
            self.assertEqual(([], {}), (asked, environment))

    def test_handed_on_to_this_program(self):
        """It keeps those that its inputs need now, and programs executed have none (PR_CAP_AMBIENT_CLEAR_ALL 4)."""
        environment = {}
        self.be(65534, CapPrm=0x3000, CapInh=0x3000)
        privileges.hand_on(environment)
        for wanted, mask in (({NET_ADMIN}, 0x1000), (set(), 0)):
            asked = self.be(65534, CapPrm=0x3000, CapInh=0x3000, CapAmb=0x3000)
            self.patch(privileges.os, "environ", dict(environment))
            privileges.keep_only(wanted)
            self.assertEqual([[mask] * 3 + [0] * 3, (47, 4, 0, 0, 0)], asked)
            self.assertEqual({}, privileges.os.environ)

    def test_declared(self):
        """By the inputs of the kernel; a collector, which any host can talk to, keeps none."""
        for name, needed in (
            ("NFCT", {12}),
            ("NFLOG", {12}),
            ("NFACCT", {12}),
            ("PACKET", {12, 13}),
            ("COLLECTOR", set()),
        ):
            self.assertEqual(needed, registry.lookup(name, "input").capabilities, name)
