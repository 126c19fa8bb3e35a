"""The fuzz targets guided by coverage, some seconds each."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from twisted.trial.unittest import SkipTest, TestCase

from tests.fuzz.targets import TARGETS
from tests.support import TOP

SOAK = bool(os.environ.get("ULOGD_TW_SOAK"))
SECONDS = 60 if SOAK else 2


class AtherisTests(TestCase):
    """libFuzzer on every decoder."""

    timeout = 60 + 40 * SECONDS

    def test_targets(self):
        """No promise is broken by what it finds; the same each time, but with ULOGD_TW_SOAK ever more."""
        if find_spec("atheris") is None:
            wheel = platform.machine() == "x86_64" and sys.version_info < (3, 14)
            raise SkipTest("install: pip install atheris" if wheel else "atheris has no wheel for this platform")

        def run(name):
            words = [sys.executable, "-m", "tests.fuzz", name, "--with", "atheris", "--seconds", str(SECONDS)]
            words += [] if SOAK else ["--seed", "1"]
            fixed = os.environ if SOAK else os.environ | {"PYTHONHASHSEED": "0"}
            return name, subprocess.run(words, capture_output=True, text=True, cwd=TOP, timeout=50 + SECONDS, env=fixed)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, done in pool.map(run, TARGETS):
                replay = f"{sys.executable} -m tests.fuzz {name} --replay FILE"
                shown = f"{replay} with the file that is named here:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
                self.assertEqual(0, done.returncode, shown)
