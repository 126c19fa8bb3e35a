"""The extension itself: it is there where it can be, and does without what is missing."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.kernels import SKIP
from ulogd_tw import kernels

TOP = Path(__file__).resolve().parents[3]
SAID = "from ulogd_tw import kernels; print(kernels.active(), kernels.why_not())"


class ExtensionTests(SynchronousTestCase):
    """Which kernels are active."""

    def test_compiled(self):
        """With a compiler and Python's headers the extension is built by the installation."""
        header = Path(sysconfig.get_path("include"), "Python.h")
        asked = os.environ.get("ULOGD_TW_KERNELS", "on")
        if asked == "off" or not shutil.which("cc") or not header.exists():
            self.assertEqual((), kernels.active())
        else:
            self.assertEqual(kernels.SUBJECTS, kernels.active(), kernels.why_not())

    def test_off(self):
        """The environment leaves them out, and the reason is said."""
        told = subprocess.run([sys.executable, "-c", SAID], cwd=TOP, capture_output=True, text=True, timeout=60,
                              env=os.environ | {"ULOGD_TW_KERNELS": "off"}, check=True)  # fmt: skip
        self.assertEqual("() ULOGD_TW_KERNELS=off\n", told.stdout)

    def test_empty(self):
        """An empty variable is the same as none."""
        code = "import ulogd_tw.kernels as k; print(k.active())"
        told = [
            subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=60,
                           env=os.environ | {"ULOGD_TW_KERNELS": value}, check=True).stdout
            for value in ("", "on")
        ]  # fmt: skip
        self.assertEqual(told[1], told[0])

    def test_not_compiled(self):
        """Without the extension NumPy does the work; what to install is said."""
        code = "import sys; sys.modules['ulogd_tw.kernels._kernels'] = None; " + SAID
        told = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=60,
                              env=os.environ | {"ULOGD_TW_KERNELS": "on"}, check=True)  # fmt: skip
        self.assertIn("() not compiled: ", told.stdout)
        self.assertIn("apt-get install gcc python3-dev", told.stdout)

    def test_other_sources(self):
        """An extension of another form than the declarations is not used; what to run is said."""
        if kernels.lib is None:
            raise SkipTest(SKIP)
        code = ("import sys, types; made = types.ModuleType('made'); made.lib = made.ffi = made; made.UT_FORM = 1; "
                "sys.modules['ulogd_tw.kernels._kernels'] = made; " + SAID)  # fmt: skip
        told = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=60,
                              env=os.environ | {"ULOGD_TW_KERNELS": "on"}, check=True)  # fmt: skip
        self.assertEqual(
            "() compiled from other sources: compile them anew (python setup.py build_ext --inplace)\n", told.stdout
        )

    def test_size(self):
        """The kernels stay small enough to be read at one sitting."""
        lines = sum(len(path.read_text().splitlines()) for path in (TOP / "ulogd_tw" / "kernels").glob("*.[ch]"))
        self.assertLess(lines, 1500)
