"""Keys by name and by element, however much of the tables has been read."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.keys import REVERSE_PEN, Registry


class ReverseTests(SynchronousTestCase):
    """Elements of the other direction, which are read without those of enterprises."""

    def test_is_the_same_with_all_tables(self):
        """Each one found alone, by its name and its number, is what the whole table has."""
        alone, whole = Registry(), Registry()
        reverse = {element: key for element, key in whole.enterprise.items() if element[0] == REVERSE_PEN}
        self.assertGreater(len(reverse), 400)
        for (pen, ident), key in reverse.items():
            self.assertEqual((key, key), (alone.element(pen, ident), alone.key(key.name)))
            self.assertEqual(key, whole._enterprise_by_name[key.name])
        self.assertEqual(f"e{REVERSE_PEN}id4000", alone.element(REVERSE_PEN, 4000).name)
        self.assertNotIn("enterprise", vars(alone))

    def test_names_of_enterprises(self):
        """A name that only begins so is found where it is."""
        key = Registry().key("reverseFlowDeltaMilliseconds")  # of CERT, 6871/21 (YAF's documentation)
        self.assertEqual(((6871, 21),), key.elements)

    def test_not_read_for_connections(self):
        """Keys of conntrack are there without the enterprises' table."""
        code = "from ulogd_tw.netfilter import conntrack; from ulogd_tw.core.keys import registry; "
        code += "import sys; sys.exit('enterprise' in vars(registry))"
        self.assertEqual(0, subprocess.run([sys.executable, "-c", code], check=False).returncode)
