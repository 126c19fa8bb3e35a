"""Run suites with trial and close with `N passed, N failed, N skipped`.

    python -m tests.run [--slow] [-j N] [NAME ...]     NAME: package, module, class or test; default both suites

Modules of unit tests run in N processes (default: one for each core), and what those print follows when all have ended.
Live tests run one after another. Without a NAME, two processes share the work, as live tests mostly wait for other
programs: one begins with the live tests that need this host for themselves, the other with the unit tests and then the
live tests of `APART`; the one that is ready first takes from what is left of these.

Errors and unexpected successes count as failed, expected failures as passed. A few tests that failed while two
processes shared the machine are run once more, alone; those that pass then are passed, and are listed by name.
With CI=true a test that was left out for want of something installable (its reason begins with `install:`) makes the
run fail: a skip is not a pass.
"""

import argparse
import ctypes
import gc
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from unittest import TestSuite

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

TOP = Path(__file__).resolve().parents[1]
UNIT, LIVE = "tests.unit", "tests.live"
APART = tuple(
    f"{LIVE}.test_{what}" for what in (
        "install", "package", "pipx", "systemd", "fuzz", "sanitized_kernels", "replay", "alerts", "aggregate_captures",
        "aggregate_sums", "api", "benchmarks", "clickhouse", "clickhouse_today", "collector", "console",
        "console_explore", "corpus", "dtls", "exchanged", "exporters", "flows",
        "http_attacks", "ipfix_export", "kafka", "kafka_rows", "kafka_tiers",
        "match", "mediator", "mysql", "mysql_load", "mysql_partitions",
        "outage", "parquet", "postgresql", "postgresql_partitions", "postgresql_tls", "query", "reload", "restart",
        "sflow", "sqlite3", "start", "stored_as_ulogd2", "tls",
        "watching", "who_had", "who_had_large", "windows", "workers",
    )
)  # fmt: skip
"""Live tests that take no fixed port or device of this host, so that others may run beside them."""
TICKET = 256
"""Octets of the name of a module, filled with blanks, in the file that several processes take their work from."""
INSTALLABLE = "install:"
MOST_AGAIN = 3
"""Failed tests that are run once more: more of them are no accident."""
MOST_RESIDENT = 500 << 20
"""Octets of memory above which a process looks for garbage after a module."""


@dataclass
class Outcome:
    """Numbers of passed, failed and skipped tests, the time of each test, the ids of those left out by reason, and
    what each failed test says last."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    interrupted: bool = False
    elapsed_s: dict[str, float] = field(default_factory=dict)
    skips: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, other):
        """Count another run to this one."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.interrupted |= other.interrupted
        self.elapsed_s |= other.elapsed_s
        self.failures |= other.failures
        for reason, tests in other.skips.items():
            self.skips.setdefault(reason, []).extend(tests)


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

    def outcome(self):
        """The counts of a whole run; a test with several errors failed once."""
        failed = {
            test.id(): last_line(reason) for test, reason in self.unexpectedSuccesses + self.failures + self.errors
        }
        skips = defaultdict(list)
        for test, reason in self.skips:
            skips[str(reason)].append(test.id())
        passed = self.successes + len(self.expectedFailures)
        return Outcome(passed, len(failed), len(self.skips), bool(self.shouldStop), self.elapsed_s, dict(skips), failed)


def last_line(reason):
    """What an error says, on one line."""
    text = f"{reason.type.__name__}: {reason.getErrorMessage()}" if hasattr(reason, "getErrorMessage") else str(reason)
    return " ".join(text.split())[:300]


class Taken(TestSuite):
    """The tests of modules that are taken, one after another, from a file that other processes take from, too."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    def run(self, result):
        while ticket := os.read(self._file, TICKET):
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it: commands that a module tried change it
            TestLoader().loadByName(ticket.decode().strip()).run(result)
            if resident() > MOST_RESIDENT:
                free_memory()
        return result


def free_memory():
    """Free tables in cycles of references, which Python does not hurry to find, and give the C library's heap back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident():
    """Octets of memory in use by this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_tests(suite):
    """The outcome of a suite; trial's log and leftovers are in _trial_temp."""
    runner = TrialRunner(SuiteReporter, stream=sys.stdout, workingDirectory=str(TOP / "_trial_temp"))
    return runner.run(suite).outcome()


def modules(name):
    """The test modules of a package, most text first, as it takes longest. A module, class or test is itself."""
    folder = TOP / name.replace(".", "/")
    if not folder.is_dir():
        return [name]
    names = (module.name for module in pkgutil.walk_packages([str(folder)], f"{name}."))
    found = [name for name in names if name.rpartition(".")[2].startswith("test_")]
    return sorted(found, key=lambda module: -(TOP / (module.replace(".", "/") + ".py")).stat().st_size)


def offered(names):
    """A file from which processes take these names: they share the place up to which it is read."""
    file = tempfile.TemporaryFile()
    file.write(b"".join(name.encode().ljust(TICKET) for name in names))
    file.flush()
    file.seek(0)
    return file


class Beside:
    """A process that takes modules from a file, at a lower priority where others run in this one."""

    def __init__(self, file, lower):
        self._output = tempfile.TemporaryFile("w+", errors="replace")
        words = ["nice", "-n", "5" if lower else "0", sys.executable, "-m", "tests.run", "--take", str(file)]
        self._process = subprocess.Popen(
            words, cwd=TOP, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, pass_fds=[file]
        )

    def end(self):
        """Wait for its end and print what it printed; the outcome that stands in its last line."""
        status = self._process.wait()
        self._output.seek(0)
        *lines, last = self._output.read().splitlines() or [""]
        print("", *lines, sep="\n")
        try:
            return Outcome(**json.loads(last))
        except (ValueError, TypeError):
            print(last, f"FAILED: a process that ran tests ended with status {status}.", sep="\n")
            return Outcome(failed=1, failures={"a process that ran tests": f"ended with status {status}"})


def run_beside(file, processes, lower):
    """Processes that take modules from a file."""
    return [Beside(file.fileno(), lower) for _ in range(processes)]


def print_slowest(elapsed_s, count=20):
    """The modules that took longest in all, each with its tests of a tenth of that or more."""
    by_module = defaultdict(list)
    for test_id, seconds in elapsed_s.items():
        module, test = test_id.rsplit(".", 2)[0], ".".join(test_id.rsplit(".", 2)[1:])
        by_module[module].append((seconds, test))
    slowest = sorted(((sum(s for s, _ in tests), module) for module, tests in by_module.items()), reverse=True)
    print(f"Slowest modules, of {sum(elapsed_s.values()):.0f} s in all:")
    for total, module in slowest[:count]:
        print(f"  {total:7.2f} s  {module}, {len(by_module[module])} tests")
        for seconds, test in sorted(by_module[module], reverse=True):
            if seconds > total / 10:
                print(f"  {'':9}  {seconds:7.2f} s  {test}")


def print_left_out(skips):
    """Every test that was left out, below its reason."""
    print("Left out:")
    for reason, tests in sorted(skips.items()):
        print(f"  {reason}")
        for test_id in tests:
            print(f"    {test_id}")


def print_failed(failures):
    """Every test that failed, with what it said: the end of a long text is what a CI keeps."""
    print("Failed:")
    for test_id, said in sorted(failures.items()):
        print(f"  {test_id}: {said}")


def complaints(outcome, ci):
    """What makes this run a failed one, as sentences; none when it is a good one."""
    installable = [reason for reason in sorted(outcome.skips) if reason.startswith(INSTALLABLE)]
    if outcome.failed:
        yield f"{outcome.failed} failed."
    if outcome.interrupted:
        yield "The run was interrupted."
    if not outcome.passed + outcome.failed:
        yield "No test was run."
    if ci and installable:
        yield f"CI=true, and tests were left out that an installation would let run: {'; '.join(installable)}."


def run(names, processes):
    """The outcome of all tests of these names."""
    live = [name for name in names if not name.startswith(UNIT)]
    unit = [name for name in names if name.startswith(UNIT)]
    if unit and LIVE in live:
        place = live.index(LIVE)
        live[place : place + 1] = sorted(set(modules(LIVE)).difference(APART))
        unit += APART
    shared = [module for name in unit for module in modules(name)]
    if len(shared) == 1:
        live, shared = [*live, *shared], []
    outcome = Outcome()
    with offered(shared) as file:
        beside = run_beside(file, 1 if live else processes, bool(live)) if shared else []
        if live:
            outcome.add(run_tests(TestLoader().loadByNames(live, recurse=True)))
            outcome.add(run_tests(Taken(file.fileno())) if shared else Outcome())
        for process in beside:
            outcome.add(process.end())
    return outcome


def run_again(outcome):
    """Run the few tests that failed once more, with nothing beside them; those that pass now are passed, and listed."""
    first = outcome.failures
    if not 0 < outcome.failed == len(first) <= MOST_AGAIN:
        return
    with offered(first) as file:
        again = Beside(file.fileno(), lower=False).end()
    passed = sorted(set(first).difference(again.failures)) if again.passed + again.failed == len(first) else []
    outcome.passed += len(passed)
    outcome.failed -= len(passed)
    outcome.failures = {test_id: said for test_id, said in first.items() if test_id not in passed}
    for test_id in passed:
        print(f"Passed when run again, alone: {test_id}, which had failed: {first[test_id]}")


def arguments_of(words):
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__.splitlines()[0])
    parser.add_argument("--slow", action="store_true", help="list the slowest modules")
    parser.add_argument("-j", type=int, default=os.cpu_count(), metavar="N", help="processes for unit tests")
    parser.add_argument("--take", type=int, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"suite, module, class or test ({UNIT} {LIVE})")
    return parser.parse_args(words)


def main(words=None):
    """Run what the command line names; the exit status."""
    arguments = arguments_of(words)
    # a job in the background of a shell ignores it, and so would every service that tests stop as Ctrl-C does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments.take is not None:
        print("", json.dumps(vars(run_tests(Taken(arguments.take)))), sep="\n", flush=True)
        return 0
    outcome = run(arguments.names or [UNIT, LIVE], arguments.j)
    if not arguments.names:
        run_again(outcome)
    if arguments.slow:
        print_slowest(outcome.elapsed_s)
    if outcome.skips:
        print_left_out(outcome.skips)
    if outcome.failures:
        print_failed(outcome.failures)
    reasons = list(complaints(outcome, ci=os.environ.get("CI") == "true"))
    for reason in reasons:
        print(f"FAILED: {reason}")
    print(f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped", flush=True)
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
