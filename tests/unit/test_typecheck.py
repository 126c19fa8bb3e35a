"""The type checker's exceptions: they are told apart from faults, and the list only shrinks."""

from twisted.trial.unittest import SynchronousTestCase

from tests import typecheck


class MistakesTests(SynchronousTestCase):
    """What `python -m tests.typecheck` makes of mypy's output."""

    LINES = (
        "ulogd_tw/core/keys.py:3: error: Name is wrong  [name-defined]",
        "ulogd_tw/ipfix/__init__.py:7: error: Type is wrong  [assignment]",
    )

    def test_errors_of_modules_that_are_not_listed(self):
        """Each is shown; those of a listed module are not."""
        self.assertEqual([self.LINES[0]], list(typecheck.mistakes(self.LINES, ["ulogd_tw.ipfix"])))
        self.assertEqual([], list(typecheck.mistakes(self.LINES, ["ulogd_tw.core.keys", "ulogd_tw.ipfix"])))

    def test_listed_modules_without_errors(self):
        """They are to be taken out of the list."""
        (found,) = typecheck.mistakes([], ["ulogd_tw.core.keys"])
        self.assertIn("ulogd_tw.core.keys has no type error: take it out", found)

    def test_modules_of_core_are_never_excepted(self):
        """core/ is clean, and stays so."""
        listed = typecheck.exceptions(typecheck.settings())
        self.assertEqual([], [module for module in listed if module.startswith("ulogd_tw.core")])
