"""etc/compose: the files say what the image, the command line and the documents say."""

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from ulogd_tw import cli, config

FOLDER = TOP / "etc" / "compose"


class ComposeTests(SynchronousTestCase):
    """Each service of each file."""

    def services(self):
        """Name -> declaration."""
        found = {}
        for path in sorted(FOLDER.glob("*.yaml")):
            found |= yaml.safe_load(path.read_text())["services"]
        return found

    def test_services(self):
        """Each has its configuration beside it, no capability that it does not need, and time for its last writes."""
        found = self.services()
        self.assertEqual({"collector", "exporter"}, found.keys())
        for name, service in found.items():
            self.assertIn(f"./{name}.conf:/etc/ulogd-tw.conf:ro", service["volumes"])
            words = cli.twistd_arguments(
                [str(FOLDER / f"{name}.conf") if w[0] == "/" else w for w in service["command"]]
            )
            self.assertIn("ulogd", words)
            self.assertEqual(["ALL"], service["cap_drop"])
            self.assertEqual("60s", service["stop_grace_period"])
            self.assertTrue(service["read_only"])
        self.assertNotIn("cap_add", found["collector"])

    def test_ports(self):
        """What the collector listens on is what the container opens."""
        loaded = config.load(str(FOLDER / "collector.conf"))
        listen = next(entry.value for entry in loaded.sections["col1"].entries if entry.key == "listen")
        ports = {f"{port}:{port}/{scheme}" for scheme, port in (word.split(":") for word in listen.split())}
        self.assertEqual(ports, set(self.services()["collector"]["ports"]))
