"""The Debian package in a clean Debian without network, and the image as an ordinary user."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.packages import KEPT, Overlay, debian_package, out
from tests.live.service import temporary
from tests.live.test_package import built_wheel
from tests.support import require_program, require_root
from ulogd_tw import __version__

CLEAN = """
set -e
dpkg --install /ulogd-tw.deb
install -d -o ulogd -g ulogd /run/ulogd /var/lib/ulogd /var/log/ulogd
ulogd-tw --version
ulogd-tw --check
ulogd-tw -i COLLECTOR | head -1
ulogd-tw examples demo.conf /demo.conf
for conf in /etc/ulogd-tw.conf /demo.conf; do
    cd /var/lib/ulogd
    setpriv --reuid ulogd --regid ulogd --clear-groups ulogd-tw -c $conf >/tmp/said 2>&1 &
    for n in $(seq 200); do grep -q 'stacks running' /tmp/said && break; sleep 0.1; done
    kill $! || cat /tmp/said
    wait $! || echo "status $?"
    grep -o 'stacks running .*' /tmp/said
    grep -c octets= /tmp/said || true
done
cat /run/ulogd/stats.json
dpkg-query -L ulogd-tw | grep -E 'man8/|man5/ulogd-tw.conf|completions/'
dpkg --purge ulogd-tw
find / -xdev -name '*ulogd*' ! -path '/proc/*' ! -path /ulogd-tw.deb
getent passwd ulogd || echo none
"""
IN_IMAGE = """
/opt/ulogd-tw/bin/ulogd-tw >/tmp/said 2>&1 &
for n in $(seq 100); do grep -q ^{ /tmp/said && break; sleep 0.1; done
grep Uid: /proc/$!/status
id -un
kill $!
wait $!
echo "status $?"
grep -o 'stacks running .*' /tmp/said
grep -c ^{ /tmp/said
"""
DEMO = '[global]\nstack=d:DEMO,j:JSON\n[j]\nfile="stdout"\n'


def without_network(*words):
    """The words that run others in a network namespace of their own, with its loopback."""
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *map(str, words)]


class DistributionTests(SynchronousTestCase):
    """The source distribution, and the wheel that is made of it."""

    def test_complete(self):
        """The wheel has all that a wheel of the tree has, and man pages and completion; twine finds no fault."""
        (wheel,) = out("python").glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        self.assertEqual(set(), set(zipfile.ZipFile(built_wheel()).namelist()) - names)
        shared = {name.partition("/data/share/")[2] for name in names}
        self.assertLessEqual(
            {"man/man8/ulogd-tw.8", "man/man5/ulogd-tw.conf.5", "ulogd_tw/completion/ulogd-tw"}, shared
        )
        if find_spec("twine") is None:
            raise SkipTest("install: make lint, for twine")
        check = [sys.executable, "-m", "twine", "check", "--strict", wheel, *out("python").glob("*.tar.gz")]
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)


class CleanDebianTests(SynchronousTestCase):
    """The root that the image is made from, which has Python and nothing of ours."""

    def test_install(self):
        """It installs, runs as its user, serves, and leaves nothing behind."""
        require_root()
        package = debian_package()
        out("image")  # the root is made with it
        lower = temporary("debian")
        with tarfile.open(KEPT / "base.tar") as base:
            base.extractall(lower, filter="fully_trusted")
        with Overlay(lower) as view:
            shutil.copy(package, view.root / "ulogd-tw.deb")
            (view.root / "steps.sh").write_text(CLEAN)
            run = subprocess.run(
                without_network("chroot", view.root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                                "DEBIAN_FRONTEND=noninteractive", "sh", "/steps.sh"),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
            )  # fmt: skip
        said = run.stdout
        self.assertEqual(0, run.returncode, said)
        for words in (f"ulogd-tw {__version__}\n", "/etc/ulogd-tw.conf: OK", "COLLECTOR"):
            self.assertIn(words, said)
        for file in ("man8/ulogd-tw.8.gz", "man5/ulogd-tw.conf.5.gz", "completions/ulogd-tw", "completions/_ulogd-tw"):
            self.assertIn(f"{file}\n", said)
        self.assertIn("stacks running (1): col1:COLLECTOR,agg1:AGGREGATE,json1:JSON", said)
        self.assertIn("status 143", said)  # ended by our SIGTERM, in order
        self.assertNotIn("Traceback", said)
        self.assertEqual("none", said.strip().splitlines()[-1], said)
        self.assertLess(package.stat().st_size, 70 << 20)


class ImageTests(SynchronousTestCase):
    """dist/*.oci.tar, loaded into a store of its own."""

    def setUp(self):
        require_program("buildah")
        (self.archive,) = out("image").glob("*.oci.tar")
        self.folder = temporary("image")
        self.container = self.buildah("from", f"oci-archive:{self.archive}").strip().splitlines()[-1]

    def buildah(self, *words, before=()):
        """What it prints."""
        store = ["--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs"]
        argv = [*before, *map(str, ("buildah", *store, *words))]
        run = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
        self.assertEqual(0, run.returncode, run.stdout + run.stderr)
        return run.stdout

    def test_runs(self):
        """The service runs as the user ulogd, gives rows, and ends in order."""
        config = Path(self.folder, "demo.conf")
        config.write_text(DEMO)
        words = (
            "run",
            "--isolation",
            "chroot",
            "-v",
            f"{config}:/etc/ulogd-tw.conf:ro",
            self.container,
            "--",
            "sh",
            "-c",
        )
        said = self.buildah(*words, IN_IMAGE, before=without_network()).splitlines()
        self.assertNotIn("0", said[0].split()[1:], said)
        self.assertEqual(["ulogd", "status 143", "stacks running (1): d:DEMO,j:JSON"], said[1:4])
        self.assertGreater(int(said[4]), 0)
        about = json.loads(self.buildah("inspect", self.container))["OCIv1"]["config"]
        self.assertEqual(("ulogd", ["/opt/ulogd-tw/bin/ulogd-tw"]), (about["User"], about["Entrypoint"]))
        self.assertLess(os.stat(self.archive).st_size, 200 << 20)
