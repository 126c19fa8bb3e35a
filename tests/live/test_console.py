"""The console in Debian's Chromium, on a service with invented flows."""

from twisted.trial.unittest import SynchronousTestCase

from tests.browser import browser, page_of, picture
from tests.live.service import Service
from tests.support import free_port

VIEWS = {"explore": "Explore", "now": "Now", "health": "Health", "who_had": "Who had", "alerts": "Alerts"}
STACKS = ["demo1:DEMO,agg1:AGGREGATE,flows1:PARQUET"]
CONFIG = """
[demo1]
rate=500
[agg1]
key="exporter,5tuple"
interval=2
time=flow
[flows1]
directory="{dir}/flows"
flush=1
[http]
listen="tcp:127.0.0.1:%d"
local_users=1
"""


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
            page.get_by_text("1 stacks run").wait_for()
            self.assertEqual([], faults)
