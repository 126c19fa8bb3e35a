"""The documents and what lies in etc/: every configuration, command, link, table and example in them holds."""

import ast
import configparser
import contextlib
import dataclasses
import io
import json
import re
import shlex
import sqlite3
import sys
import tomllib
from pathlib import Path

from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import with_certificates
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw import config, global_options, registry, starting, tap
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import Input
from ulogd_tw.exporting.collector import STOP_SECONDS
from ulogd_tw.flow import JOIN_ROWS
from ulogd_tw.ipfix.limits import Limits
from ulogd_tw.ipfix.sequence import FAR, MOST_GAPS
from ulogd_tw.operating.commands import tree
from ulogd_tw.operating.inspection import Inspection
from ulogd_tw.operating.notify import LifeSigns
from ulogd_tw.operating.reference import sample
from ulogd_tw.transports.tls import layer

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]
HOWTO = TOP / "docs" / "howto.md"
EXPLANATION = TOP / "docs" / "explanation.md"

NAT_ROWS = (
    # start, end (milliseconds), client, its port, public port
    (1795444200000, 1795444400000, "10.0.0.5", 51000, 32768),  # 14:30:00 to 14:33:20
    (1795444335500, 1795444335600, "10.0.0.6", 51001, 32768),  # within the second itself
    (None, 1795444336000, "10.0.0.7", 51002, 32768),  # nobody knows since when
    (1795444200000, 1795444334999, "10.0.0.8", 51003, 32768),  # over a second before
    (1795444336000, 1795444340000, "10.0.0.9", 51004, 32768),  # begins the second after
    (1795444200000, 1795444400000, "10.0.0.10", 51005, 32769),  # another port
)
"""Around 2026-11-23 14:32:15 UTC, which is 1795444335."""
NAT_FOUND = ["10.0.0.5", "10.0.0.6", "10.0.0.7"]


def blocks(path, language=None):
    """(line, text) of the fenced blocks of a document, of one language or of all."""
    found, start, kind = [], None, ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("```"):
            if start is None:
                start, kind, text = number, line[3:].strip(), []
            else:
                if language is None or kind == language:
                    found.append((start, "\n".join(text) + "\n"))
                start = None
        elif start is not None:
            text.append(line)
    assert start is None, f"{path}:{start}: a block without end"
    return found


def block(path, language, begins):
    """The one block of this language whose text begins so."""
    (found,) = [text for _, text in blocks(path, language) if text.startswith(begins)]
    return found


def name(path):
    """A path for messages."""
    return str(path.relative_to(TOP))


class ConfigurationTests(SynchronousTestCase):
    """Every configuration that users may copy."""

    def wrong(self, where, text):
        """As --check: every mistake, also tolerated ones, and stacks that are left out."""
        built = tap.Built(config.parse(with_certificates(self, text), where), prepare=False)
        found = list(map(str, built.mistakes))
        if not built.graph.stacks or len(built.config.stacks()) != len(built.graph.stacks):
            found.append(f"{where}: {len(built.graph.stacks)} of {len(built.config.stacks())} stacks")
        return found

    def test_files(self):
        """Those in etc/."""
        files = sorted(TOP.glob("etc/**/*.conf"))
        self.assertGreaterEqual(len(files), 4)
        self.assertEqual([], [w for path in files for w in self.wrong(name(path), path.read_text("utf-8"))])

    def test_documents(self):
        """Those in the documents; the plugin of the how-to is there meanwhile."""
        LARGE.install(self)
        found = [(f"{name(path)}, block in line {line}", text) for path in DOCUMENTS for line, text in blocks(path)
                 if "[global]" in text.splitlines()]  # fmt: skip
        self.assertGreaterEqual(len(found), 7)
        self.assertEqual([], [w for where, text in found for w in self.wrong(where, text)])


_OURS = re.compile(r"(?:.*[\s=/]bin/|ExecStart=.*/)?((?:twistd|ulogd-tw)\s.*)")


def commands(path):
    """The words of every command line of twistd and ulogd-tw in a file, from the program's name on."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        lines = [line for _, block_ in blocks(path, "") for line in block_.replace("\\\n", " ").splitlines()]
        lines += [b.splitlines()[0].removeprefix("$ ") for _, b in blocks(path, "console")]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    else:
        lines = [line.lstrip("# ") for line in text.splitlines()]
    for line in lines:
        if match := _OURS.match(line):
            words = match[1].split()
            if words[0] == "ulogd-tw" or "ulogd" in words:
                yield words


class CommandTests(SynchronousTestCase):
    """Every command line of ours in the documents, and in the files in etc/."""

    def words(self):
        files = [*DOCUMENTS, *(p for p in sorted(TOP.glob("etc/**/*")) if p.is_file())]
        for path in files:
            for words in commands(path):
                yield name(path), words

    def test_twistd(self):
        """twistd and its command ulogd have each option that is written."""
        self.patch(starting, "begin", lambda: None)
        found = 0
        for where, words in self.words():
            if words[0] == "twistd":
                found += 1
                at = words.index("ulogd")
                self.parse(where, ServerOptions(), [*words[1:at], "ulogd"])
                self.known(where, words[at + 1 :], tap.Options())
        self.assertGreaterEqual(found, 10)

    def parse(self, where, parser, words):
        """Parsing is enough: what a subcommand does is not wanted here."""
        try:
            parser.parseOptions(words)
        except Exception as error:
            self.fail(f"{where}: {' '.join(words)}: {error}")

    def known(self, where, words, options):
        """The words are options of the command `ulogd`, with values where one is wanted."""
        takes = {f"--{n}" for n, *_ in options.optParameters} | {f"-{s}" for _, s, *_ in options.optParameters if s}
        flags = {f"--{n}" for n, *_ in options.optFlags}
        words = list(words)
        while words:
            word = words.pop(0)
            if word in takes:
                self.assertTrue(words, f"{where}: {word} wants a value")
                words.pop(0)
            elif word.startswith("-"):
                self.assertIn(word, flags, where)

    def test_ulogd_tw(self):
        """ulogd-tw has each switch that is written."""
        found = 0
        for where, words in self.words():
            if words[0] == "ulogd-tw":
                found += 1
                try:
                    with contextlib.redirect_stderr(io.StringIO()) as said:
                        tree.parse(shlex.split(" ".join(words))[1:])
                except SystemExit as end:
                    self.assertEqual(0, end.code, f"{where}: {' '.join(words)}: {said.getvalue()}")
        self.assertGreaterEqual(found, 2)

    def test_plugins(self):
        """Plugins that stand in stacks of the README's and the how-to's tables are there."""
        for line in (TOP / "README.md").read_text("utf-8").splitlines():
            if match := re.match(r"\| (`[A-Z0-9_`, ]+`) \| (input|filter|output) \|", line):
                for plugin in re.findall("[A-Z0-9_]+", match[1]):
                    self.assertEqual(plugin, registry.lookup(plugin, match[2]).name)


class LinkTests(SynchronousTestCase):
    """Links in the documents."""

    def test_links(self):
        """A relative link leads to a file that is there, and to a heading in it."""
        wrong = []
        for path in DOCUMENTS:
            text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.S | re.M)
            for link in re.findall(r"\]\(([^)\s]+)\)", text):
                if "://" in link:
                    continue
                target, _, anchor = link.partition("#")
                file = (path.parent / target).resolve() if target else path
                if not file.exists():
                    wrong.append(f"{name(path)}: {link}")
                elif anchor and anchor not in anchors(file):
                    wrong.append(f"{name(path)}: {link}: no such heading")
        self.assertEqual([], wrong)

    def test_contents(self):
        """The contents of a long document list all its parts, in their order."""
        for path in (HOWTO, EXPLANATION):
            text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.S | re.M)
            before = text.partition("\n## ")[0]
            self.assertEqual(re.findall(r"^## (.*)", text, re.M), re.findall(r"^- \[(.*)\]\(#", before, re.M))


def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class LARGE:
    """The plugin of the how-to, as a package that is installed."""

    @staticmethod
    def install(case):
        """Put the example's module and entry point onto the path until the test ends; its class."""
        folder = Path(case.mktemp()).absolute()
        (folder / "large-1.0.dist-info").mkdir(parents=True)
        (folder / "ulogd_tw_large.py").write_text(block(HOWTO, "python", '"""LARGE'))
        project = tomllib.loads(block(HOWTO, "toml", "[build-system]"))
        points = project["project"]["entry-points"]["ulogd_tw.plugins"]
        lines = "".join(f"{point} = {place}\n" for point, place in points.items())
        info = folder / "large-1.0.dist-info"
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: large\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[ulogd_tw.plugins]\n{lines}")
        sys.path.insert(0, str(folder))
        case.addCleanup(sys.path.remove, str(folder))
        case.addCleanup(sys.modules.pop, "ulogd_tw_large", None)
        return registry.lookup("LARGE", "filter")


class PluginTests(SynchronousTestCase):
    """The plugin of the how-to."""

    def test_example(self):
        """Its own test passes."""
        LARGE.install(self)
        exec(compile(block(HOWTO, "python", "import numpy"), "howto.md", "exec"), {})

    def test_described(self):
        """--info tells of it."""
        LARGE.install(self)
        shown = registry.describe("LARGE")
        self.assertIn("LARGE: filter, flow -> flow", shown)
        self.assertIn("least (octets, 1M)", shown)
        self.assertIn("octetDeltaCount", shown)

    def test_in_a_stack(self):
        """It runs below an AGGREGATE, whose octets are its key, and what it leaves out counts as filtered."""
        import numpy as np

        from ulogd_tw.core.batch import Batch, Schema

        LARGE.install(self)
        (text,) = [t for _, t in blocks(HOWTO) if "LARGE,term1" in t]
        out = Path(self.mktemp())
        text = text.replace('file="stdout"', f'file="{out}"').replace("least=10M", "least=1000")
        graph = tap.Built(config.parse(text, "howto.md"), prepare=False).graph
        plugins = graph.instances
        self.assertIsInstance(plugins["col1"], Input)
        self.assertIn("octets", plugins["agg1"].wanted)
        plugins["term1"].open()
        keys = [registry.known("sourceIPv4Address"), registry.known("octetDeltaCount")]
        values = {keys[0].name: np.array([1, 2], np.uint32), keys[1].name: np.array([999, 1000], np.uint64)}
        plugins["col1"].emit(Batch(Schema(keys), values, n=2, now=1e9))
        plugins["agg1"].flush()
        plugins["term1"].stop()
        self.assertEqual(1, plugins["large1"].counters.rows_filtered)
        self.assertIn("sourceAddress=0.0.0.2,", out.read_text())
        self.assertNotIn("0.0.0.1", out.read_text())


class FunctionTests(SynchronousTestCase):
    """The function of AGGREGATE of the how-to."""

    def test_example(self):
        """As an installed package it gives what it says, with its declaration taken from the entry point."""
        folder = Path(self.mktemp()).absolute()
        info = folder / "range-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "ulogd_tw_range.py").write_text(block(HOWTO, "python", '"""range(KEY)'))
        project = tomllib.loads(block(HOWTO, "toml", "[project.entry-points"))
        ((group, points),) = project["project"]["entry-points"].items()
        lines = "".join(f"{name} = {place}\n" for name, place in points.items())
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: range\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[{group}]\n{lines}")
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        self.addCleanup(sys.modules.pop, "ulogd_tw_range", None)
        case = AggregateCase()
        agg = case.make(key="protocolIdentifier", functions="r=range(octetDeltaCount)")
        case.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": n} for n in (50, 7, 90)]))
        agg.flush()
        self.assertEqual([83.0], [row["r"] for row in case.rows()])


class CounterTests(SynchronousTestCase):
    """What the how-to says of counters."""

    def test_named(self):
        """Every counter of an instance, and every further figure of a plugin, is in the part about numbers."""
        text = HOWTO.read_text("utf-8").partition("## Numbers differ")[2].partition("\n## ")[0]
        for counter in Counters("X").as_dict():
            if counter != "plugin":
                self.assertIn(f"`{counter}", text)
        for position, table in registry.BUILT_IN.items():
            for plugin in table:
                for figure in registry.lookup(plugin, position)(plugin, _defaults(plugin, position)).counters.figures:
                    self.assertRegex(text, f"`(\\w+\\.)?{figure}[.`]", plugin)

    def test_reasons_of_tls(self):
        """Every reason for which a peer is refused is in the table about TLS."""
        text = HOWTO.read_text("utf-8").partition("## Encrypt with TLS")[2].partition("\n## ")[0]
        self.assertEqual(set(layer.REASONS), set(re.findall("`(tls_(?!settle)[a-z_]+)`", text)))

    def test_command(self):
        """The command that shows what was lost runs on such a file, and prints only what is not empty."""
        (line,) = [t for _, t in blocks(HOWTO) if t.startswith("python3 -c") and "lost" in t]
        path = Path(self.mktemp())
        counters = Counters("X")
        counters.lost["sequence"] = 7
        path.write_text(json.dumps({"instances": {"col1": counters.as_dict()}}))
        code = shlex.split(line)[2].replace("/run/ulogd/stats.json", str(path))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(code, {})
        self.assertEqual("col1 lost {'sequence': 7}\n", said.getvalue())


def _defaults(plugin, position):
    from ulogd_tw.core.options import Options

    declared = registry.lookup(plugin, position).all_options()
    return Options(declared, {option.name: sample(option) for option in declared if option.mandatory})


class SchemaTests(SynchronousTestCase):
    """The SQLite schemas in etc/sql, below the stacks that they are for."""

    def database(self, schema):
        path = Path(self.mktemp()).absolute()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript((TOP / "etc" / "sql" / "sqlite" / schema).read_text("utf-8"))
            connection.executescript((TOP / "etc" / "sql" / "sqlite" / schema).read_text("utf-8"))  # harms nobody
        return path

    def built(self, stack, section, path):
        text = f'[global]\nstack={stack}\n{section}\n[db1]\ndb="{path}"\ntable="{path.stem}"\n'
        return tap.Built(config.parse(text, "x.conf"), prepare=True)

    def check(self, schema, stack, section):
        """Every column is filled by a key of the stack above it; nothing is amiss."""
        path = self.database(schema)
        moved = path.with_name(schema.removesuffix(".sql"))
        path.rename(moved)
        built = self.built(stack, section, moved)
        self.assertEqual([], list(map(str, built.mistakes)))
        output = built.graph.instances["db1"]
        output._check_columns()
        with contextlib.closing(sqlite3.connect(moved)) as connection:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({moved.name})")]
        self.assertEqual(columns, [target.column for target in output._targets(output.existing)])

    def test_flows(self):
        """Of aggregated flows."""
        self.check("flows.sql", "col1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3",
                   '[col1]\nlisten="udp:4739"\n[agg1]\nkey="5tuple"')  # fmt: skip

    def test_nat(self):
        """Of the NAT log."""
        self.check("nat.sql", "ct1:NFCT,db1:SQLITE3", "[ct1]\nevent_mask=4")

    def test_nat_query(self):
        """The how-to's question finds the connections of that second, by the index."""
        with contextlib.closing(sqlite3.connect(self.database("nat.sql"))) as connection:
            insert = (
                "insert into nat (flowStartMilliseconds, flowEndMilliseconds, orig_ip_saddr, orig_l4_sport, "
                "reply_l4_dport, reply_ip_daddr) values (?, ?, ?, ?, ?, '203.0.113.50')"
            )
            connection.executemany(insert, NAT_ROWS)
            query = block(HOWTO, "sql", "-- SQLite").rstrip().rstrip(";")
            self.assertEqual(NAT_FOUND, sorted(row[0] for row in connection.execute(query)))
            plan = str(connection.execute(f"explain query plan {query}").fetchall())
            self.assertIn("nat_by_public (reply_ip_daddr=? AND reply_l4_dport=? AND flowEndMilliseconds>?", plan)

    def test_cgnat_query(self):
        """The last block of ports before that second, and no earlier or later one."""
        found = self.blocks_of_ports([(14, 16, "100.64.0.7"), (20, 17, "100.64.0.7"), (30, 16, "100.64.0.8"),
                                      (40, 16, "100.64.0.9")])  # fmt: skip
        self.assertEqual([("100.64.0.8", 16)], [row[:2] for row in found])

    def blocks_of_ports(self, events):
        """The answer of the how-to; an event is (minutes since 14:00, natEvent, subscriber)."""
        query = block(HOWTO, "sql", "-- blocks of ports, SQLite").rstrip().rstrip(";")
        columns = "observationTimeMilliseconds, natEvent, sourceIPv4Address, postNATSourceIPv4Address, portRangeStart"
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(f"create table nat_events ({columns}, portRangeEnd)")
            rows = [(1795442400000 + 60000 * minutes, event, who) for minutes, event, who in events]
            connection.executemany("insert into nat_events values (?, ?, ?, '203.0.113.50', 32768, 33791)", rows)
            return connection.execute(query).fetchall()

    def test_comments(self):
        """The statements in the comments of the schemas run."""
        for path in sorted(TOP.glob("etc/sql/sqlite/*.sql")):
            with contextlib.closing(sqlite3.connect(self.database(path.name))) as connection:
                for statement in commented_statements(path):
                    connection.execute(statement)


def commented_statements(path):
    """The statements that stand in comments of a schema, indented by three."""
    lines = re.findall(r"^--   (.*)", path.read_text("utf-8"), re.M)
    found = [s.strip() for s in "\n".join(lines).split(";")]
    return [s[re.search("SELECT|DELETE", s).start() :] for s in found if re.search(r"\b(SELECT|DELETE) ", s)]


class ExplanationTests(SynchronousTestCase):
    """Figures in the explanation."""

    def test_limits(self):
        """The table of limits has each of the decoder's, with its number, and each that is counted with its counter."""
        text = EXPLANATION.read_text("utf-8").partition("## Limits of peers")[2].partition("\n## ")[0]
        lines = [line.split("|")[1:5] for line in text.splitlines() if line.startswith("|")]
        rows = [tuple(cell.strip(" `") for cell in line) for line in lines[2:]]
        options = {option.name: option.default for option in registry.lookup("COLLECTOR", "input").options}
        named = {option: number for _, option, number, _ in rows if option}
        self.assertEqual({name: f"{n:,}" for name, n in options.items() if name in named}, named)
        self.assertEqual({name for name in options if name.startswith("max_")} - {"max_malformed"}, set(named))
        bounds = [field for field in dataclasses.fields(Limits) if isinstance(field.default, int)]
        of_collector = {"max_sessions", "max_sessions_of_address", "max_buffered", "max_handshakes", "max_greetings"}
        expected = sorted(f"{field.default:,}" for field in bounds)
        self.assertEqual(expected, sorted(number for _, option, number, _ in rows if option not in of_collector))

    def test_queue(self):
        """The largest write, and the distance at which a sequence number is no loss."""
        text = EXPLANATION.read_text("utf-8")
        self.assertIn(f"up to {JOIN_ROWS:,} rows", text)
        self.assertIn(f"{FAR / 1e6:.1f} million", text)
        self.assertIn(f"the last {MOST_GAPS} gaps", text)


class ManholeTests(SynchronousTestCase):
    """The manhole's commands in the documents."""

    def test_names(self):
        """Each expression is one, and its names are in the manhole's namespace."""
        names = Inspection(None, None).names()
        found = 0
        for path in DOCUMENTS:
            for expression in re.findall(r"ssh -p 5022 127\.0\.0\.1 (?:'([^']+)'|(\w+))", path.read_text("utf-8")):
                tree = ast.parse("".join(expression), path.name, "eval")
                used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                self.assertEqual(set(), used - set(names), name(path))
                found += 1
        self.assertGreaterEqual(found, 5)


class UnitFileTests(SynchronousTestCase):
    """etc/systemd: the unit, and the template of one for each configuration."""

    def unit(self, name):
        """The section [Service]; a line that is given twice would be a mistake."""
        parser = configparser.ConfigParser(interpolation=None, delimiters="=")
        parser.optionxform = str
        parser.read(TOP / "etc" / "systemd" / name)
        return dict(parser["Service"])

    def test_settings(self):
        """It leaves time for an orderly stop, has the one capability, and the folders that the documents name."""
        unit = self.unit("ulogd-tw.service")
        stop_timeout = next(o for o in global_options.GLOBAL_OPTIONS if o.name == "stop_timeout").default
        self.assertGreater(int(unit["TimeoutStopSec"]), stop_timeout + 4 * STOP_SECONDS)
        for line in ("AmbientCapabilities", "CapabilityBoundingSet"):
            self.assertEqual("CAP_NET_ADMIN", unit[line])
        for line, folder in (("State", "/var/lib/"), ("Logs", "/var/log/"), ("Runtime", "/run/")):
            self.assertIn(f"`{folder}{unit[f'{line}Directory']}`", HOWTO.read_text("utf-8"))
        self.assertEqual("notify", unit["Type"])
        self.assertGreater(int(unit["WatchdogSec"]), 2 * LifeSigns.SECONDS)
        self.assertGreater(int(unit["FileDescriptorStoreMax"]), 0)

    def test_template(self):
        """It differs by its configuration and its folders alone."""
        unit, template = self.unit("ulogd-tw.service"), self.unit("ulogd-tw@.service")
        differ = {name for name in unit.keys() | template.keys() if unit.get(name) != template.get(name)}
        folders = {"RuntimeDirectory", "StateDirectory", "LogsDirectory", "WorkingDirectory"}
        self.assertEqual({"ExecStart"} | folders, differ)
        self.assertTrue(all("%i" in template[name] for name in differ))


WORDS = re.compile(r"\b(that|what|which|those|whoever|whatever)\b", re.I)
END = re.compile(r"(?<=[.!?:;])\s+|\s\|\s|\n")
RULE = ("a sentence has at most one", "worse  ", "where, what, and what to do", "what waits, what is dropped")
"""The rule itself, its examples, and a heading."""


def sentences(text):
    """The sentences of a document, without blocks of code, code in lines, and addresses of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]*`", "X", text))
    return [sentence for sentence in END.split(text) if sentence.strip()]


class EnglishTests(SynchronousTestCase):
    """README, CONTRIBUTING and docs; the options' texts are in docs/reference.md."""

    def test_pronouns(self):
        """No sentence stacks pronouns in place of nouns."""
        found = []
        for path in DOCUMENTS:
            for sentence in sentences(path.read_text("utf-8")):
                if len(WORDS.findall(sentence)) > 1 and not any(words in sentence for words in RULE):
                    found.append(f"{path.name}: {sentence}")
        self.assertEqual([], found)

    def test_sentences(self):
        """Code does not count; a cell of a table is a sentence, and a semicolon ends one."""
        self.assertEqual(["| a", "b;", "c |"], sentences("| a | b; c |"))
        self.assertEqual(["That is X.", "which"], sentences("That is `what that`.\nwhich\n```\nthose\n```\n"))
