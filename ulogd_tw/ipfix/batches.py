"""Data Sets of one layout become a batch: columns of fields, what is made of them, and who sent them when."""

from __future__ import annotations

from itertools import compress

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import Key
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix import exporter_columns
from ulogd_tw.ipfix.clock_skew import Skew
from ulogd_tw.ipfix.context import Context, Source
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.layout import BEFORE, Columns, Found, Joined, Layout
from ulogd_tw.ipfix.limits import Limits
from ulogd_tw.ipfix.netflow import decoder
from ulogd_tw.ipfix.options_records import USED, Options
from ulogd_tw.ipfix.structured import Structured
from ulogd_tw.ipfix.template_store import TemplateStore
from ulogd_tw.ipfix.variable_length import Located


class Batches:
    """Compiles layouts and makes the batches of a decoder.

    `scale`: counts times the sampling factor; `name`: names of interfaces and applications although all is wanted.
    """

    def __init__(
        self,
        wanted: Wanted,
        counters: Counters,
        limits: Limits,
        learning: TemplateStore,
        options: Options,
        events: Events,
        *,
        scale: bool,
        name: bool,
    ) -> None:
        self._wanted = wanted
        self._counters = counters
        self._limits = limits
        self._learning = learning
        self._options = options
        self._scale, self._name = scale, name
        self._context = Context(wanted)
        self._compiled: dict[Layout, None] = {}
        self._compiled_fields = 0
        self._joined = Joined()
        self._structured = Structured(limits, counters.errors)
        self._skew = Skew(limits.clock_skew, events)

    def end(self) -> None:
        """All layouts of a wake-up are done."""
        self._learning.forget_former()
        self._structured.forget()

    def of(self, layout: Layout, located: Located | None, spoiled: bool, now: float, held: bool) -> Batch | None:
        """The batch of the Data Sets that wait in a layout; None where there are no records.

        `located` are the records of variable length; `spoiled`: some Message is malformed, whose Sets are left out.
        """
        bodies, sources, layout.bodies, layout.sources = layout.bodies, layout.sources, [], []
        if spoiled:
            keep = [not _is_malformed(source) for source in sources]
            if located is None:
                bodies, sources = list(compress(bodies, keep)), list(compress(sources, keep))
            else:
                located.keep(np.array(keep))
        if located is None:
            sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
            counts = (sizes - BEFORE) // layout.octets
        else:
            counts = located.counts
        n = int(counts.sum())
        if not n:
            return None
        self._counters.rows_received += n
        compiled = self._use(layout)
        if located is None:
            dtype = compiled.runs[0].dtype
            view = self._joined.view(bodies, sizes, layout.octets, dtype) if dtype is not None else None
            columns, missing = compiled.of_fixed(view, n)
        else:
            columns, missing = compiled.of_varying(located)
            for key in compiled.lists:
                columns[key.name] = self._structured.column(columns[key.name], key.type, sources, counts.tolist())
        counts = np.asarray(counts)
        made: list[Key] = []
        for maker in layout.made:
            made += maker.add((columns, missing), sources, counts)
        self._skew.look(sources, now)
        for mask in missing.values():
            self._counters.errors["value"] += int(np.count_nonzero(mask))
        if layout.scopes:
            self._take_options(layout, (columns, missing), sources, counts)
        for name in compiled.unwanted:
            del columns[name]
            missing.pop(name, None)
        columns = self._context.columns(layout, sources, counts, n) | columns
        return Batch(self._schema(layout, tuple(made)), columns, missing, n=n, now=now, held=held)

    def _take_options(self, layout: Layout, found: Found, sources: list[Source], counts: np.ndarray) -> None:
        """Options records: what they tell is kept."""
        learnts = [source[0] for source in sources]
        for session in self._options.read(learnts, counts.tolist(), found, layout.columns.keys):
            self._learning.retype(session)

    def _schema(self, layout: Layout, made: tuple[Key, ...]) -> Schema:
        schema = layout.schemas.get(made)
        if schema is None:
            keys = [*self._context.keys(layout.family), *layout.columns.keys, *made]
            keys = [key for key in keys if key.name not in layout.columns.unwanted]
            schema = layout.schemas[made] = Schema(keys)
        return schema

    def _use(self, layout: Layout) -> Columns:
        """The compiled layout; the one that was not used for longest is forgotten when there are too many."""
        if layout.columns is None:
            self._compile(layout)
            self._compiled_fields += len(layout.fields)
        else:
            self._compiled.pop(layout, None)
        self._compiled[layout] = None
        limits = self._limits
        while len(self._compiled) > limits.layouts or (
            self._compiled_fields > limits.layout_fields and len(self._compiled) > 1
        ):
            oldest = next(iter(self._compiled))
            del self._compiled[oldest]
            self._compiled_fields -= len(oldest.fields)
            oldest.forget()
        return layout.columns

    def _compile(self, layout: Layout) -> None:
        wanted = self._wanted
        layout.made = []
        if (times := decoder.times(layout.fields, wanted)) is not None:
            layout.made.append(times)
        if layout.scopes:
            wanted = wanted if wanted is ALL else wanted | USED
        else:
            layout.made += exporter_columns.made(layout.fields, wanted, self._scale, self._name)
        for maker in layout.made:
            wanted = maker.needed(wanted)
        columns = layout.columns = Columns(layout.fields, wanted, layout.described)
        columns.unwanted = [key.name for key in columns.keys if key.name not in self._wanted]
        if self._scale and not layout.scopes:
            exporter_columns.scaled(columns)


def _is_malformed(source: Source) -> bool:
    fate = source[3]
    return fate is not None and fate.malformed
