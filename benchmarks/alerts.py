"""Alerts: what 100 rules over 10,000 keys cost at the end of each interval."""

import statistics
import time
from types import SimpleNamespace

import numpy as np

from ulogd_tw.alerting.conditions import parse
from ulogd_tw.alerting.evaluation import Evaluation
from ulogd_tw.alerting.grouping import Keyed
from ulogd_tw.alerting.rules import Rule
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.match import grammar
from ulogd_tw.operating.taps import Choice

KEYS, RULES, RUNS = 10_000, 100, 7
WHEN = (
    "octets by destinationAddress > 100M in 10s",
    "flows by sourceAddress > 50 in 1m",
    "octets by sourceAddress,destinationAddress > 99M in 1m",
    "octets by destinationAddress > 3 times last week",
    "new sourceAddress",
)
MATCHES = ("", "src net 10.0.0.0/9", "dst port 443")


def rows(random):
    """One interval of an AGGREGATE: a row for each key."""
    keys = [Key("sourceAddress", types.IPV4), Key("destinationAddress", types.IPV4),
            Key("destinationTransportPort", types.UNSIGNED16), Key("flows", types.UNSIGNED64),
            Key("octets", types.UNSIGNED64)]  # fmt: skip
    columns = {
        "sourceAddress": random.integers(0x0A000000, 0x0AFFFFFF, KEYS, np.uint32),
        "destinationAddress": np.arange(KEYS, dtype=np.uint32) + np.uint32(0xC0000000),
        "destinationTransportPort": random.choice(np.array([53, 80, 443], np.uint16), KEYS),
        "flows": random.integers(1, 9, KEYS, np.uint64),
        "octets": random.integers(0, 10**8, KEYS, np.uint64),
    }
    return Batch(Schema(keys), columns, n=KEYS, now=0)


def rule(number):
    """The kinds of rules in turn, a third of them without an expression."""
    condition = parse(WHEN[number % len(WHEN)])
    values = SimpleNamespace(max_alerts=100, max_seen=1_000_000, learn=1e9, least=1)
    kinds = ("address",) * len(condition.by)
    text = MATCHES[number % len(MATCHES)]
    mask = Choice(grammar.parse(text, {}, lambda _: None)).mask if text else None
    return Evaluation(Rule(str(number), condition, values, kinds=kinds), 10, mask)


def main():
    """Print the time of all rules in an interval, and the longest part of it that holds the reactor."""
    random = np.random.default_rng(1)
    rules = [rule(number) for number in range(RULES)]
    whole, longest = [], []
    for run in range(RUNS + 6):  # the first fill windows
        batch, keyed, steps = rows(random), {}, []
        start = 10 * run
        keyed_of: dict[tuple[str, ...], Keyed] = keyed
        for one in rules:
            began = time.perf_counter()
            one.add(batch, start, keyed_of)
            steps.append(time.perf_counter() - began)
        for one in rules:
            began = time.perf_counter()
            one.at(start + 10, float(start))
            steps.append(time.perf_counter() - began)
        if run >= 6:
            whole.append(sum(steps))
            longest.append(max(steps))
    took = statistics.median(whole)
    print(f"{RULES} rules, {KEYS} keys: {1000 * took:.0f} ms an interval (longest turn {1000 * max(longest):.1f} ms)")
    for interval in (10, 60):
        print(f"  interval={interval}: {100 * took / interval:.2f} % of a core")


if __name__ == "__main__":
    main()
