"""The templates of plugins in docs/example-package: built, installed as a package of their own, and run."""

import functools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, require_setuptools

COMMAND = ("-B", "-c", "from ulogd_tw.cli import main; main()")
"""ulogd-tw, without looking for the script."""
TEMPLATES = TOP / "docs" / "example-package"


@functools.cache
def installed():
    """The folder that the templates are installed into, from a copy, once for all tests."""
    require_setuptools()
    folder = Path("templates").absolute()
    source = shutil.copytree(TEMPLATES, folder / "source")
    # as pip does without its own start: the wheel of the project's back-end, unpacked
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    run_python("-c", build, str(folder), cwd=source)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def run_python(*arguments, cwd=None, path=TOP):
    """Run Python with this path; what it printed."""
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    if ended.returncode:
        raise AssertionError(f"{arguments}: {ended.stdout}{ended.stderr}")
    return ended.stdout


class TemplatesTests(SynchronousTestCase):
    """As their users have them: nothing is imported from the checkout but ulogd_tw itself."""

    def python(self, *arguments, cwd=None):
        """Run Python with the installed package; what it printed."""
        return run_python(*arguments, cwd=cwd, path=f"{installed()}:{TOP}")

    def written(self, text=None, extra=""):
        """The files that the example's stacks write: the texts of both outputs, and the folder."""
        folder = Path(shutil.copytree(TEMPLATES, self.mktemp()))
        if text is not None:
            (folder / "flows.csv").write_text(text)
        conf = folder / "example.conf"
        conf.write_text(conf.read_text().replace("[global]\n", f"[global]\n{extra}\n", 1))
        said = self.python(*COMMAND, "-c", "example.conf", cwd=folder)
        self.assertNotIn("error", said)
        return (folder / "flows.tsv").read_text(), (folder / "protocols.tsv").read_text(), folder

    def test_run(self):
        """All stacks of the example run as a batch job, and write what the rows of the file give."""
        flows, protocols, folder = self.written()
        self.assertEqual("192.0.2.1\t15000\t1500.0\n192.0.2.1\t400\t100.0\n", flows)
        self.assertEqual("6\t15400\n17\t180\n", protocols)
        (parts,) = (path for path in folder.glob("*-1.tsv"))
        lines = (line.split(",") for line in (TEMPLATES / "flows.csv").read_text().splitlines())
        self.assertEqual([f"{source}\t{octets}" for source, _, _, _, octets in lines], parts.read_text().splitlines())

    def test_wrong_lines(self):
        """Lines that are no flow are counted, and the others go on."""
        wrong = "x\n192.0.2.1,198.51.100.7,6,1,500\n1.2.3,1.2.3.4,6,1,1\n::1,::2,6,1,1\n,,,,\n"
        flows, _, folder = self.written(wrong, 'stats_file="stats.json"')
        self.assertEqual("192.0.2.1\t500\t500.0\n", flows)
        self.assertIn('"line": 4', (folder / "stats.json").read_text())

    def test_described(self):
        """--info shows all, from their entry points."""
        places = {
            "CSVIN": "input",
            "PERPACKET": "filter",
            "BYPROTOCOL": "filter",
            "TABBED": "output",
            "PARTS": "output",
        }
        code = f"from ulogd_tw import registry\nfor name in {list(places)}: print(registry.describe(name))"
        said = self.python("-B", "-c", code)
        for name, place in places.items():
            self.assertIn(f"{name}: {place}", said)

    def test_own_tests(self):
        """Their own tests pass."""
        self.python("-B", "-m", "unittest", "discover", str(TEMPLATES / "tests"))
