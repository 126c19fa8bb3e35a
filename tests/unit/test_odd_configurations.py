"""Configurations with odd values and edited lines: mistakes are said, and cost their own stacks only."""

import re
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, given
from tests.unit.table_of_mistakes import FILES, OPTIONS
from ulogd_tw import config as configuration
from ulogd_tw import registry, tap

GOOD = "col9:COLLECTOR,gp9:GPRINT"
AROUND = {
    "input": ("x:{}", "gp1:GPRINT"),
    "filter": ("col1:COLLECTOR", "x:{}", "gp1:GPRINT"),
    "output": ("col1:COLLECTOR", "x:{}"),
}
VALUES = (
    "", "0", "1", "-1", "99999999999999999999", "1.5", "x", "x y", "a,b,,c", "udp:", "tcp:[::1]", "udp:127.0.0.1:99999",
    "[", "(", ")", "%", "%s", "{", "é", "../x", "/", "1/0", "sum()", "sum(octets,", "sum(octets)=", "a=b=c", "src port",
    "not", "5tuple", "=", "10.0.0.0/33", "::/129", "0x", "1h", "-5s", "NaN", "1e9", "select", "\\", "#", "x" * 300,
    "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "-9223372036854775809", "9" * 400, "9" * 5000, "0x" + "f" * 40, "99999999999999999999G", "99999999999999999999d",
    "9" * 400 + "d", "36500d", "0.0000000001", "proto 99999999999999999999", "bytes > 99999999999999999999",
    "src.port/99999999999999999999", "element1:99999999999999999999", "udp:[::]:4739", "tcp:0.0.0.0:0", "1,2", "::1",
    "tls:x:1", "1 2 3", "tcp", "-0", "+1", "e99999999999999999999id1", "v9id99999999",
)  # fmt: skip
"""Values that some reader may stumble over."""


def plugins():
    """(position, name) of every plugin."""
    return [(position, name) for position, table in registry.BUILT_IN.items() for name in sorted(table)]


@st.composite
def configurations(draw):
    """A configuration with one stack around a plugin with odd values, and a good one."""
    position, name = draw(st.sampled_from(plugins()))
    options = registry.lookup(name, position).all_options()
    given_ = draw(st.lists(st.tuples(st.sampled_from(options), st.sampled_from(VALUES)), max_size=6)) if options else []
    lines = [f'{option.name}="{value}"' for option, value in given_]
    stack = ",".join(AROUND[position]).format(name)
    return "\n".join(["[global]", f"stack={stack}", f"stack={GOOD}", "[x]", *lines]) + "\n"


class OddConfigurationTests(SynchronousTestCase):
    """Every plugin with every option."""

    @given(configurations())
    def test_good_stack_stays(self, text):
        """The good stack is there, and each mistake says more than that the plugin has a fault of its own."""
        path = Path(self.mktemp())
        path.write_text(text)
        built = tap.Built(configuration.load(str(path)), prepare=False)
        self.assertIn(GOOD, [stack.spec.text for stack in built.graph.stacks], text)
        self.assertEqual([], [str(mistake) for mistake in built.mistakes if "plugin itself" in str(mistake)])
        tap.describe(built.graph)


NUMBERS = ("number", "positive", "unsigned32", "entries", "octets", "seconds", "whole_seconds", "boolean")
LARGE = [value for value in VALUES if re.fullmatch(r"-?(0x[0-9a-f]{9,}|[0-9]{10,}[Gd]?)", value)]


class LargeNumberTests(SynchronousTestCase):
    """Integers, sizes and times beyond what a machine holds, in every option that reads one."""

    def test_beyond_64_bits(self):
        """Each is refused at its own line, or has ulogd2's value with a warning there."""
        for position, name in plugins():
            for option in registry.lookup(name, position).all_options():
                if option.read.__name__ not in NUMBERS[:-1]:
                    continue
                for value in ("99999999999999999999", "-99999999999999999999", "9" * 5000):
                    said = self.said(position, name, option.name, value)
                    self.assertTrue([text for text in said if text.startswith(f"f:4: [x] {option.name}: ")], said)

    def test_large(self):
        """No value, however large, meets an error that is not made for users."""
        for position, name in plugins():
            for option in registry.lookup(name, position).all_options():
                for value in LARGE if option.read.__name__ in NUMBERS else ["9" * 5000, *LARGE[-2:]]:
                    for text in self.said(position, name, option.name, value):
                        self.assertNotRegex(text, OF_PYTHON)

    def said(self, position, name, option, value):
        """All mistakes of a configuration with this one option."""
        stack = ",".join(AROUND[position]).format(name)
        text = f'[global]\nstack={stack}\n[x]\n{option}="{value}"\n'
        built = tap.Built(configuration.parse(text, "f"), prepare=False)
        graph, seen = tap.looked_at(built)
        tap.describe(graph)
        return [str(mistake) for mistake in [*built.mistakes, *seen]]


def significant(text):
    """The lines of a configuration that mean something."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def seeds():
    """Every configuration of etc/ and of the documents, and those of the table of mistakes."""
    texts = [path.read_text("utf-8") for path in sorted(TOP.glob("etc/**/*.conf"))]
    for path in [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]:
        blocks = re.findall(r"^```\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)
        texts += [block for block in blocks if "[global]" in block.splitlines()]
    texts += [text for text, *_ in FILES]
    texts += [f"[global]\nstack={stack}\n[{section}]\n{lines}\n" for stack, section, lines, _ in OPTIONS]
    return [significant(text) for text in texts]


SEEDS = seeds()
KINDS = ("delete", "double", "swap", "cut", "change", "value", "borrow", "join")
EDITS = st.tuples(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(0, 10_000))
OF_PYTHON = re.compile(
    r"\w(Error|Exception)\b|object at 0x|Traceback|NoneType|invalid literal|positional argument|codec can't|"
    r"an error of the plugin itself|not subscriptable|unpack|Exceeds the limit|too large to convert|out of bounds|"
    r"cannot convert|format requires"
)
"""Words of Python in a message: it was not written for users."""


class EditedTests(SynchronousTestCase):
    """No configuration, however broken, raises anything; what is wrong is said with a place in the file."""

    @given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=5))
    def test_edited(self, lines, edits):
        """Lines deleted, doubled, swapped, cut off, joined, borrowed from another file; letters and values changed."""
        for kind, a, b in edits:
            lines = edited(lines, kind, a, b)
        built = tap.Built(configuration.parse("\n".join(lines), "f"), prepare=False)
        graph, seen = tap.looked_at(built)
        tap.describe(graph)
        for mistake in [*built.mistakes, *seen]:
            self.assertRegex(str(mistake), r"^f(:\d+)?: \S")
            self.assertNotRegex(str(mistake), OF_PYTHON)

    def test_edits(self):
        """Each kind of edit changes an example in its own way."""
        lines = ["[global]", "stack=a:B", "x=1"]
        self.assertEqual(["[global]", "x=1"], edited(lines, "delete", 1, 0))
        self.assertEqual(["x=1", "[global]", "stack=a:B", "x=1"], edited(lines, "double", 2, 0))
        self.assertEqual(["x=1", "stack=a:B", "[global]"], edited(lines, "swap", 0, 2))
        self.assertEqual(["[global]", "sta", "x=1"], edited(lines, "cut", 1, 3))
        self.assertEqual(["[global]", "s6ack=a:B", "x=1"], edited(lines, "change", 1, 21))
        self.assertEqual(["[global]", "stack=a:B", f'x="{VALUES[1]}"'], edited(lines, "value", 2, 1))
        self.assertEqual(["[global]", "stack=a:Bx=1"], edited(lines, "join", 1, 0))
        self.assertEqual([*lines[:1], SEEDS[0][1], *lines[1:]], edited(lines, "borrow", 1, 1 + 0))


def edited(lines, kind, a, b):
    """The lines after one edit; `a` and `b` choose the places."""
    if not lines:
        return lines
    a, at = a % len(lines), b % len(lines)
    line, others = lines[a], list(lines)
    if kind == "delete":
        return lines[:a] + lines[a + 1 :]
    if kind == "double":
        return [*lines[:at], line, *lines[at:]]
    if kind == "borrow":
        seed = SEEDS[b // 10 % len(SEEDS)] or lines
        return [*lines[:a], seed[b % len(seed)], *lines[a:]]
    if kind == "join":
        return [*lines[:a], "".join(lines[a : a + 2]), *lines[a + 2 :]]
    if kind == "swap":
        others[a], others[at] = lines[at], line
        return others
    if kind == "value":
        others[a] = f'{line.partition("=")[0]}="{VALUES[b % len(VALUES)]}"'
        return others
    place = b % (len(line) + 1)
    others[a] = line[:place] if kind == "cut" else line[:place] + chr(33 + b % 94) + line[place + 1 :]
    return others
