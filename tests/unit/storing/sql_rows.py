"""For tests of SQL outputs: batches of every type, outputs on a table, and what a table then should hold."""

import numpy as np
from twisted.internet import defer
from twisted.logger import globalLogPublisher

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Provided

ODD_STRINGS = [
    "", "it's", 'say "x"', "back\\slash", "\\'; DROP TABLE t; --", "new\nline\r\t", "nul\0in", "\x1a", "€ 😀 ü",
    "%s %d", "\\", "'",
]  # fmt: skip
"""Strings that are hard to quote."""


def told(case):
    """The list that gets the lines of the log about an instance, until the test ends."""
    lines = []

    def tell(event):
        if "{instance}" in (event.get("log_format") or ""):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(tell)
    case.addCleanup(globalLogPublisher.removeObserver, tell)
    return lines


def output(class_, **options):
    """An instance `db` of the plugin."""
    return class_("db", Options(class_.all_options(), options))


def batch_of(*columns, n=None):
    """A batch of (key, values) pairs; None among the values is a missing one."""
    held, missing = {}, {}
    for key, values in columns:
        n = len(values)
        mask = np.array([value is None for value in values])
        if mask.any():
            missing[key.name] = mask
        if key.type.variable:
            values = [v.encode() if isinstance(v, str) else v or b"" for v in values]
            held[key.name] = Octets.of(values)
        elif key.type is types.IPV6:
            pairs = [(int(v or 0) >> 64, int(v or 0) & (1 << 64) - 1) for v in values]
            held[key.name] = np.array(pairs, np.uint64).reshape(n, 2)
        else:
            held[key.name] = np.array([0 if v is None else v for v in values], key.type.dtype)
    return Batch(Schema([key for key, _ in columns]), held, missing, n=n, now=0.0)


def numbers(first, n):
    """A batch of `n` rows with a port, and an address made of it."""
    ports = np.arange(first, first + n, dtype=np.uint32)
    keys = [known("sourceIPv4Address"), Key("number", types.UNSIGNED32)]
    return Batch(Schema(keys), {keys[0].name: ports, keys[1].name: ports}, n=n, now=0.0)


NUMBER_KEYS = (known("sourceIPv4Address"), Key("number", types.UNSIGNED32))


async def opened(case, made, keys=NUMBER_KEYS):
    """The output, told which keys reach it, prepared and open until the test ends."""
    made.prepare()
    wire(case, made, tuple(keys))
    await defer.maybeDeferred(made.open)
    case.addCleanup(made.stop)
    return made


def wire(case, made, keys):
    """What the stack does for an output below something that gives these keys."""
    asked = made.requests_of(frozenset(key.name for key in keys))
    if asked is ALL:
        case.assertEqual(list(made.available(keys)), [])
        asked = made.named_beside_all()
    for name in asked:
        made.sources.add(name, Provided(keys).recipes(name.partition("@")[0]))
