"""`ulogd-tw plugins`, `info`, `keys` and `check`: what the program declares, and what a configuration makes of it."""

import contextlib
import io
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating.commands import tree


def run(*words):
    """Status, output and complaints of a command."""
    out = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = tree.run(tree.parse(list(words)), out)
    return status, out.getvalue(), said.getvalue()


class DeclaredTests(SynchronousTestCase):
    """Lists of plugins, keys and options."""

    def test_plugins(self):
        """The same plugins as text and as JSON."""
        _, text, _ = run("plugins")
        found = json.loads(run("plugins", "--json")[1])
        self.assertEqual([line.split()[0] for line in text.splitlines()], [one["plugin"] for one in found])
        self.assertIn(("NFCT", "input", "-> flow"), [(o["plugin"], o["position"], o["types"]) for o in found])

    def test_info(self):
        """Options with form, default and meaning; status 1 for a name that is none."""
        (found,) = json.loads(run("info", "AGGREGATE", "--json")[1])
        option = next(option for option in found["options"] if option["option"] == "key")
        self.assertTrue(option["meaning"])
        self.assertEqual(0, run("info", "AGGREGATE")[0])
        status, out, said = run("info", "AGREGATE")
        self.assertEqual((1, "", True), (status, out, "did you mean AGGREGATE?" in said))

    def test_keys(self):
        """IANA's octetDeltaCount is element 1 of 64 bits (RFC 7012), and NFCT gives it."""
        found = json.loads(run("keys", "octetdeltacount", "--json")[1])
        one = next(key for key in found if key["name"] == "octetDeltaCount")
        self.assertEqual(("unsigned64", "octets", ["1"]), (one["type"], one["unit"], one["elements"]))
        self.assertIn("NFCT", one["plugins"])
        status, out, _ = run("keys", "-p", "NFCT")
        self.assertEqual(0, status)
        self.assertTrue(all("NFCT" in line for line in out.splitlines()[1:]))
        self.assertEqual(1, run("keys", "nosuch")[0])


class CheckTests(SynchronousTestCase):
    """`ulogd-tw check`."""

    def check(self, text, *words):
        path = Path(self.mktemp())
        path.write_text(text)
        return run("check", "-c", str(path), *words)

    def test_check(self):
        """Status 0 where all stacks run, 1 where one cannot, 2 without a readable file."""
        good = "[global]\nstack=demo1:DEMO,gp1:GPRINT\n[gp1]\nfile=stdout\n"
        self.assertEqual(0, self.check(good)[0])
        status, out, said = self.check(good + "[x]\n")
        self.assertEqual((0, True), (status, "[x] is used by no stack" in said))
        self.assertEqual(1, self.check(good.replace("DEMO", "DEMOO"))[0])
        self.assertEqual(2, run("check", "-c", "/nonexistent")[0])

    def test_json(self):
        """Stacks with their keys, and every mistake with its line."""
        text = "[global]\nstack=demo1:DEMO,gp1:GPRINT\nstack=a:B,c:D\n[gp1]\nfile=stdout\n"
        status, out, _ = self.check(text, "--json")
        found = json.loads(out)
        self.assertEqual((1, False), (status, found["ok"]))
        (stack,) = found["stacks"]
        self.assertEqual("demo1:DEMO,gp1:GPRINT", stack["text"])
        self.assertIn("demo1", stack["keys"])
        self.assertTrue(any(m["where"].endswith(":3") and m["kind"] == "error" for m in found["mistakes"]), found)
