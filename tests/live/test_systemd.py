"""The real systemd: our unit, installed by our package, in a container over an overlay of this machine's root."""

import functools
import json
import re
import shutil
import subprocess
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.packages import Overlay, debian_package, newer
from tests.live.service import temporary
from tests.support import TOP, require_program, require_root

PROBE = """[Unit]
Description=goes through the steps and ends the container
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash /package/steps.sh
ExecStopPost=/bin/systemctl --force --force exit
"""
CONTAINER = "--keep-unit --register=no --link-journal=no --private-network --console=pipe --quiet".split()


@functools.cache
def seen():
    """What each step of systemd_steps.sh printed, by its name."""
    require_root()
    require_program("systemd-nspawn", "logrotate", "ss")
    package = debian_package()
    folder = temporary("systemd")
    shutil.copy(package, folder / "first.deb")
    newer(package, folder).rename(folder / "second.deb")
    shutil.copy(TOP / "tests/live/systemd_steps.sh", folder / "steps.sh")
    with Overlay() as view:
        for path in ("etc/systemd/system/probe.service", "seen/x"):
            (view.root / path).parent.mkdir(parents=True, exist_ok=True)
        (view.root / "etc/systemd/system/probe.service").write_text(PROBE)
        (view.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        (view.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # of another run of tests/install-peers
        said = boot(view.root, f"--bind-ro={folder}:/package")
        found = {path.name: path.read_text(errors="replace") for path in (view.root / "seen").iterdir()}
    if not found:
        refuse(said)
    return found


def boot(root, *more):
    """Boot systemd in a root until the probe has ended; what systemd-nspawn said."""
    inside = ["/lib/systemd/systemd", "--unit=probe.service"]
    run = subprocess.run(
        ["systemd-nspawn", *CONTAINER, *more, "-D", root, *inside],
        capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return (run.stdout + run.stderr)[-500:]


def refuse(said):
    """Leave the tests out if no container starts here, not even with a probe that only makes a file; else fail."""
    with Overlay() as view:
        unit = view.root / "etc/systemd/system/probe.service"
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text(re.sub("ExecStart=.*", "ExecStart=/bin/touch /started", PROBE))
        reason = boot(view.root)
        started = (view.root / "started").exists()
    if started:
        raise AssertionError(f"the container starts, but no step of it: {said}")
    raise SkipTest(f"systemd-nspawn starts no container here: {reason}")


def journal(text):
    """Priority and text of the lines that the service wrote."""
    return [(entry["PRIORITY"], entry["MESSAGE"]) for entry in map(json.loads, text.splitlines())]


class SystemdTests(SynchronousTestCase):
    """One life of the package, step by step."""

    def step(self, name, *expected):
        """What a step printed, with these lines in it."""
        text = seen().get(name, "")
        for line in expected:
            self.assertIn(line, text.splitlines(), f"step {name}:\n{text}")
        self.assertNotIn("never:", text)
        return text

    def test_install(self):
        """Without network it is installed, enabled, and runs as its user; its exposure is 2.0 or better."""
        self.step("install", "status 0")
        text = self.step("installed", "ActiveState=active", "SubState=running", "enabled", "ulogd")
        self.assertIn("/opt/ulogd-tw/bin/ulogd-tw", text)
        self.assertLessEqual(float(re.search(r"exposure level for ulogd-tw.service: ([\d.]+)", text)[1]), 2.0)

    def test_ready(self):
        """The start is done when the sockets are open, and not before; the status line says what runs."""
        self.assertIn("127.0.0.1:4739", self.step("ready", "StatusText=1 stack runs, 0 rows/s"))
        self.assertIn('Status: "1 stack runs, 0 rows/s"', self.step("status"))

    def test_query(self):
        """The sandbox of the unit leaves room for that of the queries, which read the tables and nothing else."""
        text = self.step("query", "status 0")
        self.assertEqual(1, text.count("status 0"), text)
        self.assertNotIn("root:", text)

    def test_journal(self):
        """Lines have their priority, and neither a time of their own nor Twisted's words."""
        lines = journal(self.step("journal"))
        self.assertIn(("6", "stacks running (1): d:DEMO,j:JSON"), lines)
        self.assertTrue(any(level == "4" and "no_such" in text for level, text in lines), lines)
        self.assertTrue(any(level == "3" and "nobody" in text for level, text in lines), lines)
        self.assertEqual(
            [], [text for _, text in lines if re.match(r"20\d\d-|\[|.*(Starting factory|Main loop)", text)]
        )

    def test_template(self):
        """It has folders of its own, and ends in order."""
        text = self.step(
            "template", "ActiveState=active", "/run/ulogd-tw-odd", "/var/lib/ulogd/odd", "/var/log/ulogd/odd"
        )
        self.assertIn("Deactivated successfully", text)

    def test_restart(self):
        """Every flow that comes while the service is restarted is there: its socket was in systemd's store."""
        self.step("restart", "status 0", "ActiveState=active", "flows 2000")

    def test_killed(self):
        """Killed and started again by systemd, the service has each flow in its file or among its losses, once."""
        text = self.step("killed", "ActiveState=active", "NRestarts=1", "stored and lost 2000")
        self.assertGreater(int(re.search(r"stored (\d+)", text)[1]), 1000, text)

    def test_reload(self):
        """The process is the same, with the new configuration, and READY again."""
        text = self.step("reload", "status 0", "same process", "ActiveState=active", "SubState=running")
        self.assertIn("agg1", text)

    def test_logrotate(self):
        """The service writes into a new file."""
        self.step("logrotate", "status 0", "flows.json", "flows.json.1")

    def test_watchdog(self):
        """A service that turns lives; one that stands still is ended and started again."""
        self.assertIn("Watchdog timeout", self.step("watchdog", "lives", "started again"))

    def test_wrong(self):
        """A configuration that cannot run is a failed start, with the mistake in the journal."""
        text = self.step("wrong", "status 1")
        lines = journal("\n".join(line for line in text.splitlines() if line.startswith("{")))
        self.assertEqual(1, len([line for _, line in lines if "KNOWS" in line]), text)
        self.assertEqual({"3"}, {level for level, line in lines}, text)

    def test_upgrade(self):
        """The configuration is kept, and the new program runs."""
        self.step("upgrade", "status 0", "another process", "# mine", "ActiveState=active")
        self.assertIn("-2\n", seen()["upgrade"])

    def test_stop(self):
        """In order, at once where nothing waits."""
        text = self.step("stop", "status 0", "ActiveState=inactive", "Result=success")
        self.assertIn("Deactivated successfully", text)

    def test_remove(self):
        """Removed, the service is stopped and its data stays; purged, nothing is left."""
        text = self.step("remove", "status 0", "/etc/ulogd-tw.conf", "/var/lib/ulogd")
        self.assertNotIn("\n/opt/ulogd-tw\n", text)
        self.assertEqual("status 0", self.step("purge", "status 0").strip().splitlines()[-1])
