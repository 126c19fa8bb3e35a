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
    text = f'[global]\nstats_file="{folder}/stats.json"\nstats_interval=0.2\n{stacks}' + CONFIG
    (folder / "conf").write_text(text.replace("{dir}", str(folder)).replace("{interface}", interface))
    return [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "-c", folder / "conf"]


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
        """Packets, logged packets and connections still come when the process is nobody's."""
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
                self.traffic(spaces)
                for name in ("ct", "log", "packets"):
                    wait_until(lambda name=name: self.seen(folder / f"{name}.json"), 10, name)
            self.assertNotIn("left out", run.output())

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
