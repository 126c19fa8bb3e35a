"""What the processes of a program cost: counted from idle until idle again, programs in turn, medians."""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import SkipTest

TICKS = os.sysconf("SC_CLK_TCK")
"""Of a second, in which /proc counts."""
WINDOW = 1.5
"""Seconds that a program must be idle for; longer than any row waits on its way."""
GLANCE = 0.3
"""The same for a quick run."""
RESTING = 0.03
"""CPU seconds a second of a program that has started and has nothing to do, at most."""


def processes(pid):
    """Numbers of a process and of all that came from it and are there."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def cpu(pid):
    """CPU seconds, user and system, of a process and all that came from it, of which ended ones count too.

    The kernel's clock of a process is exact to the microsecond, its times in /proc to 10 ms.
    """
    return sum(map(_seconds, processes(pid)))


def _seconds(pid):
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return time.clock_gettime_ns(~pid << 3 | 2) / 1e9 + sum(map(int, words[13:15])) / TICKS
    except OSError:
        return 0.0


def memory(pid):
    """(PSS, RSS) of a process and all that came from it, octets; RSS counts what they share more than once."""
    pss = rss = 0
    for each in processes(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            pss += int(rest.split()[0]) << 10 if name == "Pss" else 0
            rss += int(rest.split()[0]) << 10 if name == "Rss" else 0
    return pss, rss


def settle(pid, resting=RESTING, window=WINDOW, within=30.0):
    """Wait until a program has used at most `resting` CPU seconds a second for a while.

    A program that never comes to rest is measured as it is after `within` seconds.
    """
    seen, deadline = [(time.monotonic(), cpu(pid))], time.monotonic() + within
    while seen[-1][0] < deadline:
        time.sleep(0.1)
        seen.append((time.monotonic(), cpu(pid)))
        (began, before), (ended, after) = seen[0], seen[-1]
        if ended - began >= window:
            if (after - before) / (ended - began) <= resting:
                return
            del seen[0]


def at_rest(pid, window=WINDOW, tries=10):
    """CPU seconds a second of a program that has nothing to do; looked at again where it has something after all."""
    for _ in range(tries):
        settle(pid, window=window)
        began, before = time.monotonic(), cpu(pid)
        time.sleep(window)
        rate = (cpu(pid) - before) / (time.monotonic() - began)
        if rate <= RESTING:
            break
    return rate


def spent(pid, work, window=WINDOW):
    """(CPU seconds of a program for `work()`, what that returned): idle before, and until idle again.

    What it uses at rest counts while there is work, and not while its end is waited for.
    """
    idle, before = at_rest(pid, window), cpu(pid)
    result, ended = work(), time.monotonic()
    settle(pid, idle + 0.005 / WINDOW, max(window, WINDOW))
    used = cpu(pid) - before - idle * (time.monotonic() - ended)
    return max(used, 0.0), result


NUMPY = "NumPy"
"""What is named where there are no compiled kernels."""


@dataclass
class Figures:
    """Those of one program for one shape, a figure of each run."""

    values: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    """Part of the rows that came through; None where the program does not say so."""

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def lost(self):
        """The largest part lost in a run, or None."""
        told = [1 - part for part in self.kept if part is not None]
        return max(told) if told else None


def in_turn(names, measure, runs):
    """(figures by name, what others met instead); `measure(name)` gives (figure, part kept) of one run.

    A program that is not there or does not start is left out from then on.
    """
    found, missing = {name: Figures() for name in names}, {}
    for _ in range(runs):
        for name in [name for name in names if name not in missing]:
            try:
                value, kept = measure(name)
            except (SkipTest, AssertionError) as reason:
                missing[name] = reason
                continue
            found[name].values.append(value)
            found[name].kept.append(kept)
    return {name: figures for name, figures in found.items() if figures.values}, missing


def kernels():
    """Names of the compiled kernels that are in use."""
    try:
        from ulogd_tw.kernels import active
    except ImportError:
        return NUMPY
    return " ".join(active()) or NUMPY
