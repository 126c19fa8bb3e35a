"""The pictures in docs/pictures: stacks are those of the configurations, terminals show commands that exist."""

import re
import shlex
import sys
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from ulogd_tw import cli

DOCS = TOP / "docs"
PICTURES = DOCS / "pictures"
LARGEST = 8_000
"""Octets of a picture."""
LARGEST_PHOTOGRAPH = 80_000


def script(name):
    """A script beside the documents, as a module."""
    sys.path.insert(0, str(DOCS))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(DOCS))


class PictureTests(SynchronousTestCase):
    """Every picture."""

    def test_stacks(self):
        """Pictures of stacks are what docs/draw_stacks.py draws of the configurations as they are."""
        draw = script("draw_stacks")
        for name, drawn in draw.pictures().items():
            stale = drawn != (PICTURES / name).read_text("utf-8")
            self.assertFalse(stale, f"{name} is stale; in the top folder: {draw.COMMAND}")

    def test_used(self):
        """Each is small, can be read, and stands in a document with a text for those who do not see it."""
        documents = "".join(path.read_text("utf-8") for path in DOCS.glob("*.md"))
        photographs = {path for path in PICTURES.iterdir() if path.suffix == ".png"}
        drawn = set(PICTURES.iterdir()) - photographs
        for path in photographs:
            self.assertTrue(path.read_bytes().startswith(b"\x89PNG"), path.name)
            self.assertLess(path.stat().st_size, LARGEST_PHOTOGRAPH, path.name)
            self.assertRegex(documents, rf"!\[[^\]]{{20,}}\]\(pictures/{re.escape(path.name)}\)")
        names = {path.name for path in drawn}
        self.assertEqual(names, set(script("draw_stacks").pictures()) | set(script("record_sessions").TERMINALS))
        for path in drawn:
            ElementTree.fromstring(path.read_text("utf-8"))
            self.assertLess(path.stat().st_size, LARGEST, path.name)
            self.assertRegex(documents, rf"!\[[^\]]{{20,}}\]\(pictures/{re.escape(path.name)}\)")
            self.assertNotRegex(path.read_text("utf-8"), r"/(tmp|root|home|work)/", "a path of somebody's machine")

    def test_typed(self):
        """What stands behind a prompt is what the script types, and a command of ours is one."""
        for name, (typed, _, _) in script("record_sessions").TERMINALS.items():
            texts = [
                text.text or "" for text in ElementTree.parse(PICTURES / name).iter("{http://www.w3.org/2000/svg}text")
            ]
            self.assertEqual([f"$ {command}" for command in typed], [text for text in texts if text.startswith("$ ")])
            for command in typed:
                words = shlex.split(command)
                if words[0] == "ulogd-tw" and words[1] not in cli.COMMANDS:
                    cli.twistd_arguments(words[1:])
