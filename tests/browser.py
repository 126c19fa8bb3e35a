"""Debian's Chromium for tests of the console: pages, and what goes wrong in them."""

import contextlib
import os
from pathlib import Path

from tests.support import require_program

SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 60_000
"""So long a page may take for anything on a busy machine."""
PICTURES = "ULOGD_TW_PICTURES"
"""A folder in this environment variable gets a picture of each view."""


@contextlib.contextmanager
def browser():
    """A Chromium without a screen."""
    (program,) = require_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=list(SWITCHES))
        try:
            yield found
        finally:
            found.close()


class Faults(list):
    """What a page complained about: its console's errors and exceptions, and requests to other hosts."""

    def __init__(self, page, host):
        super().__init__()
        page.on("console", lambda line: line.type in ("error", "warning") and self.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: self.append(f"exception: {error}"))
        page.on("request", lambda request: self._seen(request.url, host))

    def _seen(self, url, host):
        if not url.startswith((f"http://{host}/", "data:", "blob:")):
            self.append(f"another host: {url}")


def page_of(found, host, width=1280, height=800, **more):
    """A new page in a context of its own, and its faults."""
    page = found.new_context(viewport={"width": width, "height": height}, **more).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page, Faults(page, host)


def picture(page, name):
    """Keep a picture where the environment asks for it."""
    folder = os.environ.get(PICTURES)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder, f"{name}.png")))
