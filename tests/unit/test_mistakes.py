"""What users mistype, and what they are told: where, what, and what to do."""

import contextlib
import gc
import io
import sys
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from tests.unit import table_of_mistakes as table
from ulogd_tw import cli, clocks, config, global_options, registry, starting, tap
from ulogd_tw.core.options import one_of
from ulogd_tw.operating import manhole
from ulogd_tw.operating.api import options as http
from ulogd_tw.peers import targets
from ulogd_tw.transports import names

WAY_OUT = (
    r"must be given|must name|must be|such as|as in |did you mean|write |is none of|neither|is missing|"
    r"is not a regular|but |not between|\(.* to .*\)|; "
)
"""What a message has that says what to do: a form, the values that are possible, or a proposal."""


def mistakes(text):
    """What `--check` finds in a configuration of this text, which is called `f`."""
    return [str(m) for m in tap.Built(config.parse(text, "f"), prepare=False).mistakes]


SPECIAL = (*global_options.GLOBAL_OPTIONS, *manhole.OPTIONS, *http.OPTIONS, *targets.SECTION)
"""Options of the sections that are no instance's."""
NAMES = sorted({name for plugins in registry.BUILT_IN.values() for name in plugins})


def classes(name):
    """The plugins of this name: IPFIXFILE is an input and an output."""
    return [registry.lookup(name, position) for position, plugins in registry.BUILT_IN.items() if name in plugins]


def options_of(name):
    """Every option of the plugins of this name."""
    return [option for class_ in classes(name) for option in class_.all_options()]


def own_options(name):
    """The options that only these plugins have."""
    return [option for class_ in classes(name) for option in class_.options]


def refuses(read):
    """Whether a reader takes not every text."""
    for text in ("", "x y", "-1", "[", "1/0"):
        try:
            read(text)
        except ValueError:
            return True
    return False


OUTSIDE = [
    # a section of j:JSON, g:GROUP or the like, the plugin, what is said, and whether the stack can run
    ('j:JSON', 'file="/nonexistent/rows"', "there is no directory /nonexistent; make it: mkdir -p /nonexistent", False),
    ('j:JSON', 'file="/"', "/ is a directory", False),
    ('j:SQLITE3', 'db="/nonexistent/f"\ntable=t\ncreate=1\nkeys=octetDeltaCount', "no directory /nonexistent", False),
    ('j:IPFIXFILE', 'file="/nonexistent/%Y"', "there is no directory /nonexistent", False),
    ('j:XML', 'directory="/nonexistent"', "there is no directory /nonexistent; make it: mkdir", False),
    ('g:GROUP,j:GPRINT', 'networks="/nonexistent/nets.csv"', "/nonexistent/nets.csv: No such file", False),
    ('m:MATCH,j:GPRINT', 'match="src ip in @bad"\nsets="bad=/nonexistent/set"', "/set: No such file", False),
]  # fmt: skip


class TableTests(SynchronousTestCase):
    """Each row of the tables."""

    def test_options(self):
        """One of the mistakes has the line of the option, or of the section that lacks it, and the way out."""
        for stack, section, lines, words in table.OPTIONS:
            text = f"[global]\nstack={stack}\n[{section}]\n{lines}\n"
            self.said(text, self.line(lines.split("\n"), words[0]), words)

    def line(self, lines, option):
        """The line of an option in such a text; that of the section for one that is not there."""
        return next((n for n, line in enumerate(lines, 4) if line.split("=")[0].strip() == option), 3)

    def test_files(self):
        """The same of stacks and sections."""
        for text, line, words in table.FILES:
            self.said(text, line, words)

    def said(self, text, line, words):
        """One mistake has the place and these words, and says what to do."""
        found = mistakes(text)
        place = f"f:{line}: " if line else "f: "
        good = [m for m in found if m.startswith(place) and all(word in m for word in words)]
        self.assertTrue(good, f"{text}\n{place}{words}: {found}")
        self.assertRegex(good[0], WAY_OUT)

    def test_every_kind(self):
        """Every plugin with options is in a row, and every reader of texts that can refuse one."""
        plugins, read = set(), set()
        for stack, section, lines, _ in table.OPTIONS:
            name = next(part for part in stack.split(",") if part.startswith(f"{section}:")).partition(":")[2]
            plugins.add(name)
            wrong = lines.split("\n")[0].split("=")[0]
            read |= {option.read for option in options_of(name) if option.name == wrong}
        written = {line.split("=")[0] for text, *_ in table.FILES for line in text.split("\n")}
        read |= {option.read for option in SPECIAL if option.name in written}
        readers = {option.read for option in (*SPECIAL, *(o for name in NAMES for o in options_of(name)))}
        refusing = {reader for reader in readers if refuses(reader) and "one_of" not in reader.__qualname__}
        self.assertEqual(set(), refusing - read)
        self.assertEqual(set(), {name for name in NAMES if own_options(name)} - plugins)
        self.assertIn(one_of("auto", "strict", "address").__name__, {reader.__name__ for reader in read})

    def test_listed(self):
        """docs/messages.md has them; a few may be out of date until it is made anew."""
        from tests.unit.test_pictures import script

        messages = script("list_messages")
        made, written = set(messages.page()), set((TOP / "docs" / "messages.md").read_text("utf-8").splitlines())
        stale = sorted(made ^ written)
        self.assertLess(len(stale), len(made) / 10, f"{messages.COMMAND}: {stale[:5]}")

    def test_levels(self):
        """loglevel= takes names and numbers."""
        for word, value in (("debug", 1), ("Notice", 5), ("7", 7), ("fatal", 8)):
            text = f"[global]\nloglevel={word}\nstack=c:COLLECTOR,j:JSON\n[j]\nfile=stdout\n"
            built = tap.Built(config.parse(text, "f"), prepare=False)
            self.assertEqual((value, ()), (built.settings.loglevel, tuple(built.mistakes)))

    def test_interval_with_a_unit(self):
        """interval=5m is 300 s."""
        built = tap.Built(config.parse(f"[global]\nstack={table.SUM}\n[a]\ninterval=5m\n", "f"), prepare=False)
        self.assertEqual(300, built.graph.filters[0].plugin.config.interval)


class CommandTests(SynchronousTestCase):
    """Command lines that cannot do what they say."""

    def test_commands(self):
        """Each ends with its status, and says where, what, and what to do; tests.live.test_commands runs them, too."""
        self.patch(clocks, "make_steady", lambda reactor: None)
        self.patch(names, "install", lambda reactor: None)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())  # a start sets it
        self.patch(starting, "begin", lambda: None)
        for line, status, words in table.COMMANDS:
            ended, said = self.ended(line.format(top=TOP).split())
            self.assertEqual(status, ended, f"{line}: {said}")
            self.assertEqual([], [word for word in words if word not in said], f"{line}: {said}")

    def ended(self, words):
        """The exit status of a command line, and what it printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                self.patch(sys, "argv", list(words))
                self.patch(twistd, "run", self.run_twistd)
                self.run_twistd() if words[0] == "twistd" else cli.main()
                status = 0
            except SystemExit as end:
                status = end.code
        if isinstance(status, str):  # Python prints it
            said.write(status)
            status = 1
        return status, said.getvalue()

    def run_twistd(self):
        """What twistd does with `sys.argv` until the service is made, without its log and its reactor."""
        options = ServerOptions()
        try:
            options.parseOptions(sys.argv[1:])
        except UsageError as error:
            sys.exit(f"{options}\n{error}")
        tap.makeService(options.subOptions)

    def test_complete(self):
        """Every command of ulogd-tw is in the table, and the service itself, its check, and twistd."""
        begun = {" ".join(line.split()[:2]) for line, *_ in table.COMMANDS}
        self.assertLessEqual({f"ulogd-tw {command}" for command in cli.COMMANDS}, begun)
        self.assertLessEqual({"ulogd-tw -c", "ulogd-tw --check", "ulogd-tw -i", "twistd -n"}, begun)


class OutsideTests(SynchronousTestCase):
    """What `--check` sees outside the file without opening anything."""

    def look(self, text):
        """The stacks that can run, and what was seen."""
        graph, seen = tap.looked_at(tap.Built(config.parse(text, "f"), prepare=False))
        return len(graph.stacks), [str(m) for m in seen]

    def test_files(self):
        """Files that are not there, directories that are missing."""
        for stack, section, expected, runs in OUTSIDE:
            text = f"[global]\nstack=c:COLLECTOR,{stack}\n[{stack[0]}]\n{section}\n"
            stacks, (said,) = self.look(text)
            self.assertIn(expected, said)
            self.assertEqual(runs, bool(stacks), text)
            self.assertTrue(said.startswith("f:"))

    def test_batch_and_interface(self):
        """A pattern without a file costs the stack; an interface may still come."""
        stacks, (said,) = self.look('[global]\nstack=p:PCAPIN,j:GPRINT\n[p]\nfile="/nonexistent/*.pcap"\n')
        self.assertEqual((0, "f:4: [p] file: there is no file /nonexistent/*.pcap"), (stacks, said))
        stacks, (said,) = self.look(
            "[global]\nstack=p:PACKET,b:BASE,j:JSON\n[p]\ninterface=nosuch0\n[j]\nfile=stdout\n"
        )
        self.assertEqual(1, stacks)
        self.assertEqual("f:4: [p] interface: there is no interface nosuch0; ip link lists them", said)

    def test_namespace_and_owner(self):
        """Network namespaces, users and groups that are not there."""
        section = "network_namespace_path=/run/netns/nosuch"
        for plugin in ("NFCT", "NFLOG,b:BASE", "NFACCT", "PACKET,b:BASE"):
            more = {"NFACCT": "\npollinterval=1", "PACKET,b:BASE": "\ninterface=lo"}.get(plugin, "")
            stacks, (said,) = self.look(
                f"[global]\nstack=n:{plugin},j:GPRINT\n[n]\n{section}{more}\n[j]\nfile=stdout\n"
            )
            wanted = "[n] network_namespace_path: there is no network namespace /run/netns/nosuch; ip netns list"
            self.assertEqual((0, f"f:4: {wanted} shows the names"), (stacks, said))
        text = "[global]\nstack=u:UNIXSOCK,b:BASE,j:GPRINT\n[u]\nsocket_path=x\nowner=no-such\ngroup=no-such\n"
        stacks, said = self.look(text)
        self.assertEqual(0, stacks)
        self.assertEqual("f:5: [u] owner: there is no no-such in /etc/passwd; name one that is there", said[0])
        self.assertEqual("f:6: [u] group: there is no no-such in /etc/group; name one that is there", said[1])

    def test_http(self):
        """A file of tokens that is not there is a warning: the stacks run, and nothing listens."""
        text = "[global]\nstack=c:COLLECTOR,j:GPRINT\n[j]\nfile=stdout\n[http]\ntoken_file=/nonexistent\n"
        built = tap.Built(config.parse(text, "f"), prepare=False)
        _, seen = tap.looked_at(built)
        (said,) = [str(mistake) for mistake in seen if "[http]" in mistake.text]
        self.assertTrue(said.startswith("f:6: [http] token_file: /nonexistent: No such file"), said)

    def test_question_log(self):
        """A log of questions that cannot be written is a warning: the stacks run, and the store answers nothing."""
        text = f'[global]\nstack=c:COLLECTOR,p:PARQUET\n[p]\ndirectory="{self.mktemp()}"\n[store:s]\noutputs=p\n'
        for path, expected in (
            ("/nonexistent/log", "there is no directory /nonexistent; make it: mkdir -p /nonexistent"),
            ("/tmp", "/tmp is a directory; name a file in it"),
            ("/dev/null", "/dev/null is no regular file; name a regular file"),
        ):
            stacks, said = self.look(f"{text}question_log={path}\n")
            self.assertEqual((1, [f"f:7: [store:s] question_log: {expected}"]), (stacks, said))

    def test_manhole(self):
        """A manhole without its file of keys is a warning: the stacks run."""
        text = "[global]\nstack=c:COLLECTOR,j:GPRINT\n[j]\nfile=stdout\n[manhole]\nauthorized_keys=/nonexistent\n"
        stacks, (said,) = self.look(text)
        self.assertEqual(1, stacks)
        self.assertTrue(said.startswith("f:6: [manhole] authorized_keys: /nonexistent: No such file"), said)

    def test_nothing_is_made(self):
        """Files that would be made are not made by looking."""
        folder = Path(self.mktemp())
        folder.mkdir()
        text = f'[global]\nstats_file="{folder}/s"\nstack=c:COLLECTOR,j:JSON\n[j]\nfile="{folder}/rows"\n'
        self.assertEqual((1, []), self.look(text))
        self.assertEqual([], list(folder.iterdir()))
