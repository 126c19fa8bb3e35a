"""Small plugins for tests of stacks and flow: an input that is told what to emit, an output that keeps what it gets."""

import numpy as np
from twisted.internet import defer

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.counters import Dropped
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, RAW, Filter, Input, Output

A = Key("a", types.UNSIGNED32)
B = Key("b", types.UNSIGNED32)


def numbers(n, *, held=False, now=0.0, **columns):
    """A batch of uint32 columns."""
    keys = [Key(name, types.UNSIGNED32) for name in columns]
    arrays = {name: np.asarray(values, np.uint32) for name, values in columns.items()}
    return Batch(Schema(keys), arrays, n=n, now=now, held=held)


class FLOWS(Input):
    """Gives conntrack-like keys."""

    name = "FLOWS"
    otype = FLOW
    provides = (
        *ulogd_keys("orig.ip.saddr", "orig.ip.daddr", "orig.raw.pktlen", "flow.start.sec", "flow.start.usec"),
        A,
    )
    paused = 0

    def receive(self, batch):
        """As if the batch had been read."""
        self.counters.rows_received += batch.n
        self.emit(batch)

    def pause(self):
        self.paused += 1

    def resume(self):
        self.paused -= 1


class RAWS(Input):
    """Gives raw packets."""

    name = "RAWS"
    otype = RAW
    provides = ulogd_keys("raw.pkt")


class ANY(Input):
    """Gives whatever a peer sends."""

    name = "ANY"
    otype = FLOW
    open_keys = True


class HALF(Filter):
    """Keeps every other row."""

    name = "HALF"
    itype = otype = PACKET | FLOW

    def process(self, batch):
        return batch.take(slice(0, None, 2))


class COVER(Filter):
    """Gives a key of the same name as the input's."""

    name = "COVER"
    itype = otype = PACKET | FLOW
    provides = (A,)

    def process(self, batch):
        return batch.with_columns({A: np.full(batch.n, 7, np.uint32)})


class FAILS(Filter):
    """Has a fault."""

    name = "FAILS"
    itype = otype = PACKET | FLOW

    def process(self, batch):
        raise ZeroDivisionError("a fault")


class KEEP(Output):
    """Keeps the batches; `asked` is what it requests. With `wait` set it answers with a Deferred each time."""

    name = "KEEP"
    itype = PACKET | FLOW
    asked = ALL
    counts = (Dropped("refused", "rows", "Rows that do not fit."),)

    def __init__(self, instance, config=None):
        super().__init__(instance, config)
        self.batches = []
        self.wait = False
        self.pending = []

    def requests(self, wanted):
        return self.asked

    def write(self, batch):
        self.batches.append(batch)
        if self.wait:
            self.pending.append(defer.Deferred())
            return self.pending[-1]
        return None


PLUGINS = {c.name: c for c in (FLOWS, RAWS, ANY, HALF, COVER, FAILS, KEEP)}


def lookup(name, position):
    """The class of a double."""
    if name not in PLUGINS:
        raise UlogdError(f"there is no plugin {name}")
    return PLUGINS[name]


def read_options(instance, class_):
    """Defaults for everything."""
    return Options(class_.all_options()), []
