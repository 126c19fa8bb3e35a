"""The inputs of the kernel without root: in a user namespace, with no capability, after --uid."""

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import temporary
from tests.support import TOP, Daemon, NetworkNamespaces, require_netns, require_program, require_root, wait_until
from ulogd_tw.transports.namespace import inside

NEEDED = 1 << 12 | 1 << 13
"""CAP_NET_ADMIN and CAP_NET_RAW."""
TREE = [sys.executable, "-c", "from ulogd_tw.cli import main; main()"]
STACKS = ("ct1:NFCT,out1:JSON", "log1:NFLOG,base1:BASE,out2:JSON", "p1:PACKET,base2:BASE,out3:JSON")
CONFIG = """
[ct1]
event_mask=5
hash_enable=0
[log1]
group=5
[p1]
interface="{interface}"
[out1]
file="{dir}/ct.json"
[out2]
file="{dir}/log.json"
[out3]
file="{dir}/packets.json"
"""


def command(folder, interface):
    """The service on a configuration with all three stacks."""
    stacks = "".join(f"stack={stack}\n" for stack in STACKS)
    text = (
        f'[global]\nstats_file="{folder}/stats.json"\nstats_interval=0.2\ncontrol_socket="{folder}/control"\n{stacks}'
        + CONFIG
    )
    (folder / "conf").write_text(text.replace("{dir}", str(folder)).replace("{interface}", interface))
    return [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "-c", folder / "conf"]


def may_execute(uid):
    """Whether a user reaches the Python of these tests, which may be in a home directory."""
    words = ["setpriv", f"--reuid={uid}", "--clear-groups", "test", "-x", os.path.realpath(sys.executable)]
    return subprocess.run(words, capture_output=True).returncode == 0


class UserNamespaceTests(SynchronousTestCase):
    """Whoever may make a user namespace is root of the network in it."""

    def test_root_of_a_namespace(self):
        """All three inputs start."""
        require_root()
        require_program("unshare")
        argv = ["unshare", "-Urn", *command(temporary("userns"), "lo")]
        with Daemon(argv, lambda d: "stacks running (3)" in d.output(), within=20, cwd=TOP) as daemon:
            pass
        self.assertNotIn("left out", daemon.output())

    def test_without_capabilities(self):
        """Each input names the capability that it lacks, and the service ends as no stack is left."""
        require_root()
        require_program("unshare", "setpriv")
        without = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"]
        argv = ["unshare", "-Urn", *without, *command(temporary("userns"), "lo")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=TOP)
        said = done.stdout + done.stderr
        for stack, capability in zip(STACKS, ("CAP_NET_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"), strict=True):
            lines = [line for line in said.splitlines() if f"stack {stack} is left out" in line]
            self.assertTrue(lines and all(capability in line for line in lines), lines)  # in the log, on the terminal
        self.assertEqual(1, done.returncode)


class UidTests(SynchronousTestCase):
    """Sockets are opened before privileges drop."""

    def test_all_inputs(self):
        """Packets, logged packets and connections still come when the process is nobody's, also after a restart.

        Of the capabilities it has those that its inputs need, whatever program is executed.
        """
        require_netns()
        (nft,) = require_program("nft")
        nobody = pwd.getpwnam("nobody")
        folder = temporary("uid")
        os.chmod(folder, 0o755)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        with NetworkNamespaces(conntrack=True) as spaces:
            rule = "table inet seen {\nchain first {\ntype filter hook input priority 0\n"
            rule += "udp dport 7777 log group 5\n}\n}\n"
            spaces.run("b", [nft, "-f", "-"], input=rule)
            argv = command(folder, "veth0")
            at = argv.index("ulogd")
            argv[at:at] = [f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}"]
            with Daemon(
                spaces.argv("b", argv), lambda d: "stacks running (3)" in d.output(), within=20, cwd=TOP
            ) as run:
                self.assertIn(f"Uid:\t{nobody.pw_uid}", Path(f"/proc/{run.pid}/status").read_text())
                self.all_seen(spaces, folder)
                kept = self.capabilities(run.pid)
                self.assertEqual({"NoNewPrivs": 0, "CapPrm": NEEDED, "CapEff": NEEDED, "CapAmb": 0}, kept)
                if may_execute(nobody.pw_uid):
                    self.restart(folder)
                    self.assertEqual(kept | {"CapAmb": NEEDED}, self.capabilities(run.pid))
                    self.all_seen(spaces, folder)
            self.assertNotIn("left out", run.output())
            self.assertNotIn("AmbientCapabilities", run.output())  # the advice where one is missing

    def restart(self, folder):
        """Another program in the same process; what was seen before is forgotten."""
        for path in folder.glob("*.json"):
            path.write_bytes(b"")
        done = subprocess.run([*TREE, "restart", "-s", folder / "control"], capture_output=True, text=True)
        self.assertEqual(0, done.returncode, done.stderr)

    def test_executed(self):
        """A program that is executed by nobody has them; it hands them on as well."""
        require_root()
        program = (
            "import os, sys\nfrom ulogd_tw import privileges\nprivileges.keep()\nos.setgroups([])\n"
            "os.setresgid(*[65534] * 3)\nos.setresuid(*[65534] * 3)\nprivileges.keep_only({12, 13})\n"
            "environment = dict(os.environ)\nprivileges.hand_on(environment)\n"
            "os.execve('/bin/sh', ['sh', '-c', 'cat /proc/self/status'], environment)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=TOP)
        found = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
        sets = {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        self.assertEqual(dict.fromkeys(sets, NEEDED), sets, done.stderr)

    def all_seen(self, spaces, folder):
        """A datagram comes by all three ways."""
        self.traffic(spaces)
        for name in ("ct", "log", "packets"):
            wait_until(lambda name=name: self.seen(folder / f"{name}.json"), 10, name)

    @staticmethod
    def capabilities(pid):
        """The sets of a process, as masks."""
        found = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {name: int(found[name], 16) for name in ("NoNewPrivs", "CapPrm", "CapEff", "CapAmb")}

    def traffic(self, spaces):
        """A datagram from a to b."""
        with inside(f"/run/netns/{spaces.names['a']}"), socket.socket(type=socket.SOCK_DGRAM) as sender:
            for _ in range(5):
                sender.sendto(b"x", (spaces.ipv4["b"], 7777))

    def seen(self, path):
        """Whether a row of that datagram is in a file."""
        lines = path.read_text().splitlines() if path.exists() else []
        ports = ("udp.dport", "dest_port", "orig.l4.dport")
        return any(json.loads(line).get(name) == 7777 for line in lines for name in ports)
