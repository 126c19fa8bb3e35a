"""What instances that are in no stack any more have left, by files that the release before has written."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from twisted.internet import defer, task
from twisted.trial.unittest import SynchronousTestCase

from tests.unit import former_release
from ulogd_tw import config, left_behind
from ulogd_tw.built import Built
from ulogd_tw.core.ledger import Former
from ulogd_tw.left_behind import Left, LeftBehind, Present, found
from ulogd_tw.state_directory import StateDirectory

FORMER = Path(former_release.__file__).parent
CONFIG = """[global]
state_dir="{dir}/state"
stack=col1:COLLECTOR,agg1:AGGREGATE,json2:JSON
stack=col1:COLLECTOR,exp1:IPFIX
[exp1]
collectors="udp:192.0.2.1:4739"
[old]
spool="{dir}/own"
"""


class LeftCase(SynchronousTestCase):
    """A directory of state with rows of `json2`, groups of `agg1` and records for a collector of `exp1`."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        state = self.path / "state"
        self.messages = state / "instances" / "exp1" / "spool" / "exp1-udp_192.0.2.1_4739" / "000000000000.ipfix"
        self.groups = state / "instances" / "agg1" / "intervals"
        for directory in (state / "spool", self.path / "own", self.groups.parent, self.messages.parent):
            directory.mkdir(parents=True)
        shutil.copy(FORMER / "messages.ipfix", self.messages)
        shutil.copy(FORMER / "intervals", self.groups)
        self.rows = [shutil.copy(path, state / "spool") for path in sorted(FORMER.glob("*.batch"))]

    def present(self, *edit, left_out=()):
        """The instances of a configuration."""
        path = self.path / "ulogd.conf"
        path.write_text(CONFIG.replace("{dir}", str(self.path)).replace(*edit or ("", "")))
        built = Built(config.load(str(path)), prepare=False)
        return Present.of(built.graph, built.settings.state_dir, built.spools, left_out)

    def left(self, *edit, **keywords):
        return {(one.instance, one.kind): one.rows for one in found(self.present(*edit, **keywords))}


class FoundTests(LeftCase):
    """Which files are of nobody, and how many rows they have."""

    def test_nothing(self):
        """All files have an instance that reads them."""
        self.assertEqual({}, self.left())

    def test_gone(self):
        """The README of these files says: 37 rows, of 30 + 5 + 2 records."""
        self.assertEqual({("json2", "rows"): 37}, self.left("json2:JSON", "json3:JSON"))
        self.assertEqual({("agg1", "groups"): 37}, self.left("agg1:AGGREGATE,", ""))
        self.assertEqual({("exp1-udp_192.0.2.1_4739", "records"): 37}, self.left("192.0.2.1", "192.0.2.2"))
        self.assertEqual(3, len(self.left("stack=", "stack=d:DEMO,g:GPRINT\n#")))

    def test_own_spool(self):
        """The directory of a section without a stack is looked at too."""
        for path in self.rows:
            shutil.move(path, self.path / "own")
        self.assertEqual({("json2", "rows"): 37}, self.left("json2:JSON", "json3:JSON"))

    def test_emitted(self):
        """Groups that have gone out are nobody's."""
        with np.load(self.groups) as arrays:
            names = [saved["ident"] for _, saved in json.loads(arrays["head"].tobytes())["tallies"]]
        self.groups.with_name("intervals.emitted").write_text("".join(f"{name} 1\n" for name in names))
        self.assertEqual({}, self.left("agg1:AGGREGATE,", ""))

    def test_left_out(self):
        """Instances of a stack that may be mended are not gone."""
        stack = {"text": "col1:COLLECTOR,agg1:AGGREGATE,json2:JSON"}
        self.assertEqual({}, self.left("agg1:AGGREGATE,json2", "json3", left_out=[stack]))
        stack = {"text": "col1:COLLECTOR,exp1:IPFIX"}
        self.assertEqual({}, self.left("stack=col1:COLLECTOR,exp1", "stack=col1:COLLECTOR,exp2", left_out=[stack]))

    def test_damage(self):
        """Such files count as nothing, and hurt nobody."""
        for path in (*map(Path, self.rows), self.groups, self.messages):
            path.write_bytes(path.read_bytes()[:30])
        self.assertEqual({}, self.left("stack=", "stack=d:DEMO,g:GPRINT\n#"))


class LookTests(LeftCase):
    """Look after look."""

    def setUp(self):
        super().setUp()
        self.clock = task.Clock()
        self.patch(LeftBehind, "log", self)
        self.patch(left_behind.threads, "deferToThread", defer.maybeDeferred)
        self.said = []
        self.behind = LeftBehind(self.clock)

    def warn(self, text, **fields):
        self.said.append(text.format(**fields))

    def test_look(self):
        """It is said once, with the files; and no more when the files are gone."""
        self.behind.look(self.present("json2:JSON", "json3:JSON"))
        self.clock.pump([60.0] * 3)
        self.assertEqual([37], [one.rows for one in self.behind.found])
        self.assertEqual(1, len(self.said))
        self.assertRegex(
            self.said[0], "37 rows of json2, which is in no stack that runs, in /.*-000000.batch, .*; a stack with"
        )
        for path in self.rows:
            Path(path).unlink()
        self.clock.pump([60.0] * 2)
        self.assertEqual([], self.behind.found)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_lost(self):
        """Rows that were lost with a killed run stay in the list."""
        self.behind.lose({"db1": 5, "db2": 0})
        self.behind.look(self.present())
        self.assertEqual([Left("db1", "lost", 5)], self.behind.found)
        self.assertIn(
            "5 rows of db1, which is in no stack that runs, lost when an earlier run was killed", self.said[0]
        )

    def test_of_the_ledger(self):
        """A killed run had 40 rows in agg1, and 3 on the way to json2; 37 of agg1 are in its file."""
        state = StateDirectory(str(self.path / "state"), 1.0)
        former = Former({
            "col1": ("input", [43, 0, 43, 43, 0, 0, 0, 0], []),
            "agg1": ("aggregator", [3, 43, 0, 3, 0, 0, 0, 43], ["col1"]),
            "json2": ("output", [0, 0, 0, 0, 0, 0, 0, 0], ["agg1"]),
        })  # fmt: skip
        self.assertEqual({"agg1": 3, "json2": 3}, state._lost_by_others(former, {"col1"}))
