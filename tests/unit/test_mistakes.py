"""What users mistype, and what they are told: where, what, and what to do."""

from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, given
from ulogd_tw import config, tap

COLLECTED = "[global]\nstack=c:COLLECTOR,a:AGGREGATE,j:JSON\n[c]\n{c}\n[a]\n{a}\n[j]\nfile=stdout\n"
"""Its [c] begins in line 3, [a] in line 5."""

TABLE = [
    # what is written, the line that is named, what is said
    (COLLECTED.format(c="", a='key="sourceAddres"'), 6, ["[a] key", "sourceAddres", "did you mean sourceAddress"]),
    (COLLECTED.format(c='listen="udp:99999"', a=""), 4, ["[c] listen", "99999"]),
    (COLLECTED.format(c='listen="smtp:25"', a=""), 4, ["[c] listen", "smtp"]),
    (COLLECTED.format(c="", a='top=5\nby="bytes"'), 7, ["[a] by", "bytes"]),
    (COLLECTED.format(c="", a='functions="maximum(octetDeltaCount)"'), 6, ["[a] functions", "maximum"]),
    (COLLECTED.format(c="", a="interval=0"), 6, ["[a] interval", "5m"]),
    ("[global]\nstack=c:COLLECTOR,m:MATCH,j:JSON\n[j]\nfile=stdout\n[m]\nmatch=port 80 an port 81\n", 6, ["[m] match"]),
    ("[global]\nstack=n:NFLOG,a:AGGREGATE,j:JSON\n[j]\nfile=stdout\n", 2, ["gives raw", "put BASE between"]),
    ("[global]\nstack=c:COLLECTOR,m:MATCH,j:JSON\n[m]\n[j]\nfile=stdout\n", 3, ["[m] match: must be given"]),
    ("[global]\nstack=c:COLLECTOR,a:AGGREGATE\n", 2, ["AGGREGATE is a filter", "ends with an output"]),
    ("[global]\nstack=c:COLLECTOR,c:AGGREGATE,j:JSON\n[j]\nfile=stdout\n", 2, ["an id of its own"]),
    (COLLECTED.format(c="", a="interval=5 min"), 6, ["[a] interval", "write interval=5m"]),
    (COLLECTED.format(c="listen=udp:4739 tcp:4739", a=""), 4, ['write listen="udp:4739 tcp:4739"']),
    ("[global]\nstack=c:COLLECTOR,x:SQLITE3\n", 2, ["there is no section [x]", "table"]),
    ("[global]\nstack=c:COLLECTOR,x:SQLITE3\n[x]\ndb=f\n", 3, ["[x] table must be given"]),
    ("[global]\nloglevel=loud\nstack=c:COLLECTOR,j:JSON\n[j]\nfile=stdout\n", 2, ["loud", "debug (1)", "fatal (8)"]),
]  # fmt: skip


def mistakes(text):
    """What `--check` finds in a configuration of this text, which is called `f`."""
    return [str(m) for m in tap.Built(config.parse(text, "f"), prepare=False).mistakes]


OUTSIDE = [
    # a section of j:JSON, g:GROUP or the like, the plugin, what is said, and whether the stack can run
    ('j:JSON', 'file="/nonexistent/rows"', "there is no directory /nonexistent; make it: mkdir -p /nonexistent", False),
    ('j:JSON', 'file="/"', "/ is a directory", False),
    ('j:SQLITE3', 'db="/nonexistent/f"\ntable=t\ncreate=1\nkeys=octetDeltaCount', "no directory /nonexistent", False),
    ('j:IPFIXFILE', 'file="/nonexistent/%Y"', "there is no directory /nonexistent", False),
    ('g:GROUP,j:GPRINT', 'networks="/nonexistent/nets.csv"', "/nonexistent/nets.csv: No such file", False),
    ('m:MATCH,j:GPRINT', 'match="src ip in @bad"\nsets="bad=/nonexistent/set"', "/set: No such file", False),
]  # fmt: skip


class TableTests(SynchronousTestCase):
    """Each line of the table."""

    def test_table(self):
        """One of the mistakes has the place, the option and the way out."""
        for text, line, words in TABLE:
            found = mistakes(text)
            good = [m for m in found if m.startswith(f"f:{line}: ") and all(word in m for word in words)]
            self.assertTrue(good, f"{text}\nline {line}, {words}: {found}")

    def test_levels(self):
        """loglevel= takes names and numbers."""
        for word, value in (("debug", 1), ("Notice", 5), ("7", 7), ("fatal", 8)):
            text = f"[global]\nloglevel={word}\nstack=c:COLLECTOR,j:JSON\n[j]\nfile=stdout\n"
            built = tap.Built(config.parse(text, "f"), prepare=False)
            self.assertEqual((value, ()), (built.settings.loglevel, tuple(built.mistakes)))

    def test_interval_with_a_unit(self):
        """interval=5m is 300 s."""
        built = tap.Built(config.parse(COLLECTED.format(c="", a="interval=5m"), "f"), prepare=False)
        self.assertEqual(300, built.graph.filters[0].plugin.config.interval)


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

    def test_nothing_is_made(self):
        """Files that would be made are not made by looking."""
        folder = Path(self.mktemp())
        folder.mkdir()
        text = f'[global]\nstats_file="{folder}/s"\nstack=c:COLLECTOR,j:JSON\n[j]\nfile="{folder}/rows"\n'
        self.assertEqual((1, []), self.look(text))
        self.assertEqual([], list(folder.iterdir()))


EXAMPLES = sorted([*(TOP / "etc").glob("*.conf"), *(TOP / "etc" / "examples").glob("*.conf")])
KINDS = st.sampled_from(("delete", "double", "swap", "cut", "change"))
EDITS = st.tuples(KINDS, st.integers(0, 10_000), st.integers(0, 10_000))


class FuzzTests(SynchronousTestCase):
    """No configuration, however broken, raises anything; what is wrong is said with a place in the file."""

    @given(st.sampled_from(EXAMPLES), st.lists(EDITS, min_size=1, max_size=4))
    def test_edited_examples(self, path, edits):
        """Lines of the examples deleted, doubled, swapped, cut off, and letters changed."""
        lines = Path(path).read_text().splitlines()
        for kind, a, b in edits:
            lines = edited(lines, kind, a, b)
        for mistake in tap.Built(config.parse("\n".join(lines), "f"), prepare=False).mistakes:
            self.assertTrue(str(mistake).startswith("f"), mistake)
            self.assertNotIn("an error of the plugin itself", str(mistake))


def edited(lines, kind, a, b):
    """The lines after one edit; `a` and `b` choose the places."""
    if not lines:
        return lines
    a, at = a % len(lines), b % len(lines)
    line = lines[a]
    if kind == "delete":
        return lines[:a] + lines[a + 1 :]
    if kind == "double":
        return [*lines[:at], line, *lines[at:]]
    if kind == "swap":
        lines[a], lines[at] = lines[at], line
        return lines
    place = b % (len(line) + 1)
    rest = line[place:]
    lines[a] = line[:place] if kind == "cut" else line[:place] + chr(33 + b % 94) + rest[1:]
    return lines
