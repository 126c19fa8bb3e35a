"""Data Sets of one layout become a batch: columns of fields, columns made of them, and the context of the record."""

from __future__ import annotations

from itertools import compress
from typing import cast

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.core.quantities import identifying, needed
from ulogd_tw.ipfix import exporter_columns, packet_sections
from ulogd_tw.ipfix.clock_skew import Skew
from ulogd_tw.ipfix.context import Context, Source
from ulogd_tw.ipfix.flow_times import FlowTimes
from ulogd_tw.ipfix.header_layers import Tunnels, layered
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE, Columns, Found, Joined, Layout
from ulogd_tw.ipfix.options_records import USED
from ulogd_tw.ipfix.received import Intact, Received, ReceivedBatch
from ulogd_tw.ipfix.sampling import scaled
from ulogd_tw.ipfix.structured import Structured
from ulogd_tw.ipfix.variable_length import Located, locate

_MOST_SCHEMAS = 64
"""Schemas that are kept of a layout: what packets inside its records have differs from batch to batch."""


_BOOT = registry.element(0, 160)
"""systemInitTimeMilliseconds."""


class Batches:
    """Makes the batches of the records that wait in an intake, and compiles layouts for that.

    `scale`: multiply counts by the sampling factor; `name`: give names of interfaces and applications even if every key
    is wanted; `inner`: decode the packets inside tunnels; `layer`: ``inner`` or ``outer``, the headers with the bare
    names if a template has several; `seldom`: keys wanted in some records only; `copied`: keep the octets of
    records, for outputs that copy them.
    """

    def __init__(
        self, wanted: Wanted, intake: Intake, *, scale: bool, name: bool, inner: bool = False, layer: str = "",
        seldom: frozenset[str] = frozenset(), copied: bool = False,
    ) -> None:  # fmt: skip
        self._intake = intake
        self._counters = intake.counters
        self._limits = limits = intake.limits
        self._scale, self._name, self._inner, self._layer = scale, name, inner, layer
        self._compiled: dict[Layout, None] = {}
        self._compiled_fields = 0
        self.want(wanted, seldom, copied)
        self._joined = Joined()
        self._structured = Structured(limits, intake.counters.errors)
        self._skew = Skew(limits.clock_skew, intake.events)

    def want(self, wanted: Wanted, seldom: frozenset[str], copied: bool) -> None:
        """Give other keys from now on; nothing waits."""
        self._wanted, self._seldom, self._copied = wanted, seldom, copied and wanted is ALL
        self._usual_context = Context(wanted if wanted is ALL else wanted - seldom)
        self._whole_context = Context(wanted)
        for layout in self._compiled:
            layout.forget()
        self._compiled.clear()
        self._compiled_fields = 0

    def drain(self, now: float, held: bool) -> list[Batch]:
        """A batch of each layout with records."""
        layouts = self._intake.take_waiting()
        located = {layout: self._located(layout) for layout in layouts if not layout.octets}
        spoiled = any(part is not None and part.cut is not None for part in located.values())
        self._intake.sequences.settle()
        sound = (layout for layout in layouts if layout.octets or located[layout] is not None)
        batches = (self._sound(layout, located.get(layout), spoiled, now, held) for layout in sound)
        return [batch for batch in batches if batch is not None]

    def end(self) -> None:
        """All layouts of a wake-up are done."""
        self._intake.templates.forget_former()
        self._structured.forget()

    def _sound(self, layout: Layout, located: Located | None, spoiled: bool, now: float, held: bool) -> Batch | None:
        received = self._counters.rows_received
        try:
            return self._batch(layout, located, spoiled, now, held)
        except Exception as error:  # an error of ours costs these records, and no others
            self._counters.dropped["error"] += self._counters.rows_received - received
            self._intake.fault(error)
            return None

    def _located(self, layout: Layout) -> Located | None:
        try:
            return self._locate(layout)
        except Exception as error:  # how many records there were is not known
            layout.bodies, layout.sources = [], []
            self._intake.fault(error)
            return None

    def _locate(self, layout: Layout) -> Located:
        """Find the records of variable length, and the Messages that are malformed in them."""
        located = locate(cast("list[bytes]", layout.bodies), BEFORE, layout.shape)
        for source, rows in zip(layout.sources, located.counts.tolist(), strict=True):
            deferred = source[3]
            if deferred is None:  # counted with its Message
                continue
            source[0].domain.rows += rows
            if deferred.rows >= 0:
                deferred.rows += rows
        if located.cut is not None:
            for place in np.flatnonzero(located.cut).tolist():
                known, deferred = layout.sources[place][0], layout.sources[place][3]
                if deferred is not None and not deferred.malformed:
                    deferred.malformed = True
                    text = f"a record of template {known.template.ident} is cut"
                    self._intake.refuse(known.session, known.domain.number, MessageError(text, "record"))
        return located

    def _batch(self, layout: Layout, located: Located | None, spoiled: bool, now: float, held: bool) -> Batch | None:
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
        if (received := self._received(layout, compiled, located or (bodies, sizes))) is not None:
            self._skew.look(sources, now)
            context = self._context(compiled).columns(layout, sources, np.asarray(counts), n)
            return ReceivedBatch(self._schema(layout, compiled, ()), context, received, n=n, now=now, held=held)
        if located is None:
            columns, missing = compiled.of_fixed(self._joined, bodies, sizes, n)
        else:
            columns, missing = compiled.of_varying(located)
            for key in compiled.lists:
                columns[key.name] = self._structured.column(columns[key.name], key.type, sources, counts.tolist())
        counts = np.asarray(counts)
        made: list[Key] = []
        for mask in missing.values():
            self._counters.errors["value"] += int(np.count_nonzero(mask))
        for maker in layout.made:
            made += maker.add((columns, missing), sources, counts)
        self._skew.look(sources, now)
        if isinstance(boots := columns.get(_BOOT.name), np.ndarray):
            self._came_up(boots, sources, counts)
        if layout.scopes:
            self._take_options(compiled, (columns, missing), sources, counts)
        for name in compiled.unwanted:
            del columns[name]
            missing.pop(name, None)
        columns = self._context(compiled).columns(layout, sources, counts, n) | columns
        return Batch(self._schema(layout, compiled, tuple(made)), columns, missing, n=n, now=now, held=held)

    def _received(
        self, layout: Layout, compiled: Columns, records: Located | tuple[list[bytes | np.ndarray], np.ndarray]
    ) -> Received | None:
        """The records as they came, if outputs may copy them; `records`: located ones, or bodies and their sizes."""
        if compiled.intact is None:
            return None
        if isinstance(records, Located):
            return compiled.intact.of_varying(records)
        whole = np.dtype((np.void, layout.octets))
        return compiled.intact.of_fixed(self._joined.view(*records, layout.octets, whole))

    def _came_up(self, boots: np.ndarray, sources: list[Source], counts: np.ndarray) -> None:
        """Records with the start of their exporters; of several in one Set the last one counts.

        Domain 0 stands for the whole exporter (RFC 7011 section 3.1).
        """
        for source, end, count in zip(sources, np.cumsum(counts).tolist(), counts.tolist(), strict=True):
            if count:
                known, exported = source[0], source[1]
                all_domains = known.session.domains.values() if not known.domain.place else (known.domain,)
                for domain in [domain for domain in all_domains if domain.place >> 32 == known.domain.place >> 32]:
                    self._intake.restarts.came_up(known.session, domain, int(boots[end - 1]), exported)

    def _take_options(self, compiled: Columns, found: Found, sources: list[Source], counts: np.ndarray) -> None:
        """Options records: what they tell is kept."""
        templates = [source[0] for source in sources]
        exported = [source[1] for source in sources]
        for session in self._intake.options.read(templates, counts.tolist(), exported, found, compiled.keys):
            self._intake.templates.retype(session)

    def _schema(self, layout: Layout, compiled: Columns, made: tuple[Key, ...]) -> Schema:
        schema = layout.schemas.get(made)
        if schema is None:
            if len(layout.schemas) >= _MOST_SCHEMAS:
                layout.schemas.clear()
            keys = [*self._context(compiled).keys(layout.family), *compiled.keys, *made]
            keys = [key for key in keys if key.name not in compiled.unwanted]
            schema = layout.schemas[made] = Schema(keys)
        return schema

    def _use(self, layout: Layout) -> Columns:
        """The compiled layout; the one that was not used for longest is forgotten when there are too many."""
        compiled = layout.columns
        if compiled is not None and compiled.identities is not self._intake.options.identities:
            self._compiled_fields -= len(layout.fields)
            self._compiled.pop(layout, None)
            layout.forget()
            compiled = None
        if compiled is None:
            compiled = self._compile(layout)
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
        return compiled

    def _context(self, compiled: Columns) -> Context:
        return self._usual_context if compiled.usual else self._whole_context

    def _asked(self, layout: Layout) -> Wanted:
        """The keys that are wanted of the records of a layout."""
        if self._wanted is ALL or not self._seldom:
            return self._wanted
        keys = [registry.element(field.pen, field.ident) for field in layout.fields]
        names = {registry.element(*element).name for key in keys for element in key.elements}
        return needed(self._wanted, self._seldom, names.union(key.name for key in keys))

    def _compile(self, layout: Layout) -> Columns:
        asked = wanted = self._asked(layout)
        layout.made = []
        options, behind = self._intake.options, frozenset[int]()
        if not layout.scopes and (found := layered(layout.fields, self._layer)) is not None:
            behind = found[0].behind(found[1])
            layout.made.append(Tunnels(layout.fields, found[0], wanted, self._layer == "inner", self._intake.events))
        if flow_times := FlowTimes(layout.fields, wanted, options):
            layout.made.append(flow_times)
        if layout.scopes:
            wanted = wanted if wanted is ALL else wanted | USED
        else:
            if (sections := packet_sections.made(layout.fields, wanted, self._inner)) is not None:
                layout.made.append(sections)
            layout.made += exporter_columns.made(layout.fields, wanted, self._scale, self._name, options)
        if wanted is not ALL and any((field.pen, field.ident) == _BOOT.element for field in layout.fields):
            wanted = wanted | {_BOOT.name}
        for maker in layout.made:
            wanted = maker.needed(wanted)
        columns = layout.columns = Columns(layout.fields, wanted, layout.described, behind)
        columns.identities = options.identities
        columns.usual = asked is not ALL and not identifying(self._seldom & asked)
        columns.unwanted = [key.name for key in columns.keys if key.name not in asked]
        if self._copied:
            columns.intact = Intact.of(layout, columns)
        if self._scale and not layout.scopes:
            scaled(columns)
        return columns


def _is_malformed(source: Source) -> bool:
    deferred = source[3]
    return deferred is not None and deferred.malformed
