"""What a start loads, and what it leaves behind: the service of a configuration is made in a process of its own."""

import gc
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import starting

_MAKE = """
import gc, sys
import twisted.scripts.twistd
from twisted.plugins.ulogd_tw_plugin import ulogd
options = ulogd.options()
options.parent = {"nodaemon": True, "pidfile": "", "umask": None}
options.parseOptions(["--config", sys.argv[1]])
ulogd.makeService(options)
"""
_NEVER = {
    "OpenSSL", "bcrypt", "cffi", "cryptography", "duckdb", "maxminddb", "prometheus_client", "pycparser", "pymysql",
    "pyroute2", "re2", "service_identity", "twisted.conch", "twisted.protocols.tls", "twisted.web",
    "ulogd_tw.operating.api", "ulogd_tw.operating.manhole", "ulogd_tw.operating.query", "ulogd_tw.transports.dtls",
    "ulogd_tw.transports.sctp", "ulogd_tw.transports.tls",
}  # fmt: skip
"""Modules and packages for options that the stacks below do not use."""
_COLLECTING = {"ulogd_tw.collecting", "ulogd_tw.ipfix", "ulogd_tw.peers"}
_ENGINES = {
    "sqlite3", "ulogd_tw.aggregation", "ulogd_tw.exporting", "ulogd_tw.match", "ulogd_tw.metering.flow_table",
    "ulogd_tw.naming", "ulogd_tw.storing",
}  # fmt: skip
_LISTEN = '[in1]\nlisten="{}:127.0.0.1:4739"\n'


def run(code, *words):
    """What a program prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class LoadedTests(SynchronousTestCase):
    """The modules of a start."""

    def loaded(self, stack, text="", code="", path=""):
        """The names of the modules that are there when the service of one stack has been made."""
        config = Path(self.mktemp())
        config.write_text(f"[global]\nstack={stack}\n{text}")
        code = f"import sys; sys.path.insert(0, {path!r})\n{_MAKE}\n{code}\nprint(*sys.modules)"
        return set(run(code, config).split())

    def assertLoads(self, needed, absent, stack, text=""):
        """The stack loads `needed` (modules or packages), and neither `absent` nor what no plain stack needs."""
        found = self.loaded(stack, text)
        self.assertEqual((set(), set()), (needed - found, found & (absent | _NEVER)))

    def test_logged_packets(self):
        """Packets to lines need neither IPFIX nor a database, TLS, pyroute2 or SSH; nor do names of interfaces."""
        for names, needed in (("", set()), ("ifi1:IFINDEX,", {"ulogd_tw.transports.netlink.rtnetlink"})):
            self.assertLoads(
                {"ulogd_tw.netfilter.nflog_decoder", "ulogd_tw.writing"} | needed,
                _COLLECTING | _ENGINES | {"ulogd_tw.metering.conntrack_dumps"},
                f"in1:NFLOG,base1:BASE,{names}ip2str1:IP2STR,print1:PRINTPKT,out1:LOGEMU",
                f'[in1]\ngroup=1\n[out1]\nfile="{self.mktemp()}"\n',
            )

    def test_connections(self):
        """Connections to JSON need no more."""
        self.assertLoads(
            {"ulogd_tw.netfilter.conntrack", "ulogd_tw.metering.conntrack_dumps"},
            _COLLECTING | _ENGINES,
            "in1:NFCT,out1:JSON",
            f'[out1]\nfile="{self.mktemp()}"\n',
        )

    def test_collected_flows(self):
        """A collector of datagrams that adds up into SQLite needs no half that encodes, and no TLS."""
        self.assertLoads(
            {"ulogd_tw.ipfix.decoder", "ulogd_tw.aggregation", "sqlite3"},
            {"ulogd_tw.ipfix.encoder", "ulogd_tw.ipfix.builder", "ulogd_tw.exporting.collector", "ulogd_tw.netfilter"},
            "in1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3",
            f'{_LISTEN.format("udp")}[agg1]\nkey="5tuple"\n[db1]\ndb="{self.mktemp()}"\ntable=flows\ncreate=1\n',
        )

    def test_exported_flows(self):
        """An exporter of connections over UDP needs no half that decodes."""
        self.assertLoads(
            {"ulogd_tw.ipfix.encoder", "ulogd_tw.exporting.flow_records"},
            {"ulogd_tw.ipfix.decoder", "ulogd_tw.collecting.reception", "sqlite3"},
            "in1:NFCT,out1:IPFIX",
            '[out1]\ncollectors="udp:127.0.0.1:4739"\n',
        )

    def test_control_socket(self):
        """A door loads the server of HTTP, but neither TLS nor SSH; prometheus_client comes with the first scrape."""
        found = self.loaded("in1:NFCT,out1:JSON", f'control_socket="{self.mktemp()}"\n[out1]\nfile="{self.mktemp()}"\n')
        needed = {"twisted.web.server", "ulogd_tw.operating.api.control_socket", "ulogd_tw.operating.query"}
        absent = _NEVER - {"twisted.web", "ulogd_tw.operating.api", "ulogd_tw.operating.query"}
        self.assertEqual((set(), set()), (needed - found, found & absent))

    def test_list_of_commands(self):
        """twistd's own help has the command, and loads nothing of it."""
        code = "import sys; from twisted.scripts.twistd import ServerOptions\n"
        code += "print(*[name for name, *_ in ServerOptions().subCommands], '', *sys.modules)"
        commands, _, modules = run(code).partition("  ")
        self.assertIn("ulogd", commands.split())
        found = {
            name for name in modules.split() if name.partition(".")[0] in ("ulogd_tw", "numpy", "OpenSSL", "pyroute2")
        }
        self.assertEqual({"ulogd_tw", "ulogd_tw.signals", "ulogd_tw.starting"}, found)

    def test_later_tls(self):
        """Where OpenSSL is asked for later, it is there, also for Twisted's own TLS over a plain connection."""
        code = (
            "from twisted.internet import endpoints; from ulogd_tw.transports.tls import layer; endpoints.wrapClientTLS"
        )
        self.assertLessEqual(
            {"OpenSSL", "twisted.protocols.tls"},
            self.loaded("in1:DEMO,out1:JSON", '[out1]\nfile="stdout"\n', code),
        )

    def test_plugin_of_another_package(self):
        """It finds Twisted's reactor with TLS."""
        folder = Path(self.mktemp()).absolute()
        info = folder / "foreign-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[ulogd_tw.plugins]\nMINE = ulogd_tw.plugins.outputs.gprint:GPRINT\n")
        stack, text = "in1:DEMO,out1:{}", '[out1]\nfile="stdout"\n'
        code = "from twisted.internet.interfaces import IReactorSSL; from twisted.internet import reactor\n"
        code += "print(['without', 'with'][IReactorSSL.providedBy(reactor)])"
        self.assertIn("with", self.loaded(stack.format("MINE"), text, code, str(folder)))
        self.assertIn("without", self.loaded(stack.format("GPRINT"), text, code, str(folder)))


class GarbageTests(SynchronousTestCase):
    """Collections of garbage."""

    def test_objects_of_the_start(self):
        """None before the service has begun, if it is no larger than others; then full ones pass over its objects."""
        config = Path(self.mktemp())
        config.write_text('[global]\nstack=in1:DEMO,out1:GPRINT\n[out1]\nfile="stdout"\n')
        code = _MAKE.replace("ulogd.makeService", "made = ulogd.makeService")
        code += "before = gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count()\n"
        code += "made.privilegedStartService(); made.startService()\n"
        code += "print('figures', *before, gc.get_threshold()[0], gc.get_freeze_count())"
        found = next(line for line in run(code, config).splitlines() if line.startswith("figures")).split()
        self.assertEqual(["figures", "True", "200000", "0", str(gc.get_threshold()[0])], found[:5])
        self.assertGreater(int(found[5]), 10_000)

    def test_other_processes(self):
        """Where no start has begun, such as in this process, nothing is set aside: it would never be freed."""
        before = gc.get_freeze_count(), gc.get_threshold()
        starting.settle()
        self.assertEqual(before, (gc.get_freeze_count(), gc.get_threshold()))

    def test_threads_for_matrices(self):
        """The command asks OpenBLAS for no threads, and leaves a number that the environment gives."""
        shown = "; import os; from ulogd_tw import starting; starting.begin(); print(os.environ[name])"
        self.assertEqual("1", run("name = 'OPENBLAS_NUM_THREADS'" + shown).strip())
        self.assertEqual("3", run("name = 'OPENBLAS_NUM_THREADS'; import os; os.environ[name] = '3'" + shown).strip())

    def test_threads_for_matrices_of_commands(self):
        """Other commands, such as questions to directories, ask for none either."""
        shown = "; import atexit, os, sys; from ulogd_tw import cli; atexit.register(lambda: print(os.environ[name]))"
        shown += "; sys.argv = ['ulogd-tw', 'keys', 'sourceAddress']; cli.main()"
        self.assertEqual("1", run("name = 'OPENBLAS_NUM_THREADS'" + shown).splitlines()[-1])
        given = "name = 'OPENBLAS_NUM_THREADS'; import os; os.environ[name] = '3'"
        self.assertEqual("3", run(given + shown).splitlines()[-1])


class SetAsideTests(SynchronousTestCase):
    """What is done after a collection of garbage."""

    def test_long_collections(self):
        """After a full one that took long, and after no other, all objects are set aside."""
        frozen = []
        self.patch(starting.gc, "freeze", lambda: frozen.append(True))
        now = [0.0]
        set_aside = starting.SetAside(lambda: now[0])
        for generation, seconds, expected in ((0, 1.0, 0), (1, 1.0, 0), (2, 0.005, 0), (2, 0.02, 1), (2, 0.001, 1)):
            set_aside("start", {"generation": generation})
            now[0] += seconds
            set_aside("stop", {"generation": generation})
            self.assertEqual(expected, len(frozen), generation)
