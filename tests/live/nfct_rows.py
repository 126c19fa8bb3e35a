"""Run NFCT in the current network namespace and print its rows: one JSON object a line, the counters last.

    python -m tests.live.nfct_rows [--rows N] [--seconds S] [option=value ...]

SIGUSR2 is handed to it; with --dumps "dump N" is printed when N readings of the kernel's table are complete.
It ends by itself after N rows or S seconds, or on SIGTERM, with an orderly stop. "ready" is the first line.
"""

import argparse
import json
import signal
import sys

from twisted.internet import defer, reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.inputs.nfct import NFCT


def _options(words):
    readers = {option.name: option.read for option in NFCT.options}
    given = dict(word.split("=", 1) for word in words)
    return Options(NFCT.options, {name: readers[name](value) for name, value in given.items()})


def _plain(value):
    return value.hex() if isinstance(value, bytes) else value


class Printer:
    """Prints the rows of batches, or with `quiet` only counts them."""

    def __init__(self, quiet):
        self.quiet = quiet
        self.rows = 0
        self.plugin = None

    def take(self, batch):
        self.rows += batch.n
        self.plugin.counters.rows_emitted += batch.n
        if not self.quiet:
            for row in batch.rows():
                print(json.dumps({name: _plain(value) for name, value in row.items()}), flush=True)


def main():
    """Run until there is enough, then stop in order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--wanted", default="")
    parser.add_argument("--dumps", action="store_true")
    parser.add_argument("options", nargs="*")
    words = parser.parse_args()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    printer = Printer(words.quiet)
    plugin = NFCT("ct1", _options(words.options))
    for mistake in plugin.mistakes():
        sys.exit(f"mistake: {mistake}")
    printer.plugin = plugin
    plugin.wanted = frozenset(words.wanted.split(",")) if words.wanted else ALL
    plugin.emit = printer.take
    plugin.open()
    plugin.begin()

    said = 0

    def enough():
        nonlocal said
        if words.dumps and plugin.counters.as_dict()["flows"]["dumps"] > said:
            said += 1
            print(f"dump {said}", flush=True)
        if words.rows and printer.rows >= words.rows:
            reactor.stop()
        else:
            reactor.callLater(0.05, enough)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: defer.maybeDeferred(plugin.stop))
    reactor.callLater(words.seconds, lambda: reactor.running and reactor.stop())
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.callWhenRunning(enough)
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(plugin.read_now))
    reactor.run()
    print(json.dumps({"counters": plugin.counters.as_dict()}), flush=True)


if __name__ == "__main__":
    main()
