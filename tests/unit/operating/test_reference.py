"""The reference: made from the declarations, whole, and no older than they are."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config, global_options, registry
from ulogd_tw.core.plugin import Output
from ulogd_tw.operating import manhole, reference

TOP = Path(__file__).resolve().parents[3]


def all_options():
    """(where, option) of everything that a configuration can hold."""
    for position, table in registry.BUILT_IN.items():
        for name in table:
            for option in registry.lookup(name, position).all_options():
                yield name, option
    for name, declared in (("global", global_options.GLOBAL_OPTIONS), ("manhole", manhole.OPTIONS)):
        for option in declared:
            yield name, option


class ReferenceTests(SynchronousTestCase):
    """docs/reference.md."""

    def test_current(self):
        """The file in docs/ is what the declarations of this tree give."""
        file = TOP / "docs" / "reference.md"
        stale = not file.exists() or file.read_text("utf-8") != reference.text()
        self.assertFalse(stale, f"docs/reference.md is stale; in the top folder: {reference.COMMAND}")

    def test_command(self):
        """The command prints it, the same from any folder and in a process of its own (no order of sets in it)."""
        argv = [sys.executable, "-m", "ulogd_tw.operating.reference"]
        environment = {"PYTHONPATH": str(TOP), "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "7"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/", env=environment)
        self.assertEqual((0, reference.text()), (done.returncode, done.stdout), done.stderr)

    def test_whole(self):
        """Every plugin, every option with its meaning, and every key that is given stand in it."""
        text = reference.text()
        for name, option in all_options():
            self.assertIn(f"| `{option.name}` |", text, name)
            self.assertIn(option.meaning.replace("|", "\\|"), text, f"{name}: {option.name}")
        for position, table in registry.BUILT_IN.items():
            for name in table:
                class_ = registry.lookup(name, position)
                self.assertIn(f"### {name} ({position})", text)
                for key in () if issubclass(class_, Output) else reference._instance(class_).keys():
                    self.assertIn(f"| `{key.name}` | {key.type.name} |", text, name)

    def test_tables(self):
        """No row of a table has another number of cells than its head, whatever stands in a meaning."""
        cells = None
        for line in reference.text().splitlines():
            if line.startswith("|"):
                count = line.replace("\\|", "").count("|")
                cells = cells or count
                self.assertEqual(cells, count, line)
            else:
                cells = None


class FormsTests(SynchronousTestCase):
    """What it says of values."""

    def test_examples(self):
        """Each example is taken by the reader of its form."""
        for read, form in reference.FORMS.items():
            for example in form.examples:
                read(example)
            self.assertTrue(form.examples, form.name)

    def test_defaults(self):
        """Each default, typed as it is shown, gives the default."""
        for name, option in all_options():
            shown = reference.typed_default(option)
            if shown and not isinstance(option, config.Repeated):
                self.assertEqual(option.default, option.read(shown), f"{name}: {option.name}")

    def test_every_form(self):
        """The form of every option is known."""
        for _, option in all_options():
            self.assertTrue(reference.form_name(option))

    def test_no_form(self):
        """An option whose reader nobody has explained is refused, so that it gets its line."""

        def odd(text):
            return text

        option = reference.Option("x", odd, "", "something")
        self.assertRaises(LookupError, reference.form_name, option)
