"""The command that brings a library, by how the program was installed."""

import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.libraries import install


class InstallTests(SynchronousTestCase):
    """What users are told to run."""

    def test_pipx(self):
        """pipx leaves a file in each environment that it makes, wherever that is."""
        prefix = Path(self.mktemp())
        prefix.mkdir()
        self.patch(sys, "prefix", str(prefix))
        self.assertEqual(f"{sys.executable} -m pip install maxminddb", install("maxminddb"))
        (prefix / "pipx_metadata.json").write_text("{}")
        self.assertEqual("pipx inject ulogd_tw maxminddb", install("maxminddb"))

    def test_debian(self):
        """The system's Python takes Debian's packages, where there is one."""
        self.patch(sys, "prefix", sys.base_prefix)
        self.assertEqual("apt-get install python3-maxminddb", install("maxminddb"))
        self.assertEqual(f"{sys.executable} -m pip install duckdb", install("duckdb"))
