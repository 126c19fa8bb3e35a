"""Stacks of the plugins of packets: rows in, rows out."""

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, RAW, SUM, Input, Output
from ulogd_tw.core.stack import Builder, StackSpec


def source(given):
    """An input that gives these keys."""
    return type("Source", (Input,), {"name": "SOURCE", "otype": RAW, "provides": tuple(map(known, given))})


class Sink(Output):
    """Asks for what `asked` says, and keeps the batches."""

    name = "SINK"
    itype = RAW | PACKET | FLOW | SUM
    asked = ALL

    def requests(self, wanted):
        return self.asked if self.asked is ALL else dict.fromkeys(self.asked, False)

    def write(self, batch):
        self.__dict__.setdefault("got", []).append(batch)


def stacked(given, filters, asked=ALL, otype=RAW):
    """The plugins of SOURCE -> filters (class, options) -> an output that asks for these keys."""
    classes = {"SOURCE": source(given), "SINK": type("Sink", (Sink,), {"asked": asked})}
    classes["SOURCE"].otype = otype
    options = {}
    for class_, values in filters:
        classes[class_.name] = class_
        options[class_.name] = values

    def read(_, class_):
        return Options(class_.all_options(), options.get(class_.name)), []

    builder = Builder(lambda name, _: classes[name], read)
    names = ["SOURCE", *(class_.name for class_, _ in filters), "SINK"]
    graph = builder.build([StackSpec("x", "f:1", tuple((name.lower(), name) for name in names))])
    assert not builder.mistakes, builder.mistakes
    return graph


def through(given, filters, batches, asked=ALL, otype=RAW):
    """The batches that come out below, and the plugins."""
    graph = stacked(given, filters, asked, otype)
    for batch in batches:
        graph.inputs[0].plugin.counters.rows_received += batch.n
        graph.inputs[0].pass_on(batch)
    assert not graph.unaccounted(), graph.unaccounted()
    return graph.outputs[0].plugin.__dict__.get("got", []), graph.filters


def raw(packets, **more):
    """A batch of packets as NFLOG gives them, or PCAPIN: other keys by name (`_` for a dot), a list each."""
    keys = [known("raw.pkt"), known("raw.pktlen")]
    lengths = np.array([len(packet) for packet in packets], np.uint32)
    columns = {"raw.pkt": Octets.of(packets), "raw.pktlen": lengths}
    for name, values in more.items():
        key = known(name.replace("_", ".", 1))
        keys.append(key)
        strings = key.type.dtype is None
        columns[key.name] = Octets.of(values) if strings else np.array(values, key.type.dtype)
    return Batch(Schema(keys), columns, n=len(packets), now=0.0)
