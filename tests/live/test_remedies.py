"""Every command that a message tells users to run, fed to the program itself: nft, sysctl, apt, modprobe and others.

The commands are read from the texts in the source, so that a new one is tried too.
"""

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, NetworkNamespaces, require_program, require_root

PROGRAM = Path(sys.executable).with_name("ulogd-tw")
PLACES = {"wanted": "4194304", "port": "4739", "url.port": "4739", "folder": "{dir}/made", "directory": "{dir}/made",
          "path": "{dir}/file", "name": "lo", "2 * int(most)": "524288", "_DEBIAN[library]": "python3-maxminddb",
          "settings": "net.netfilter.nf_conntrack_acct=1", "wrong[name].remedy": "net.netfilter.nf_conntrack_acct=1",
          "library": "maxminddb", "conntrack_settings.TRACKING": "true", "sys.executable": "python3"}  # fmt: skip
"""What stands in the places of a message when a user reads it; {dir} is a directory of the test."""
COMMAND = re.compile(
    r"\b(nft '[^']*'|sysctl -w \S+?=\S+?(?=[ ,;)]|$)|apt-get install [a-z0-9.+-]+(?: [a-z0-9.+-]+)*|"
    r"apt install [a-z0-9.+-]+|modprobe [a-z_]+|setcap \S+|mkdir -p [^\s,]+|chmod [\w-]+ [^\s)]+|chown \w+ [^\s)]+|"
    r"ip link set \S+ up|openssl rand -hex 32|openssl pkey -in \S+ -out \S+|ss -\w+ '[^']*'|ulimit -n|"
    r"useradd --system \S+)"
)
KERNEL_MODULES = {"nfnetlink", "nfnetlink_log", "nfnetlink_acct", "nf_conntrack_netlink", "sctp", "nf_conntrack"}
"""Modules of Linux, by the names in its sources, for machines without /lib/modules."""


def texts(path):
    """The texts of a module, with `PLACES` in theirs; documentation is left out."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else place(ast.unparse(p.value)) for p in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield re.sub(r"\{(\w+)\}", lambda match: place(match[1]), node.value)


def place(source):
    """What stands for an expression in a message."""
    return PLACES.get(source, "x")


def commands():
    """Every command in the messages of the program, once."""
    found = {}
    for path in sorted((TOP / "ulogd_tw").rglob("*.py")):
        for text in texts(path):
            for match in COMMAND.finditer(text):
                found.setdefault(match[0], path.relative_to(TOP))
    return found


class CommandTests(SynchronousTestCase):
    """Each command of the source, as its program takes it."""

    def setUp(self):
        require_root()
        require_program("nft", "ip", "openssl", "ss", "sysctl")
        self.folder = Path(tempfile.mkdtemp(prefix="utw-remedy-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", self.folder], check=True)

    def test_found(self):
        """The scan sees the commands that are known to be there."""
        programs = {command.split()[0] for command in commands()}
        expected = {
            "nft",
            "sysctl",
            "apt-get",
            "modprobe",
            "setcap",
            "mkdir",
            "chmod",
            "ip",
            "openssl",
            "ss",
            "useradd",
        }
        self.assertLessEqual(expected, programs)

    def test_each(self):
        """Its program does it, or says that it would."""
        with NetworkNamespaces() as namespaces:
            for command, where in commands().items():
                done = self.run_one(namespaces, command.replace("{dir}", str(self.folder)))
                self.assertEqual(0, done.returncode, f"{where}: {command}: {done.stdout}{done.stderr}")

    def run_one(self, namespaces, command):
        """The finished process of a command, in a form that changes nothing outside this test."""
        program, *rest = command.split()
        if program in ("nft", "sysctl", "ip", "ss"):
            if "net.core." in command or "conntrack_max" in command:  # of the whole machine: only looked at
                command = f"sysctl -n {rest[1].partition('=')[0]}"
            return namespaces.run("a", ["sh", "-c", command], check=False)
        if program == "modprobe":
            return self.modprobe(rest[0])
        if program != "mkdir":
            (self.folder / "file").write_text("x")
        shell = {
            "apt-get": f"apt-get --simulate -qq {' '.join(rest)}", "apt": f"apt-get --simulate -qq {' '.join(rest)}",
            "setcap": f"cp /bin/true {self.folder}/program && {command} {self.folder}/program",
            "useradd": f"mkdir -p {self.folder}/etc && cd {self.folder}/etc && touch passwd group shadow gshadow && "
                       f"useradd --prefix {self.folder} --system x",
            "openssl": command if rest[0] == "rand" else f"openssl genpkey -algorithm ed25519 -out {self.folder}/file "
                       f"&& {command}",
        }.get(program, command)  # fmt: skip
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
        subprocess.run(["rm", "-rf", self.folder / "file"], check=True)
        if program in ("apt-get", "apt") and "Unable to locate package" in done.stderr:
            raise SkipTest(f"apt has no lists of packages here: {done.stderr[-200:]}")
        return done

    def modprobe(self, name):
        """Whether there is such a module; a machine without modules is asked by the names of the kernel's sources."""
        release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
        if Path("/lib/modules", release).is_dir():
            return subprocess.run(["modprobe", "-n", name], capture_output=True, text=True, check=False)
        return subprocess.CompletedProcess([], 0 if name in KERNEL_MODULES else 1, "", "no such module")


class DoctorTests(SynchronousTestCase):
    """A machine where much is wrong, and ulogd-tw doctor."""

    def test_remedies(self):
        """What doctor prints is run as it is printed; then it finds nothing wrong."""
        require_root()
        require_program("nft", "ip")
        with tempfile.TemporaryDirectory() as folder, NetworkNamespaces() as namespaces:
            path = Path(folder, "f.conf")
            missing = Path(folder, "logs")
            path.write_text(
                f"[global]\nstack=n:NFCT,j:JSON\nstack=p:PACKET,b:BASE,k:JSON\n[p]\ninterface=down0\n"
                f'[j]\nfile="{missing}/a"\n[k]\nfile="{folder}/b"\n'
            )
            namespaces.run("a", ["ip", "link", "add", "down0", "type", "veth", "peer", "name", "other0"])
            before = self.examined(namespaces, path)
            self.assertGreaterEqual(len(before), 4, before)
            for line in before:
                command = COMMAND.search(line)
                self.assertTrue(command, line)
                namespaces.run("a", ["sh", "-c", command[0]])
            self.assertEqual([], self.examined(namespaces, path))

    def examined(self, namespaces, path):
        """The lines of doctor that tell of something wrong."""
        done = namespaces.run("a", [PROGRAM, "doctor", "-c", path], check=False)
        return [line for line in done.stdout.splitlines() if line.startswith("wrong")]
