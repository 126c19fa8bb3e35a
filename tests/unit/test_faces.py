"""The faces of packages: each says what it is, and names what others may import."""

import importlib
import pkgutil
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import ulogd_tw

PACKAGES = [module.name for module in pkgutil.iter_modules(ulogd_tw.__path__, "ulogd_tw.") if module.ispkg]

_LIGHT = ["core", "match", "naming", "netfilter", "packets", "metering", "operating", "plugins", "aggregation", "ipfix"]
"""Packages below ulogd_tw whose faces load no reactor, so that commands and filters start fast."""


class FacesTests(SynchronousTestCase):
    """Every package directly below ulogd_tw."""

    def test_paragraph(self):
        """A face has a first line and a paragraph."""
        for name in PACKAGES:
            doc = importlib.import_module(name).__doc__ or ""
            self.assertGreaterEqual(len(doc.strip().split("\n\n")), 2, name)

    def test_names(self):
        """Each name in ``__all__`` is there, once, and is a module of the package or something that it defines."""
        for name in PACKAGES:
            face = importlib.import_module(name)
            self.assertEqual(len(set(face.__all__)), len(face.__all__), name)
            for exported in face.__all__:
                if not hasattr(face, exported):
                    importlib.import_module(f"{name}.{exported}")

    def test_light(self):
        """Faces that plugins of one kind share load no reactor."""
        for package in _LIGHT:
            code = f"import sys, ulogd_tw.{package}; sys.exit('twisted.internet.reactor' in sys.modules)"
            self.assertEqual(0, subprocess.run([sys.executable, "-c", code], check=False).returncode, package)
