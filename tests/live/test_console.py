"""The console in Debian's Chromium, on a service with invented flows."""

import re
import socket
import struct
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.browser import browser, page_of, picture
from tests.live import exporters
from tests.live.service import Service, temporary
from tests.support import free_port
from tests.unit.flows import made

VIEWS = {"explore": "Explore", "now": "Now", "health": "Health", "who_had": "Who had", "alerts": "Alerts"}
STACKS = ["demo1:DEMO,flows1:PARQUET", "demo1:DEMO,agg1:AGGREGATE,json1:JSON"]
CONFIG = """
[demo1]
rate=500
[agg1]
key="exporter,5tuple"
interval=2
[json1]
file="/dev/null"
[flows1]
directory="{dir}/flows"
flush=1
[http]
listen="tcp:127.0.0.1:%d"
local_users=1
"""
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
WATCH_TIMERS = """() => {
    const begin = setTimeout;
    window.drawings = new Set();
    window.setTimeout = (act, ms, ...more) => {
        const timer = begin((...words) => { drawings.delete(timer); act(...words); }, ms, ...more);
        if (ms === 250) drawings.add(timer);
        return timer;
    };
}"""
"""`drawings` has the timers of the page that wait to draw rows."""
NAT_KEYS = (*made.RAW_KEYS, "postNATSourceAddress", "postNAPTSourceTransportPort")


def nat_row(at):
    """A connection behind 203.0.113.1:4711, from `at` (ms) on for a minute."""
    row = made.flow(
        at + 60_000 - made.T0, 1000, lasts=60_000, source="10.0.0.7", destination="198.51.100.9", sport=5000, dport=443
    )
    return row | {"postNATSourceAddress": made.address("203.0.113.1"), "postNAPTSourceTransportPort": 4711}


def named_flow(name):
    """An IPFIX Message (RFC 7011) with a Template of sourceIPv4Address, octetDeltaCount, userName, and a record."""
    template = struct.pack("!HH 6H", 256, 3, 8, 4, 1, 8, 371, 65535)
    record = bytes([192, 0, 2, 1]) + struct.pack("!QB", 1000, len(name)) + name.encode()
    sets = struct.pack("!HH", 2, 4 + len(template)) + template + struct.pack("!HH", 256, 4 + len(record)) + record
    return struct.pack("!HHIII", 10, 16 + len(sets), int(time.time()), 0, 7) + sets


class ShellTests(SynchronousTestCase):
    """The page itself."""

    def test_views(self):
        """Each view is shown by its link and by its key, without an error, and nothing comes from another host."""
        port = free_port()
        with Service(STACKS, CONFIG % port), browser() as chromium:
            page, faults = page_of(chromium, f"127.0.0.1:{port}")
            page.goto(f"http://127.0.0.1:{port}/")
            for number, (view, title) in enumerate(VIEWS.items(), 1):
                page.get_by_role("link", name=title, exact=True).click()
                page.wait_for_function("title => document.title.startsWith(title)", arg=title)
                page.wait_for_load_state("networkidle") if view != "now" else None
                picture(page, view)
                page.go_back()
                page.keyboard.press(str(number))
                page.wait_for_function("title => document.title.startsWith(title)", arg=title)
            page.get_by_text("2 stacks run").wait_for()
            self.assertEqual([], faults)


class ServiceCase(SynchronousTestCase):
    """A page of a service; `stacks` and `config` are those of a test."""

    def begin(self, stacks=STACKS, config=CONFIG, **service):
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.service = Service(stacks, config % port, settings='control_socket="{dir}/control"', **service)
        self.service.__enter__()
        self.addCleanup(self.service.__exit__)
        opened = browser()
        self.chromium = opened.__enter__()
        self.addCleanup(opened.__exit__, None, None, None)
        self.page, self.faults = page_of(self.chromium, self.host)

    def open(self, view, words="", page=None):
        (page or self.page).goto(f"http://{self.host}/?view={view}{words}")


class HealthTests(ServiceCase):
    """The picture of the stacks, the ledger, exporters and events."""

    def test_losing(self):
        """A box is red while its output loses rows; the ledger has the numbers of the API, and accounts for all."""
        config = CONFIG.replace("[flows1]\n", '[full1]\nfile="/dev/full"\nqueue_rows=100\n[flows1]\n')
        self.begin([*STACKS, "demo1:DEMO,full1:JSON"], config)
        self.open("health")
        self.page.wait_for_selector('.stacks .box[data-node="full1"].losing')
        self.page.wait_for_selector('.stacks .box[data-node="flows1"].fine')
        self.page.wait_for_selector("#health-events tbody tr")
        picture(self.page, "health-losing")
        cells = (
            "id => [...document.querySelectorAll('#health-ledger tbody tr')]"
            ".find(row => row.cells[0].textContent === id)"
        )
        self.page.wait_for_function(f"() => ({cells})('flows1').cells[2].textContent !== '0'")
        self.assertEqual("in = out", self.page.evaluate(f"({cells})('demo1').cells[11].textContent"))
        self.assertEqual("in = out", self.page.evaluate(f"({cells})('full1').cells[11].textContent"))
        self.assertIn("errors.write", self.page.evaluate(f"({cells})('full1').cells[12].textContent"))
        self.page.click("text=look at this machine")
        self.page.wait_for_selector("#health-doctor tbody tr")
        self.assertEqual([], self.faults)
        self.another_process()

    def another_process(self):
        """The events are those of the service that answers, also after it was started again."""
        begun = (
            "() => [...document.querySelectorAll('#health-events tbody tr')]"
            ".find(row => row.cells[1].textContent === 'start')?.querySelector('[title]').title"
        )
        former = self.page.evaluate(begun)
        self.service.stop()
        self.page.wait_for_selector("#health-faults :text('the service does not answer')")
        self.service.start()
        self.page.wait_for_function(f"former => ![undefined, former].includes(({begun})())", arg=former)

    def test_exporters(self):
        """An exporter is shown with what was heard of it; a name full of markup is text."""
        listen = free_port("udp")
        config = CONFIG.replace("[demo1]\nrate=500", f'[col1]\nlisten="udp:127.0.0.1:{listen}"')
        config = config.replace('5tuple"\ninterval=2', '5tuple,userName"\ninterval=3600')
        self.begin([stack.replace("demo1:DEMO", "col1:COLLECTOR") for stack in STACKS], config)
        exporters.main(f"127.0.0.1:{listen}", "udp", 2, 1000)
        self.open("health")
        self.page.wait_for_selector("#health-exporters td:has-text('127.0.0.1')")
        self.page.wait_for_function(
            "() => document.querySelector('#health-exporters tbody')?.rows[0].cells[6].textContent === '2'"
        )
        self.assertEqual([], self.faults)
        self.markup(listen)

    def markup(self, listen):
        """A name full of markup is text in the open interval and in the rows that pass."""
        self.open("now", "&instance=col1")
        cells = "text => [...document.querySelectorAll('%s td')].some(cell => cell.textContent === text)"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for place in ("#tail", "#now-groups"):
                for _ in range(300):
                    sender.sendto(named_flow(MARKUP), ("127.0.0.1", listen))
                    self.page.wait_for_timeout(200)
                    if self.page.evaluate(cells % place, MARKUP):
                        break
                else:
                    self.fail(f"{place} has not shown the name")
        self.assertEqual(0, self.page.locator("main img, main b").count())
        self.assertEqual([], self.faults)


class NowTests(ServiceCase):
    """Rates, open intervals, and rows as they pass."""

    def test_live(self):
        """Looks come once a second; rows pass the filter; a wrong one is told at its column; many can look at once."""
        self.begin()
        self.open("now", "&instance=demo1&match=proto+udp")
        self.page.wait_for_selector("#tail tbody tr:nth-child(5)")
        protocol = "[...document.querySelectorAll('#tail th')].findIndex(head => head.textContent === 'protocol')"
        kinds = self.page.eval_on_selector_all(
            "#tail tbody tr", f"rows => {{ const at = {protocol}; return rows.map(row => row.cells[at].textContent); }}"
        )
        self.assertEqual({"UDP"}, set(kinds))
        self.page.wait_for_selector("#now-groups table.open tbody tr")
        rate = "parseFloat(document.querySelector('#now-rates tbody')?.rows[0].cells[1].textContent)"
        self.page.wait_for_function(f"() => {rate} > 50")
        picture(self.page, "now")
        self.page.set_viewport_size({"width": 390, "height": 844})
        self.assertGreater(self.page.locator("[data-filter]").bounding_box()["width"], 250)
        self.page.set_viewport_size({"width": 1280, "height": 800})
        self.another_filter(protocol)
        self.assertEqual([], self.faults)
        others = [page_of(self.chromium, self.host)[0] for _ in range(19)]
        for other in others:
            self.open("now", page=other)
        for other in others:
            other.wait_for_selector("#now-rates tbody tr")
        self.open("now", "&instance=demo1&match=dst+prot+1")
        self.page.wait_for_selector("#tail-error:visible")
        self.assertIn("dst prot 1\n    ^", self.page.text_content("#tail-error"))

    def another_filter(self, protocol):
        """Rows go on through another filter that is given while some wait to be drawn, and after a step back."""
        self.page.evaluate(WATCH_TIMERS)
        self.page.fill("[data-filter]", "proto tcp")
        self.page.wait_for_function(
            "() => drawings.size > 0 && (document.querySelector('[data-filter]').form.requestSubmit(), true)"
        )
        first = f"() => document.querySelector('#tail tbody')?.rows[0].cells[{protocol}].textContent"
        self.page.wait_for_function(f"{first} === 'TCP'")
        self.page.go_back()
        self.page.wait_for_function(f"{first} === 'UDP'")


class WhoHadTests(ServiceCase):
    """The form, and its answer."""

    def test_answer(self):
        """The host inside is shown with the times; nobody is said with what may be missing."""
        directory = temporary("console")
        at = 1_796_000_000_000
        made.write(directory / "flows", [nat_row(at)], NAT_KEYS)
        listen = free_port("udp")
        config = CONFIG.replace("[demo1]\nrate=500", f'[col1]\nlisten="udp:127.0.0.1:{listen}"')
        config = config.replace('directory="{dir}/flows"', f'directory="{{dir}}/flows"\nkeys="{" ".join(NAT_KEYS)}"')
        self.begin(["col1:COLLECTOR,flows1:PARQUET"], config, directory=directory)
        self.open("who_had", f"&who=203.0.113.1:4711&at={at + 5000}")
        self.page.wait_for_selector("table.holders")
        self.assertIn("10.0.0.7:5000", self.page.text_content("table.holders tbody"))
        self.assertIn("198.51.100.9:443", self.page.text_content("table.holders tbody"))
        picture(self.page, "who_had")
        self.printed()
        self.page.fill("#endpoint", "203.0.113.1:4712")
        self.page.click("text=Ask")
        self.page.wait_for_selector("#holders .notice")
        self.page.wait_for_selector("text=No record of who had it")
        self.page.wait_for_selector("text=incomplete between")
        self.assertEqual([], self.faults)

    def printed(self):
        """On paper the ink is dark, also of a page that is light on dark; without a time the question is of now."""
        self.page.evaluate("document.documentElement.dataset.theme = 'dark'")
        self.page.emulate_media(media="print")
        inks = ("body", "table.holders td", "table.holders th", ".panel h2")
        for ink in inks:
            color = self.page.eval_on_selector(ink, "one => getComputedStyle(one).color")
            self.assertLess(max(int(word) for word in re.findall(r"\d+", color)[:3]), 128, ink)
        self.page.emulate_media(media="screen")
        self.open("who_had", "&who=203.0.113.1:4711")
        self.page.wait_for_selector("#holders h2:has-text('203.0.113.1 port 4711')")


class AlertsTests(ServiceCase):
    """Rules, and what fires."""

    def test_fires(self):
        """A rule that is true shows its key with its value; the other one is quiet."""
        rules = """
[alert:busy]
of="agg1"
when="flows by protocolIdentifier > 10 in 2s"
[alert:vast]
of="agg1"
when="octets > 1000T in 2s"
"""
        self.begin(config=CONFIG + rules)
        self.open("alerts")
        self.page.wait_for_selector("tr.silent:has-text('protocolIdentifier=6')")
        self.page.wait_for_selector("td:has-text('octets > 1000T in 2s')")
        self.assertEqual(0, self.page.locator("tr.silent:has-text('vast')").count())
        picture(self.page, "alerts")
        self.assertEqual([], self.faults)
