"""Run suites with trial and close with `N passed, N failed, N skipped`.

    python -m tests.run [--slow] [NAME ...]     NAME: package, module, class or test; default tests.unit tests.live

Without a NAME the two suites run side by side, as the live tests mostly wait for other programs; what the unit tests
print follows when both have ended.

Errors and unexpected successes count as failed, expected failures as passed. With CI=true a test that was left out
for want of something installable (its reason begins with `install:`) makes the run fail: a skip is not a pass.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

TOP = Path(__file__).resolve().parents[1]
SUITES = ("tests.unit", "tests.live")
INSTALLABLE = "install:"


class SuiteReporter(TreeReporter):
    """trial's tree, which also keeps how long each test took, and leaves the skips to the closing lines."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.elapsed_s = {}
        self._began = 0.0

    def startTest(self, test):
        super().startTest(test)
        self._began = time.monotonic()

    def stopTest(self, test):
        super().stopTest(test)
        self.elapsed_s[test.id()] = time.monotonic() - self._began

    def done(self):
        skips, self.skips = self.skips, []
        super().done()
        self.skips = skips

    def counts(self):
        """Numbers of passed, failed and skipped tests; one with several errors failed once."""
        failed = {entry[0].id() for entry in self.failures + self.errors + self.unexpectedSuccesses}
        return self.successes + len(self.expectedFailures), len(failed), len(self.skips)

    def skips_by_reason(self):
        """Reason -> ids of the tests that were left out for it."""
        grouped = defaultdict(list)
        for test, reason in self.skips:
            grouped[str(reason)].append(test.id())
        return dict(sorted(grouped.items()))


def run_suites(names):
    """The reporter of a run of the named suites; trial's log and leftovers are in _trial_temp."""
    runner = TrialRunner(SuiteReporter, stream=sys.stdout, workingDirectory=str(TOP / "_trial_temp"))
    return runner.run(TestLoader().loadByNames(names, recurse=True))


class Beside:
    """A suite in a process of its own, at a lower priority."""

    def __init__(self, name, *options):
        self.name = name
        self._output = tempfile.TemporaryFile("w+", errors="replace")
        words = ["nice", "-n", "5", sys.executable, "-m", "tests.run", *options, name]
        self._process = subprocess.Popen(
            words, cwd=TOP, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )

    def end(self):
        """Wait for its end and print what it printed; numbers of tests as of `counts`, and whether all is well."""
        status = self._process.wait()
        self._output.seek(0)
        *lines, last = self._output.read().splitlines() or [""]
        counts = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
        print("", *lines, sep="\n")
        if counts is None:
            print(last, f"FAILED: {self.name} ended with status {status}.", sep="\n")
            return (0, 1, 0), False
        return tuple(map(int, counts.groups())), not status


def print_slowest(elapsed_s, count=10):
    """The slowest tests, grouped by module, with the time of each."""
    slowest = sorted(elapsed_s.items(), key=lambda item: -item[1])[:count]
    by_module = defaultdict(list)
    for test_id, seconds in slowest:
        module, test = test_id.rsplit(".", 2)[0], ".".join(test_id.rsplit(".", 2)[1:])
        by_module[module].append((test, seconds))
    print("Slowest tests:")
    for module, tests in by_module.items():
        print(f"  {module} {sum(seconds for _, seconds in tests):.2f} s")
        for test, seconds in tests:
            print(f"    {seconds:8.2f} s  {test}")


def print_left_out(skips_by_reason):
    """Every test that was left out, below its reason."""
    print("Left out:")
    for reason, tests in skips_by_reason.items():
        print(f"  {reason}")
        for test_id in tests:
            print(f"    {test_id}")


def complaints(result, ci):
    """What makes this run a failed one, as sentences; none when it is a good one."""
    passed, failed, _ = result.counts()
    installable = [reason for reason in result.skips_by_reason() if reason.startswith(INSTALLABLE)]
    if failed:
        yield f"{failed} failed."
    if result.shouldStop:
        yield "The run was interrupted."
    if not passed + failed:
        yield "No test was run."
    if ci and installable:
        yield f"CI=true, and tests were left out that an installation would let run: {'; '.join(installable)}."


def main(arguments=None):
    """Run what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__.splitlines()[0])
    parser.add_argument("--slow", action="store_true", help="list the slowest tests")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"suite, module, class or test ({' '.join(SUITES)})")
    options = parser.parse_args(arguments)
    first, last = SUITES
    beside = None if options.names else Beside(first, *(["--slow"] if options.slow else []))
    result = run_suites(options.names or [last])
    if options.slow:
        print_slowest(result.elapsed_s)
    if result.skips:
        print_left_out(result.skips_by_reason())
    reasons = list(complaints(result, ci=os.environ.get("CI") == "true"))
    for reason in reasons:
        print(f"FAILED: {reason}")
    counts, good = beside.end() if beside else ((0, 0, 0), True)
    counts = map(sum, zip(counts, result.counts(), strict=True))
    print("{} passed, {} failed, {} skipped".format(*counts), flush=True)
    return 1 if reasons or not good else 0


if __name__ == "__main__":
    sys.exit(main())
