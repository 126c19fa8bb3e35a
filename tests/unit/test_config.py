"""ulogd.conf: the grammar of ulogd2 2.0.8, typed options, and every mistake with its place."""

import itertools
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from ulogd_tw import config, global_options
from ulogd_tw.core.errors import ConfigError
from ulogd_tw.core.options import Option, boolean, number, one_of, positive, seconds, text

NFCT = (
    Option("hash_enable", boolean, True, "1: keep flows in a hash"),
    Option("event_mask", number, 5, "groups"),
    Option("pollinterval", positive, 1, "not as ulogd2's, which takes 0"),
    Option("accept_src_filter", text, "", "networks"),
)
SQLITE3 = (
    Option("db", text, None, "database file", True),
    Option("table", text, None, "table", True),
    Option("create", boolean, False, "1: make the table"),
    Option("busy", seconds, 0.3, "seconds"),
    Option("mode", one_of("a", "b"), "a", "a or b"),
)
STACKS = "[global]\nstack=ct1:NFCT,db1:SQLITE3\n"


def parsed(text):
    """The configuration of this text."""
    return config.parse(text, "f.conf")


def said(mistakes, tolerated=None):
    """The texts of mistakes: all, the tolerated ones, or the others."""
    return [str(m) for m in mistakes if tolerated is None or m.tolerated is tolerated]


class GrammarTests(SynchronousTestCase):
    """What ulogd2 2.0.8 makes of a line (semantics.md, "Config grammar"; what is marked seen was run with 2.0.8-1)."""

    def values(self, *lines):
        found = parsed("[x]\n" + "\n".join(lines)).sections["x"].entries
        return [(entry.key, entry.value) for entry in found]

    def test_separators(self):
        """Blanks, tabs and = stand between words, any number of them."""
        for line in ("a=b", "a = b", "a\tb", "a b", " \ta==b", "=a=b", 'a="b"', 'a "b"', '"a"="b"', "a=b\r"):
            self.assertEqual([("a", "b")], self.values(line), line)

    def test_values(self):
        """A value is one word, or quoted text with anything but a quote in it."""
        self.assertEqual([("a", "b c = # [d] \\")], self.values('a="b c = # [d] \\"'))
        self.assertEqual([("a", "")], self.values('a=""'))
        self.assertEqual([("a", 'b"c"')], self.values('a=b"c"'))
        self.assertEqual([("a", "/x/y#z")], self.values("a=/x/y#z"))
        self.assertEqual([("a", None)], self.values("a"))
        self.assertEqual([("a", None)], self.values("a ="))
        self.assertEqual([("a", "\x0b\u2028")], self.values("a=\x0b\u2028"))

    def test_text_behind_a_value(self):
        """What stands behind a value is ignored: silently where it is a comment, else with a warning."""
        self.assertEqual([("a", "b")] * 3, self.values("a=b # c", 'a="b"# c', "a=b c"))
        found = parsed("[x]\na=b # c\na=b c\n").mistakes
        self.assertEqual(
            ['f.conf:3: [x] a: the text after the value is ignored: c; write a="b c"'],
            [m for m in said(found) if ":3:" in m],
        )
        self.assertEqual([], [m for m in said(found) if ":2:" in m])

    def test_comments(self):
        """A line that begins with # is a comment, also behind blanks (ulogd2 took # for an unknown key)."""
        self.assertEqual([], self.values("# a=b", "  # a=b", "#[y]", '  #"', ""))

    def test_sections(self):
        """A section reaches to the next word that begins with a bracket; what stands behind its name is no matter."""
        found = parsed(" [a] # one\nk=1\n[ b ]\nk=2\n[c\nk=3\n\t[d]\nk=[4]\n[]\nk=5\n")
        self.assertEqual(
            {"a": "1", "b": "2", "c": "3", "d": "[4]"}, {n: s.entries[0].value for n, s in found.sections.items()}
        )
        self.assertEqual([1, 3, 5, 7], [s.line for s in found.sections.values()])
        self.assertIn("f.conf:5: the ] behind [c is missing; write [c]", said(found.mistakes))
        self.assertTrue(any(m.startswith("f.conf:9: a section needs a name") for m in said(found.mistakes)))

    def test_repeated_section(self):
        """Of sections with one name the first counts (seen: a second [json1] and a second [global] are not read)."""
        found = parsed("[x]\na=1\n[y]\n[x]\na=2\nb=3\n")
        self.assertEqual([("a", "1")], [(e.key, e.value) for e in found.sections["x"].entries])
        text = "section [x] is in line 1 already: this one is ignored, as in ulogd2; move its lines there"
        self.assertIn(f"f.conf:4: {text}", said(found.mistakes, True))

    def test_bare_section(self):
        """A line that is only an instance's id begins its section, as in ulogd2, where there is no other."""
        found = parsed(STACKS + "ct1\nevent_mask=1\n[db1]\ndb=x\n")
        self.assertEqual(1, found.read("ct1", NFCT, "plugin NFCT")[0].event_mask)
        self.assertEqual(["f.conf:3: write [ct1] to begin a section"], said(found.mistakes))
        found = parsed(STACKS + "db1\n[ct1]\n[db1]\ndb=x\n")
        self.assertEqual(5, found.sections["db1"].line)

    def test_collector_sections(self):
        """A section may be named after a collector's URL, brackets and all; it is one of those of collectors=."""
        found = parsed(STACKS + "[collector:tcp:[::1]:4739] # [x]\nca=y\n[ct1]\ncollectors=tcp:[::1]:4739\n[db1]\n")
        self.assertEqual("y", found.sections["collector:tcp:[::1]:4739"].entries[0].value)
        self.assertEqual([], found.mistakes)
        found = parsed(STACKS + "[collector:museun]\n[ct1]\ncollectors=tcp:a,museum\n[db1]\n")
        text = "f.conf:3: section [collector:museun] is used by no collectors=; did you mean [collector:museum]?"
        self.assertEqual([text], said(found.mistakes))

    def test_before_the_first_section(self):
        """What stands before the first section is ignored with a warning."""
        mistakes = said(parsed("\na=b").mistakes, True)
        self.assertIn("f.conf:2: text before the first section is ignored: a=b; write [global] above it", mistakes)

    def test_octets(self):
        """A NUL is a mistake; octets that are no UTF-8 are kept (they may be a file name), with a warning."""
        found = parsed("[global]\nlogfile=a\0b\n")
        self.assertIn("f.conf:2: there is a NUL in this line; delete it", said(found.mistakes, False))
        path = Path(self.mktemp())
        path.write_bytes(b"\xef\xbb\xbf[global]\n# \xff\nlogfile=/b\xfcro\nstack=a:B,c:D")
        found = config.load(str(path))
        self.assertEqual("/b\udcfcro", found.read("global", global_options.GLOBAL_OPTIONS, "[global]")[0].logfile)
        self.assertEqual([f"{path}:3: this line is not UTF-8; its octets are kept as they are"], said(found.mistakes))

    def test_open_quote(self):
        """A quote that is not closed is a mistake of its section."""
        found = parsed(STACKS + '[ct1]\naccept_src_filter="10.0.0.0/8\n[db1]\n')
        text = 'f.conf:4: [ct1] accept_src_filter: the closing " is missing; write it after the value'
        self.assertEqual([text], said(found.mistakes, False))
        self.assertEqual([text], said(found.read("ct1", NFCT)[1]))

    words = st.text("abcz01_.:/,-", min_size=1, max_size=8)
    quoted = st.text(st.characters(blacklist_characters='"\n\r\0', blacklist_categories=["Cs"]), max_size=20)

    @given(st.lists(st.tuples(words, st.one_of(words, quoted), st.sampled_from(["=", " = ", "\t", " ", "  =\t="]),
                              st.sampled_from(["", "  ", "\t# rest", "\r"]), st.booleans()), max_size=8))  # fmt: skip
    def test_written_then_read(self, lines):
        """What is written as key, separator, value comes back, however it is spaced, commented and quoted."""
        text = "[x]\n"
        for key, value, separator, rest, bare in lines:
            bare = bare and value and all(c in "abcz01_.:/,-" for c in value)
            text += f"{key}{separator}{value if bare else f'{chr(34)}{value}{chr(34)}'}{rest}\n"
        entries = parsed(text).sections["x"].entries
        self.assertEqual([(k, v) for k, v, *_ in lines], [(e.key, e.value) for e in entries])
        self.assertEqual(list(range(2, len(lines) + 2)), [e.line for e in entries])


class StackTests(SynchronousTestCase):
    """``stack=`` lines."""

    def stacks(self, *lines):
        found = parsed("[global]\n" + "".join(f"stack={line}\n" for line in lines))
        return [(s.parts, s.line) for s in found.stacks()], found

    def test_stacks(self):
        """Stacks come in their order, each with its place and its pairs."""
        stacks, found = self.stacks("a:B,c:D", "a:B,e:F,g:H")
        self.assertEqual([((("a", "B"), ("c", "D")), 2), ((("a", "B"), ("e", "F"), ("g", "H")), 3)], stacks)
        self.assertEqual(("f.conf:3", "a:B,e:F,g:H"), (found.stacks()[1].where, found.stacks()[1].text))

    def test_blanks_and_empty_places(self):
        """Blanks around commas in quotes, and empty places, do no harm (seen: ulogd2 runs a:B,c:D, and a:B,,c:D)."""
        for line in ('"a:B, c:D"', "a:B,c:D,", "a:B,,c:D", '" a : B ,c:D"'):
            stacks, found = self.stacks(line)
            self.assertEqual([((("a", "B"), ("c", "D")), 2)], stacks)
            self.assertEqual([], said(found.mistakes, False))

    def test_malformed(self):
        """A part that is not id:PLUGIN is a mistake, and the other stacks stay."""
        for line in ("a,c:D", "a:,c:D", ":B,c:D", '","', '""'):
            stacks, found = self.stacks(line, "a:B,c:D")
            self.assertEqual([((("a", "B"), ("c", "D")), 3)], stacks, line)
            self.assertTrue(all(m.startswith("f.conf:2: stack") for m in said(found.mistakes, False)))
            self.assertEqual(1, len(said(found.mistakes, False)), line)

    def test_none(self):
        """Neither [global] nor a stack: a mistake that names what was meant."""
        self.assertIn("f.conf: there is no section [global]; did you mean [globl]?", said(parsed("[globl]\n").mistakes))
        found = parsed("[global]\nstacks=a:B,c:D\n")
        text = "f.conf:1: [global] has no stack= line: nothing to do; did you mean stacks?"
        self.assertIn(text, said(found.mistakes))


class ReadTests(SynchronousTestCase):
    """Typed options of a section."""

    def read(self, lines, declared=SQLITE3, kind="plugin SQLITE3"):
        name = "ct1" if declared is NFCT else "db1"
        return parsed(f"{STACKS}[{name}]\n{lines}").read(name, declared, kind)

    def test_values(self):
        """Values are typed; what is not given has its default, and what is given is known as given."""
        options, mistakes = self.read("db=/x\ntable = flows\ncreate=yes\n")
        self.assertEqual([], mistakes)
        self.assertEqual(("/x", "flows", True, 0.3), (options.db, options.table, options.create, options.busy))
        self.assertEqual({"db", "table", "create"}, options.given)

    def test_every_mistake(self):
        """All mistakes of a section are found in one reading, each with its line."""
        options, mistakes = self.read("tabel=flows\ncreate=maybe\nbusy\nmode=c\ncreate=1\n")
        self.assertEqual(
            [
                "f.conf:4: [db1] tabel is not an option of plugin SQLITE3: ignored; did you mean table?",
                "f.conf:5: [db1] create: 'maybe' is neither 1 (yes, on, true) nor 0 (no, off, false)",
                "f.conf:6: [db1] busy: has no value; write busy=VALUE, or delete the line",
                "f.conf:7: [db1] mode: 'c' is none of a, b",
                "f.conf:8: [db1] create: is given twice (first in line 5); delete one of the two lines",
                "f.conf:3: [db1] db must be given: database file",
                "f.conf:3: [db1] table must be given: table",
            ],
            said(mistakes),
        )
        self.assertEqual([True] + [False] * 6, [m.tolerated for m in mistakes])
        self.assertFalse(options.create)

    def test_integers_of_ulogd2(self):
        """Where ulogd2 took anything for an integer, so do we, with a warning; other options are not so."""
        for given_, hash_enable, event_mask in (
            ("hash_enable=yes\nevent_mask=0x7", True, 7), ("hash_enable=2\nevent_mask=010", True, 8),
            ("hash_enable=x\nevent_mask=x", False, 0), ("hash_enable\nevent_mask=6GB", False, 6),
        ):  # fmt: skip
            options, mistakes = self.read(given_, NFCT, "plugin NFCT")
            self.assertEqual((hash_enable, event_mask), (options.hash_enable, options.event_mask))
            self.assertEqual([], said(mistakes, False))
        wrong = mistakes
        self.assertEqual(2, len(wrong))
        mistakes = self.read("hash_enable=2", NFCT, "plugin NFCT")[1]
        self.assertEqual(
            [
                "f.conf:4: [ct1] hash_enable: '2' is not taken; it is 1, as in ulogd2; "
                "write hash_enable=1, or the number that is meant"
            ],
            said(mistakes),
        )
        self.assertIn(
            "f.conf:5: [ct1] event_mask: '6GB' is not taken; it is 6, as in ulogd2; "
            "write event_mask=6, or the number that is meant",
            said(wrong),
        )
        options, mistakes = self.read("pollinterval=x", NFCT, "plugin NFCT")
        self.assertEqual(1, options.pollinterval)
        why = "is not an integer (decimal, 0x hexadecimal or 0 octal); the default 1 stays"
        self.assertEqual([f"f.conf:4: [ct1] pollinterval: 'x' {why}"], said(mistakes, True))
        self.assertEqual(1, len(said(self.read("event_mask=x", NFCT, "plugin OTHER")[1], False)))

    def test_no_section(self):
        """Without a section there are defaults; a warning where a name is near, a mistake where one must be given."""
        found = parsed(STACKS + "[db2]\ndb=x\n")
        options, mistakes = found.read("ct1", NFCT, "plugin NFCT")
        self.assertEqual(5, options.event_mask)
        self.assertEqual([], mistakes)
        mistakes = parsed(STACKS + "[ct11]\n").read("ct1", NFCT, "plugin NFCT")[1]
        text = "f.conf:2: there is no section [ct1]: all options have their defaults; did you mean [ct11]?"
        self.assertEqual([text], said(mistakes, True))
        mistakes = found.read("db1", SQLITE3, "plugin SQLITE3")[1]
        text = "f.conf:2: there is no section [db1]; it must contain db, table; did you mean [db2]?"
        self.assertEqual([text], said(mistakes, False))
        self.assertEqual([], found.read("ct1", (), "plugin IP2STR")[1])
        self.assertEqual([], found.read("manhole", NFCT)[1])

    def test_options_of_another_plugin_of_that_id(self):
        """Of an id that stands for two plugins, each reads its options and passes over those of the other."""
        read = config.parse(
            "[global]\nstack=a:X,p:ONE,b:Y\nstack=a:X,p:TWO,b:Y\n[p]\none=1\ntwo=2\nthree=3\n", "f.conf"
        )
        self.assertEqual({"ONE", "TWO"}, read.plugins_of("p"))
        options, mistakes = read.read("p", (Option("one", number, 0, ""),), "plugin ONE", {"two"})
        self.assertEqual(1, options.one)
        self.assertEqual(
            ["f.conf:7: [p] three is not an option of plugin ONE: ignored; ulogd-tw -i ONE lists its options"],
            [str(m) for m in mistakes],
        )

    def test_unused_sections(self):
        """Sections of no stack are named: one that is nearly an instance's with it, the others together."""
        found = parsed(STACKS + "[ct1]\n[db2]\n[json1]\n[emu1]\n[manhole]\n")
        self.assertEqual(
            [
                "f.conf:4: section [db2] is used by no stack; did you mean [db1]?",
                "f.conf:5: sections [json1], [emu1] are used by no stack; write a stack= line with it, or delete it",
            ],
            said(found.mistakes, True),
        )
        self.assertEqual([], said(found.mistakes, False))

    def test_queue_bounds(self):
        """The bounds of queues in [global] are the defaults of every output; its own section goes before."""
        declared = tuple(o for o in global_options.GLOBAL_OPTIONS if o.name in config.INHERITED)
        found = parsed("[global]\nqueue_rows=7\nqueue_octets=1M\n[a]\nqueue_rows=8\n")
        self.assertEqual((8, 1 << 20), tuple(vars(found.read("a", declared)[0])[n] for n in config.INHERITED))
        self.assertEqual(7, found.read("b", declared)[0].queue_rows)


class GlobalTests(SynchronousTestCase):
    """The options of [global]."""

    def read(self, lines):
        found = parsed("[global]\nstack=a:B,c:D\n" + lines)
        options, mistakes = found.read("global", global_options.GLOBAL_OPTIONS, "[global]")
        return options, said({str(m): m for m in (*found.mistakes, *mistakes)}.values())

    def test_defaults(self):
        options, mistakes = self.read("")
        self.assertEqual([], mistakes)
        self.assertEqual(
            (5, 10.0, 10.0, False, "", 1_000_000, 256 << 20),
            (options.loglevel, options.stats_interval, options.stop_timeout, options.strict, options.stats_file,
             options.queue_rows, options.queue_octets),
        )  # fmt: skip

    def test_plugin_lines(self):
        """Shared objects of ulogd2 may be named, wherever they lie; others are a warning with the name meant."""
        options, mistakes = self.read(
            'plugin="/usr/lib/x86_64-linux-gnu/ulogd/ulogd_inpflow_NFCT.so"\nplugin=ulogd_raw2packet_BASE.so\n'
            "plugin=/x/ulogd_output_JSN.so\n"
        )
        self.assertEqual(3, len(options.plugin))
        text = "f.conf:5: [global] plugin: /x/ulogd_output_JSN.so is none of ulogd2's shared objects: ignored; "
        self.assertEqual([text + "did you mean ulogd_output_JSON.so?"], mistakes)

    def test_levels(self):
        """ulogd2's levels 1 to 8, and their names; anything else keeps the default with a warning."""
        self.assertEqual(1, self.read("loglevel=1\n")[0].loglevel)
        options, mistakes = self.read("loglevel=loud\n")
        self.assertEqual((5, 1), (options.loglevel, len(mistakes)))

    def test_wrong(self):
        """Our own options do not take anything."""
        mistakes = self.read("stats_interval=0\nstop_timeout=soon\nstrict=2\nqueue_rows=0\nqueue_octets=x\n")[1]
        self.assertEqual([3, 4, 5, 6, 7], [int(m.split(":")[1]) for m in mistakes])


class FileTests(SynchronousTestCase):
    """Files as they lie there."""

    def test_binary(self):
        """A file that is no text is one mistake."""
        path = Path(self.mktemp())
        path.write_bytes(b"\x7fELF\0\0" + bytes(range(256)) * 100)
        (mistake,) = config.load(path).mistakes
        self.assertIn("is not a configuration", str(mistake))

    def test_load(self):
        """A file that cannot be read is a ConfigError with the reason of the system."""
        error = self.assertRaises(ConfigError, config.load, self.mktemp())
        self.assertIn("cannot be read: No such file or directory", str(error))
        self.assertRaises(ConfigError, config.load, "/")
        self.assertRaises(ConfigError, config.load, "a\0b")

    def test_golden(self):
        """The configurations that ulogd2 ran have no mistake."""
        files = sorted(shared_path("ulogd2", "golden", "conf").glob("*.conf"))
        self.assertTrue(files)
        for file in files:
            found = config.load(str(file))
            self.assertEqual([], found.mistakes, file)
            self.assertEqual([], found.read("global", global_options.GLOBAL_OPTIONS, "[global]")[1])
            self.assertEqual(file.read_text().count("\nstack="), len(found.stacks()))


EXAMPLE = """[global]
logfile="stdout"
plugin="/usr/lib/ulogd/ulogd_inpflow_NFCT.so"
stack=ct1:NFCT,ip2str1:IP2STR,db1:SQLITE3
stack=ct1:NFCT,json1:JSON

[ct1]
event_mask=0x5   # all
accept_src_filter="10.0.0.0/8, fd00::/8"
[db1]
db="/var/lib/x.sqlite3"
table = flows
[collector:udp:[::1]:4739]
ca=x
"""


class FuzzTests(SynchronousTestCase):
    """Whatever stands in a file: no exception, and every mistake has a place in the file."""

    pieces = st.sampled_from(["[", "]", '"', "=", "\n", "\r", "\0", "#", ",", ":", " ", "\udcff", "stack=", "[ct1]"])
    edits = st.lists(st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 12), pieces), max_size=6)

    def check(self, source):
        found = config.parse(source, "f")
        mistakes = list(found.mistakes)
        sections = {"global": global_options.GLOBAL_OPTIONS, "ct1": NFCT, "db1": SQLITE3, "nowhere": SQLITE3}
        for name, declared in itertools.chain(sections.items(), zip(found.sections, itertools.repeat(NFCT))):
            options, wrong = found.read(name, declared, "plugin NFCT")
            mistakes += wrong
            self.assertTrue(all(hasattr(options, o.name) for o in declared))
        lines = source.count("\n") + 1
        for mistake in mistakes:
            file, _, line = mistake.where.partition(":")
            self.assertEqual("f", file)
            self.assertTrue(not line or 1 <= int(line) <= lines, mistake)
            self.assertNotIn("\n", str(mistake))
        for stack in found.stacks():
            self.assertTrue(all(ident and name for ident, name in stack.parts))

    @given(edits)
    def test_edits(self, edits):
        """A sensible file with anything cut out of it and put into it."""
        source = EXAMPLE
        for place, cut, piece in edits:
            source = source[:place] + piece + source[place + cut :]
        self.check(source)

    @given(st.text(max_size=200))
    def test_anything(self, source):
        self.check(source)

    @given(st.binary(max_size=200))
    def test_octets(self, octets):
        """Octets from a file."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        found = config.load(str(path))
        self.assertTrue(all(m.where.startswith(str(path)) for m in found.mistakes))


class DefaultTests(SynchronousTestCase):
    """Which file is read where none is named."""

    def test_ours_first(self):
        """/etc/ulogd-tw.conf, else ulogd2's."""
        for there, expected in (({"/etc/ulogd-tw.conf"}, "/etc/ulogd-tw.conf"), (set(), "/etc/ulogd.conf")):
            self.patch(config.os.path, "exists", there.__contains__)
            self.assertEqual(expected, config.default_path())
