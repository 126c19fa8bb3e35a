"""For tests of printing outputs: batches of rows of texts, typed by the keys' names; an output on a file."""

import os
import time
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from twisted.internet.task import Clock

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Found

GOLDEN = ("ulogd2", "golden", "out")


def batch_of(rows, now=0.0):
    """A batch of rows given as dicts of texts or numbers, with the same keys each."""
    keys, found = [], {}
    for name in rows[0]:
        key, values = known(name), [row[name] for row in rows]
        if key.type is types.ADDRESS:
            addresses = [ip_address(value) for value in values]
            key = key.typed(types.IPV6 if addresses[0].version == 6 else types.IPV4)
            values = [int(a) for a in addresses]
        if key.type is types.IPV6:
            found[name] = np.array([(v >> 64, v & (1 << 64) - 1) for v in values], np.uint64)
        elif key.type.kind == "string":
            found[name] = Octets.of(v.encode() for v in values)
        elif key.type.kind == "octets":
            found[name] = Octets.of(values)
        else:
            found[name] = np.array([int(v) for v in values], np.int64).astype(key.type.dtype)
        keys.append(key)
    return Batch(Schema(keys), found, n=len(rows), now=now)


class ByName:
    """An output that finds keys by their names, as in a stack where the plugin above gives them all."""

    def find(self, batch, name):
        """What `Plugin.find` gives in such a stack."""
        if name not in batch.columns:
            return None
        return Found(batch.columns[name], batch.missing.get(name), batch.schema[name])


def plugin(class_, path, **options):
    """An open output that writes to `path`, with a clock that the test turns."""
    made = class_("out", Options(class_.all_options(), {"file": str(path), **options}), Clock())
    made.open()
    return made


def printed(case, class_, batches, **options):
    """What the output writes for these batches."""
    path = Path(case.mktemp())
    out = plugin(class_, path, **options)
    for batch in batches:
        case.assertIsNone(out.write(batch))
    out.stop()
    return path.read_text("utf-8")


def in_zone(case, zone):
    """Make `zone` the local time zone until the test ends."""
    before = os.environ.get("TZ")

    def back():
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()

    os.environ["TZ"] = zone
    time.tzset()
    case.addCleanup(back)
