"""Explore in Debian's Chromium: its numbers are those of `ulogd-tw flows`, and its buttons do what they say."""

import json
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.browser import browser, page_of, picture
from tests.live.service import Service, temporary
from tests.support import free_port
from tests.unit.flows import made

STACKS = ["col1:COLLECTOR,flows1:PARQUET"]
CONFIG = """
[col1]
listen="udp:127.0.0.1:%d"
[flows1]
directory="{dir}/flows"
keys="%s"
[http]
listen="tcp:127.0.0.1:%d"
local_users=1
"""
KEYS = (*made.RAW_KEYS, "userName")
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
MINUTE = 60_000


def rows(count, end, span=50 * MINUTE):
    """Flows of the time before `end` (ms)."""
    chance = random.Random(7)
    for _ in range(count):
        at = end - chance.randrange(MINUTE, span)
        yield made.flow(
            at - made.T0, chance.randrange(40, 90_000), lasts=chance.randrange(5000), packets=chance.randrange(1, 50),
            source=f"10.0.0.{int(chance.paretovariate(1)) % 250}", destination=f"192.0.2.{chance.randrange(9)}",
            dport=chance.choice((443, 443, 443, 53, 53, 22, 8080, 25, 123, 993, 5060, 3389, None)),
            userName=chance.choice(("alice", "bob", MARKUP)),
        )  # fmt: skip


class ExploreTests(SynchronousTestCase):
    """A service with a store of the last hour."""

    def setUp(self):
        directory = temporary("console")
        self.end = int(time.time() * 1000)
        made.write(directory / "flows", rows(4000, self.end), KEYS)
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.service = Service(
            STACKS,
            CONFIG % (free_port("udp"), " ".join(KEYS), port),
            directory=directory,
            settings='control_socket="{dir}/control"',
        )
        self.service.__enter__()
        self.addCleanup(self.service.__exit__)
        opened = browser()
        self.page, self.faults = page_of(opened.__enter__(), self.host)
        self.addCleanup(opened.__exit__, None, None, None)

    def open(self, words="", view="explore"):
        """Open the page with a state, and wait for its answer."""
        self.page.goto(f"http://{self.host}/?view={view}{words}")
        self.page.wait_for_selector("#answer table, #answer .notice")

    def of_command(self):
        """The rows that the command on the page gives, by the values of keys."""
        command = shlex.split(self.page.text_content("#command"))
        self.assertEqual(["ulogd-tw", "flows"], command[:2])
        program = Path(sys.executable).with_name("ulogd-tw")
        argv = [program, "flows", "-s", self.service.directory / "control", "--json", *command[2:]]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        self.assertIn(done.returncode, (0, 3), done.stderr)  # 3: nothing is known of the time before the service
        return [json.loads(line) for line in done.stdout.splitlines()]

    def shown(self, word="octets"):
        """The exact sums of the table, in its order."""
        found = self.page.eval_on_selector_all(f"#answer td [data-sum={word}]", "all => all.map(e => e.dataset.exact)")
        return list(map(int, found))

    def settled(self, text):
        """Wait until the address has a text, and the answer to it is there."""
        self.page.wait_for_function(
            "text => decodeURIComponent(location.search.replaceAll('+', ' ')).includes(text)", arg=text
        )
        self.page.wait_for_selector("progress", state="hidden")

    def test_numbers(self):
        """Sums of the largest groups and of the rest are those of the command, for every plot; none has an error."""
        for plot in ("stacked", "lines", "grid", "sankey"):
            for by in ("destinationTransportPort", "sourceAddress/24:48,destinationAddress,protocolIdentifier"):
                self.open(f"&from=-1h&plot={plot}&by={by}&top=5")
                self.page.wait_for_selector("#plot .main-svg")
                self.page.wait_for_selector("progress", state="hidden")
                for word in ("octets", "flows"):
                    groups = {}
                    for row in self.of_command():
                        key = (row.get("rest", False), *(row.get(name) for name in by.split(",")))
                        groups[key] = groups.get(key, 0) + row.get(word, 0)
                    largest = sorted(groups.items(), key=lambda item: (item[0][0], -item[1]))
                    expected = [total for _, total in largest] if word == "octets" else sorted(groups.values())
                    shown = self.shown(word) if word == "octets" else sorted(self.shown(word))
                    self.assertEqual(expected, shown, (plot, by))
            picture(self.page, f"explore-{plot}")
        self.open("&plot=heat&from=-24h")
        self.page.wait_for_selector("#plot .hm, #plot .heatmaplayer")
        self.assertEqual([], self.faults)

    def test_filter(self):
        """A click on a value narrows the filter, the back button widens it, and a wrong one is shown at its column."""
        self.open("&from=-1h&by=destinationTransportPort")
        before = self.shown()
        self.page.click("#answer td button.value >> nth=0")
        self.settled("destinationTransportPort == 443")
        self.page.wait_for_function(
            "count => document.querySelectorAll('#answer tbody tr').length < count", arg=len(before)
        )
        self.assertEqual(before[0], self.shown()[0])
        self.page.go_back()
        self.page.wait_for_function(
            "count => document.querySelectorAll('#answer tbody tr').length === count", arg=len(before)
        )
        self.assertEqual(before, self.shown())
        self.assertEqual([], self.faults)
        self.page.fill("[data-filter]", "dst prot 443")
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#filter-error:visible")
        lines = self.page.text_content("#filter-error").splitlines()
        self.assertIn("column 5", lines[0])
        self.assertEqual(["dst prot 443", "    ^"], lines[-2:])
        picture(self.page, "explore-error")
        self.faults.clear()  # the refusal
        self.written()

    def written(self):
        """A mistake is shown while the filter is written, and goes when it is one; so are keys that the store lacks."""
        self.open("&from=-1h&by=destinationTransportPort")
        before = self.shown()
        for text, shown in (
            ("dst port 443 and", ["dst port 443 and", "                ^"]),
            ("dst port 443 and vlanId == 7", ["the store has no vlanId"]),
        ):
            self.page.fill("[data-filter]", text)
            self.page.wait_for_function(
                "last => document.querySelector('#filter-error').textContent.split('\\n').at(-1) === last",
                arg=shown[-1],
            )
            self.assertEqual(shown, self.page.text_content("#filter-error").splitlines()[-len(shown) :])
        self.page.fill("[data-filter]", "dst port 443 and tcp")
        self.page.wait_for_selector("#filter-error", state="hidden")
        self.assertEqual(before, self.shown())
        self.assertEqual([], self.faults)

    def test_zoom(self):
        """Drag in the plot, zoom out, and the last minutes that move with the clock."""
        self.open("&from=-1h")
        self.page.wait_for_selector("#plot .main-svg .nsewdrag")
        whole = self.shown("flows")
        box = self.page.locator("#plot .nsewdrag").first.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + box["width"] * 0.4, middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
        self.page.mouse.up()
        self.page.wait_for_function("() => !location.search.includes('from=-1h')")
        self.page.wait_for_selector("progress", state="hidden")
        self.page.wait_for_function(
            "sum => [...document.querySelectorAll('#answer [data-sum=flows]')]"
            ".reduce((n, e) => n + Number(e.dataset.exact), 0) < sum", arg=sum(whole),
        )  # fmt: skip
        found = self.page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
        self.assertLess(abs(12 - (int(found["to"]) - int(found["from"])) / MINUTE), 1)
        self.page.click("text=zoom out")
        self.page.wait_for_function("old => !location.search.includes(old)", arg=found["from"])
        self.page.click("text=15m")
        self.settled("from=-15m")
        self.page.click("#live")
        self.settled("live=1")
        first = self.page.text_content("#read-from")
        self.page.wait_for_function("text => document.querySelector('#read-from').textContent !== text", arg=first)
        self.assertEqual([], self.faults)

    def test_markup(self):
        """Names full of markup are text, in tables, legends, streams, and as values of the filter."""
        for plot in ("stacked", "grid", "sankey", "flows"):
            self.open(f"&from=-1h&by=userName,destinationTransportPort&plot={plot}")
            self.page.wait_for_selector("progress", state="hidden")
            self.assertEqual(0, self.page.locator("main img, main b").count(), plot)
        self.open("&from=-1h&by=userName")
        self.page.click(f"#answer td button.value:has-text({json.dumps('<img')})")
        self.settled("userName ==")
        self.page.wait_for_function("() => document.querySelectorAll('#answer tbody tr').length === 1")
        self.assertIn(MARKUP, self.page.text_content("#answer tbody"))
        self.assertEqual([], self.faults)
        self.streams()

    def streams(self):
        """A click on a node of the picture of streams adds its value to the filter."""
        self.open("&from=-1h&plot=sankey&by=userName,destinationTransportPort")
        self.page.wait_for_selector("#plot .sankey-node")
        node = self.page.locator("#plot .sankey-node", has_text="53 domain")
        box = node.locator("rect").first.bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.settled("destinationTransportPort == 53")
        self.page.wait_for_function("() => document.querySelectorAll('#answer tbody tr').length === 3")
        self.assertEqual([], self.faults)

    def test_faults(self):
        """An empty range, and a service that is gone and comes back."""
        self.open("&from=1000000000000&to=1000000600000")
        self.assertIn("No flow ended", self.page.text_content("#answer"))
        self.assertEqual([], self.faults)
        self.service.stop()
        self.page.click("text=1h")
        self.page.wait_for_selector("text=the service does not answer")
        self.service.start()
        self.page.wait_for_selector("#answer table")
        self.assertTrue(self.shown())


class NothingTests(SynchronousTestCase):
    """A service that has nothing to show."""

    def said(self, stack, sections, selector):
        """The notice of Explore, without an error."""
        port = free_port()
        config = f'[http]\nlisten="tcp:127.0.0.1:{port}"\nlocal_users=1\n' + sections
        with Service([stack], config, directory=temporary("console")), browser() as opened:
            page, faults = page_of(opened, f"127.0.0.1:{port}")
            page.goto(f"http://127.0.0.1:{port}/?view=explore")
            page.wait_for_selector(selector)
            self.assertEqual([], faults)
            return page.text_content(selector)

    def test_no_store(self):
        """Without a store the page tells what to configure."""
        collector = f'[col1]\nlisten="udp:127.0.0.1:{free_port("udp")}"\n'
        found = self.said("col1:COLLECTOR,g1:GPRINT", collector + '[g1]\nfile="/dev/null"\n', "main .notice.note")
        self.assertIn("stack=col1:COLLECTOR,flows1:PARQUET", found)
        store = '[flows1]\ndirectory="{dir}/flows"\n'
        found = self.said("col1:COLLECTOR,flows1:PARQUET", collector + store, "#answer .notice")
        self.assertIn("No flow is stored yet", found)
