"""Configurations with odd values: mistakes are told, and cost their own stacks only."""

from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw import config as configuration
from ulogd_tw import registry, tap

GOOD = "col9:COLLECTOR,gp9:GPRINT"
AROUND = {
    "input": ("x:{}", "gp1:GPRINT"),
    "filter": ("col1:COLLECTOR", "x:{}", "gp1:GPRINT"),
    "output": ("col1:COLLECTOR", "x:{}"),
}
VALUES = (
    "", "0", "1", "-1", "99999999999999999999", "1.5", "x", "x y", "a,b,,c", "udp:", "tcp:[::1]", "udp:127.0.0.1:99999",
    "[", "(", ")", "%", "%s", "{", "é", "../x", "/", "1/0", "sum()", "sum(octets,", "sum(octets)=", "a=b=c", "src port",
    "not", "5tuple", "=", "10.0.0.0/33", "::/129", "0x", "1h", "-5s", "NaN", "1e9", "select", "\\", "#", "x" * 300,
)  # fmt: skip
"""Values that some reader may stumble over."""


def plugins():
    """(position, name) of every plugin."""
    return [(position, name) for position, table in registry.BUILT_IN.items() for name in sorted(table)]


@st.composite
def configurations(draw):
    """A configuration with one stack around a plugin with odd values, and a good one."""
    position, name = draw(st.sampled_from(plugins()))
    options = registry.lookup(name, position).all_options()
    given_ = draw(st.lists(st.tuples(st.sampled_from(options), st.sampled_from(VALUES)), max_size=6)) if options else []
    lines = [f'{option.name}="{value}"' for option, value in given_]
    stack = ",".join(AROUND[position]).format(name)
    return "\n".join(["[global]", f"stack={stack}", f"stack={GOOD}", "[x]", *lines]) + "\n"


class OddConfigurationTests(SynchronousTestCase):
    """Every plugin with every option."""

    @given(configurations())
    def test_good_stack_stays(self, text):
        """The good stack is there, and each mistake says more than that the plugin has a fault of its own."""
        path = Path(self.mktemp())
        path.write_text(text)
        built = tap.Built(configuration.load(str(path)), prepare=False)
        self.assertIn(GOOD, [stack.spec.text for stack in built.graph.stacks], text)
        self.assertEqual([], [str(mistake) for mistake in built.mistakes if "plugin itself" in str(mistake)])
        tap.describe(built.graph)
