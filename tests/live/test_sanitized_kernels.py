"""The compiled kernels with AddressSanitizer and UndefinedBehaviorSanitizer: their tests and the fuzz targets."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
FLAGS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
TESTS = (
    "tests.unit.kernels", "tests.unit.ipfix.test_message_runs", "tests.unit.ipfix.test_netflow",
    "tests.unit.ipfix.test_layout", "tests.unit.core.test_text", "tests.unit.core.test_key_table",
    "tests.unit.aggregation", "tests.unit.packets", "tests.unit.netfilter",
    "tests.unit.test_fuzz",
)  # fmt: skip
BUILD = """
import sys
from pathlib import Path
from ulogd_tw.kernels.build import extension
top = Path({top!r})
print(extension(top, {flags!r}).compile(tmpdir={folder!r}))
"""
OUTSIDE = """
from ulogd_tw.kernels import ffi, lib
few = ffi.new("int64_t[]", [0])
lib.ut_strings(ffi.new("uint8_t[]", 4), 1 << 40, few, ffi.new("int64_t[]", [0, 64]), 1, ffi.new("uint8_t[]", 64), 64)
"""


def preloaded():
    """The library of AddressSanitizer, which has to be loaded before Python."""
    if not shutil.which("gcc") or not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise SkipTest("install: gcc and the headers of Python (python3-dev)")
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True, timeout=60
    )
    return found.stdout.strip()


class SanitizedTests(SynchronousTestCase):
    """Any read or write outside the memory that a kernel was given ends the process."""

    def setUp(self):
        library = preloaded()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        # The sources are named from the folder of setup.py on, and objects are put beside them.
        shutil.copytree(TOP / "ulogd_tw" / "kernels", Path(self.folder, "ulogd_tw", "kernels"))
        code = BUILD.format(top=str(TOP), flags=FLAGS, folder=self.folder)
        built = subprocess.run([sys.executable, "-c", code], cwd=self.folder, capture_output=True, text=True,
                               timeout=300, env=os.environ | {"PYTHONPATH": str(TOP)})  # fmt: skip
        self.assertEqual(0, built.returncode, built.stderr)
        self.environment = os.environ | {
            "ULOGD_TW_KERNELS": built.stdout.split()[-1],
            "LD_PRELOAD": library,
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",  # tests of memory count what is kept there
            "HYPOTHESIS_EXAMPLES": "50",
        }

    def run_here(self, *arguments):
        """A run of Python with the sanitized kernels."""
        return subprocess.run([sys.executable, *arguments], cwd=TOP, env=self.environment, capture_output=True,
                              text=True, timeout=600)  # fmt: skip

    def test_tests(self):
        """The tests of the kernels and every fuzz target pass; a read outside would have been seen."""
        outside = self.run_here("-c", OUTSIDE)
        self.assertNotEqual(0, outside.returncode)
        self.assertIn("AddressSanitizer: heap-buffer-overflow", outside.stderr)
        passed = self.run_here("-m", "tests.run", *TESTS)
        self.assertEqual(0, passed.returncode, passed.stdout[-4000:] + passed.stderr[-4000:])
        self.assertIn(" 0 failed", passed.stdout)
