"""The compiled kernels, which are optional; everything else about the package stands in setup.cfg."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

from ulogd_tw.kernels.build import extension  # noqa: E402 (a build does not have this folder on its path)

setup(ext_modules=[extension(Path(__file__).parent).distutils_extension(tmpdir="build/kernels")])
