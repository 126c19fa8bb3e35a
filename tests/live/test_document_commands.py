"""The commands in the documents that are not ours, as they stand: nft, sysctl, openssl, sqlite3, find and others.

tests.unit.test_documents reads the command lines of twistd and ulogd-tw, and loads the configurations.
"""

import re
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, NetworkNamespaces, require_program, require_root
from tests.unit.test_documents import DOCUMENTS, blocks, name

OURS = ("ulogd-tw", "twistd", "ssh", "make", "git", "pip", "pipx", "python")
"""Other tests run these: the documents' own, README's walk, the package, pipx, the sessions, the templates."""
OF_MACHINE = set(
    "systemctl journalctl useradd cp mkdir echo printf setpriv tcpdump softflowd cd tail ipfixDump tshark python3 ss "
    "for done apt-get sysctl nft openssl sqlite3 find conntrack kill chown chmod podman docker promtool".split()
)
"""What a block of commands may begin its lines with."""
FLOWS = ("exporter", "sourceAddress", "destinationAddress", "octets integer", "flows integer", "interval_start integer")


def commands():
    """(document, line of the block, command) of every block of shell commands."""
    for path in DOCUMENTS:
        for line, text in [*blocks(path, ""), *blocks(path, "sh")]:
            first = text.split(maxsplit=1)[0]
            if first.rpartition("/")[2] in {*OURS, *OF_MACHINE}:
                yield path, line, text


class CommandTests(SynchronousTestCase):
    """Each of them."""

    def setUp(self):
        require_root()
        require_program("nft", "openssl", "sqlite3", "sysctl")
        self.folder = Path(tempfile.mkdtemp(prefix="utw-documents-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def lines(self, program):
        """(document, command) of every line that begins with a program."""
        found = [(f"{name(path)}:{line}", command) for path, line, text in commands()
                 for command in text.replace("\\\n", " ").splitlines() if command.split()[:1] == [program]]  # fmt: skip
        self.assertTrue(found, program)
        return found

    def shell(self, where, command, status=0):
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        self.assertEqual(status, done.returncode, f"{where}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def test_syntax(self):
        """A shell reads every block, and every line begins with a program that is known here."""
        found = list(commands())
        self.assertGreater(len(found), 30)
        for path, line, text in found:
            where = f"{name(path)}:{line}"
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual("", done.stderr, where)
            for command in text.replace("\\\n", " ").splitlines():
                first = command.split()[0].rpartition("/")[2] if command.strip() else "cd"
                self.assertIn(first, {*OURS, *OF_MACHINE}, f"{where}: {command}")

    def test_nft_and_sysctl(self):
        """The kernel takes each rule, in a namespace; a rule that is added to `filter` finds the usual table."""
        with NetworkNamespaces() as namespaces:
            namespaces.run("a", ["nft", "add table inet filter"])
            namespaces.run("a", ["nft", "add chain inet filter input { type filter hook input priority 0; }"])
            for where, command in [*self.lines("nft"), *self.lines("sysctl")]:
                done = namespaces.run("a", ["bash", "-c", command], check=False)
                self.assertEqual(0, done.returncode, f"{where}: {command}: {done.stderr}")
            (rules,) = [t for p in DOCUMENTS for _, t in blocks(p, "") if t.startswith("table inet names")]
            (self.folder / "rules").write_text(rules)
            namespaces.run("a", ["nft", "-f", self.folder / "rules"])

    def test_certificates(self):
        """The CA of the how-to is made, and its certificates are those that the next commands name."""
        (text,) = [t for p, _, t in commands() if t.startswith("openssl req -x509")]
        self.shell("howto.md", text)
        for host in ("collector", "router"):
            self.shell("howto.md", f"openssl verify -CAfile ca.pem {host}.example.pem")
        for where, command in self.lines("openssl"):
            if " s_client " in command:  # nobody listens: it gets as far as the connection
                said = subprocess.run(["bash", "-c", re.sub("collector.example:", "127.0.0.1:", command)], text=True,
                                      cwd=self.folder, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
                                      check=False)  # fmt: skip
                self.assertRegex(said.stderr, "Connection refused|write:errno|connect:errno|BIO_connect", where)

    def test_sqlite(self):
        """Questions to the tables of README and the tutorials."""
        (self.folder / "etc").symlink_to(TOP / "etc")
        for file in ("flows.sqlite3", "demo.sqlite3"):
            with sqlite3.connect(self.folder / file) as connection:
                connection.execute(f"create table flows ({', '.join(FLOWS)})")
                connection.execute(
                    "insert into flows values ('192.0.2.1', '10.0.0.1', '10.0.0.2', 1000, 1, 4000000000)"
                )
        columns = (
            "mark_name",
            "sourceAddress",
            "destinationAddress",
            "destinationTransportPort",
            "octets",
            "reply_octets",
        )
        with sqlite3.connect(self.folder / "containers.sqlite3") as connection:
            connection.execute(f"create table containers ({', '.join(columns)})")
        for where, command in [*self.lines("sqlite3"), *self.lines("python3")]:
            if "/var/lib/ulogd" in command:
                command = command.replace("/var/lib/ulogd", str(self.folder))
                self.shell(where, command)
            elif "flows" in command:
                self.assertIn("1000", self.shell(where, command))

    def test_find(self):
        """The clean-up of the archive packs and removes what it says."""
        archive = self.folder / "archive"
        archive.mkdir()
        (archive / "old.ipfix").write_bytes(b"x")
        subprocess.run(["touch", "-d", "2 hours ago", archive / "old.ipfix"], check=True)
        for where, command in self.lines("find"):
            self.shell(where, command.replace("/var/lib/ulogd/archive", str(archive)))
        self.assertEqual(["old.ipfix.gz"], [path.name for path in archive.iterdir()])
