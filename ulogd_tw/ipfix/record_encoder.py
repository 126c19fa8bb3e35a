"""Data Records of batches with any keys: one template for each combination of values present.

A missing value is left out of its record, never sent as 0: rows are grouped by their missing values, and each group has
a template of its own. The number of a template is computed from its fields, so that it is the same in the next run too,
except for templates with equal results; it holds until `restart`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Column, Octets, numbers, strings, take
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.encoder import Encoder, Records
from ulogd_tw.ipfix.fields import ORIGIN, field_of, is_said, most_of
from ulogd_tw.ipfix.message import FIRST_DATA_SET, MAX_LENGTH, VERSION
from ulogd_tw.ipfix.received import ReceivedBatch
from ulogd_tw.ipfix.splice import Splice
from ulogd_tw.ipfix.template import VARIABLE, Field, Template, encode_record
from ulogd_tw.ipfix.uniflow import VARIANTS

MOST_TEMPLATES = 4096
"""Templates after which the numbers are used up: an encoder has some 5 kB of memory."""
MOST_FIELDS = 131_072
"""Fields of all templates together, likewise."""
MOST_PATTERNS = 64
"""Templates of one schema. Peers choose what their records lack, and every template costs a step of its own a batch."""
MOST_SCHEMAS = 1024
FIRST_IDENT = FIRST_DATA_SET + VARIANTS
"""Template ids below are those of `ulogd_tw.ipfix.uniflow`."""
_IDENTS = MAX_LENGTH + 1 - FIRST_IDENT
MOST_NAMES = 1000
"""Names of keys without an element that are remembered."""

_SCOPE = ("exporter", "observationDomainId")
"""Scopes of options records, in addition to their own first field: an id means another thing at each exporter."""
_Lacking = frozenset[int]
"""Places of the fields that a row has no value for."""
_Choice = tuple[Encoder, list[int]]
"""The encoder of such rows, and the places of its fields."""


class _Form:
    """The fields of a schema's records, and its templates by what the rows lack."""

    def __init__(self, schema: Schema, options: bool, lengths: Mapping[str, int], version: int) -> None:
        said = [(key, field_of(key, schema, lengths.get(key.name))) for key in schema.values() if is_said(key)]
        if version == 9:  # which has neither enterprises nor variable lengths
            said = [(key, None if f and (f[0].pen or f[0].length == VARIABLE) else f) for key, f in said]
        self.left_out = [key.name for key, field in said if field is None]
        told = [(key, field) for key, field in said if field is not None]
        own = [pair for pair in told if pair[0].name not in ORIGIN]
        origin = [pair for pair in told if pair[0].name in ORIGIN]
        if options:
            # How many fields of the original template were its scope is not known; one there was.
            scope = [pair for pair in origin if pair[0].name in _SCOPE]
            own_keys = [key for key, _ in said if key.name not in ORIGIN]
            self.scopes = len(scope) + (bool(own) and own[0][0] is own_keys[0])
            told = scope + own + [pair for pair in origin if pair not in scope]
        else:
            self.scopes = 0
            told = own + origin
        self.keys = [key for key, _ in told]
        self.fields = [field for _, (field, _) in told]
        self.kinds = [kind for _, (_, kind) in told]
        self.limits = [most_of(field, key.type) for key, (field, _) in told]
        self.options = options
        self.choices: dict[_Lacking, _Choice | None] = {}
        self.splices: dict[tuple[Field, ...], Splice] = {}
        """For records as they came, by their fields."""
        self.ever: set[int] = set()
        """Places of fields that some row had no value for."""


class RecordEncoder:
    """Encodes batches, and numbers their templates.

    It counts rows without any field as ``dropped{no_fields}``; as ``dropped{templates}`` rows in need of a further
    template beyond twice `MOST_TEMPLATES`; as ``errors{unfit}`` values too large for their element, left out; as
    ``errors{patterns}`` rows with values left out, since rows of their schema have too many combinations of missing
    values.
    """

    def __init__(self, counters: Counters, lengths: Mapping[str, int] | None = None, version: int = VERSION) -> None:
        """`lengths`: octets of the fields for some keys, by name, where they shall be fewer; `version`: 9, or IPFIX."""
        self.counters = counters
        self._version = version
        self._lengths = lengths or {}
        self.templates: dict[int, Template] = {}
        """Every template that was used, by id."""
        self.left_out: set[str] = set()
        """Keys that no Information Element can hold."""
        self.restart()

    def restart(self) -> None:
        """Forget all templates: a new session begins."""
        self.templates.clear()
        self._encoders: dict[tuple | Template, Encoder] = {}
        self._forms: Bounded[tuple[Schema, bool], _Form] = Bounded(MOST_SCHEMAS)
        self._fields = 0

    @property
    def full(self) -> bool:
        """Whether a new session should begin before another batch."""
        return len(self.templates) >= MOST_TEMPLATES or self._fields >= MOST_FIELDS

    def encoder(self, fields: Sequence[Field], scopes: int = 0, kinds: Sequence[Type] | None = None) -> Encoder:
        """The encoder for records of these fields, of which the first `scopes` are the scope; `kinds` as it takes."""
        place = (tuple(fields), scopes, None if kinds is None else tuple(kinds))
        found = self._encoders.get(place)
        if found is None:
            template = Template(self._ident(*place[:2]), *place[:2])
            found = self._encoders[place] = Encoder(template, kinds)
            self.templates[template.ident] = template
            self._fields += len(fields)
        return found

    def fixed(self, template: Template) -> Encoder:
        """The encoder for a template that has a number of its own, below `FIRST_IDENT`."""
        found = self._encoders.get(template)
        if found is None:
            found = self._encoders[template] = Encoder(template)
            self.templates[template.ident] = template
            self._fields += len(template.fields)
        return found

    def _ident(self, fields: tuple[Field, ...], scopes: int) -> int:
        template = Template(FIRST_IDENT, fields, scopes)
        place = zlib.crc32(encode_record(template, self._version))
        while True:
            ident = FIRST_IDENT + place % _IDENTS
            if self.templates.get(ident) in (None, replace(template, ident=ident)):
                return ident
            place += 1

    def records(self, batch: Batch, options: bool = False) -> Iterator[Records]:
        """The records of all rows, by template; `options`: they tell about the exporter itself."""
        form = self._form(batch.schema, options)
        if isinstance(batch, ReceivedBatch) and (splice := self._splice(form, batch.received.fields)) is not None:
            yield splice.records(batch)
            return
        for lacking, rows in _groups(self._missing(form, batch), batch.n):
            n = batch.n if rows is None else len(rows)
            chosen = self._choose(form, lacking, n)
            if chosen is None:
                self.counters.dropped["templates" if len(lacking) < len(form.fields) else "no_fields"] += n
                continue
            encoder, places = chosen
            columns = [batch.columns[form.keys[place].name] for place in places]
            yield encoder.encode(columns if rows is None else [take(column, rows) for column in columns], n)

    def _form(self, schema: Schema, options: bool) -> _Form:
        form = self._forms.get((schema, options))
        if form is None:
            form = self._forms[schema, options] = _Form(schema, options, self._lengths, self._version)
            self.left_out.update(form.left_out[: max(MOST_NAMES - len(self.left_out), 0)])
        return form

    def _splice(self, form: _Form, received: tuple[Field, ...]) -> Splice | None:
        """Copies records as they came; None where their values must be encoded anew, or no template is left."""
        found = form.splices.get(received)
        full = len(self.templates) >= 2 * MOST_TEMPLATES or len(form.splices) >= MOST_PATTERNS
        if found is not None or full or self._version != VERSION:
            return found
        names = [key.name for key in form.keys[len(received) :]]
        fields, kinds = form.fields[len(received) :], form.kinds
        template = self.encoder((*received, *fields), 0, kinds).template
        behind = Encoder(Template(template.ident, tuple(fields)), kinds[len(received) :])
        found = form.splices[received] = Splice(template, behind, names)
        return found

    def _missing(self, form: _Form, batch: Batch) -> dict[int, np.ndarray]:
        """Masks of the rows with a missing value, by the place of the field."""
        found = {}
        for place, key in enumerate(form.keys):
            missing = batch.missing.get(key.name)
            unfit = _unfit(batch.columns[key.name], form.fields[place], form.limits[place])
            if unfit is not None:
                unfit = unfit if missing is None else unfit & ~missing
                self.counters.errors["unfit"] += int(np.count_nonzero(unfit))
                missing = unfit if missing is None else missing | unfit
            if missing is not None and missing.any():
                found[place] = missing
        return found

    def _choose(self, form: _Form, lacking: _Lacking, n: int) -> _Choice | None:
        """The template of rows without these fields, and the places of its fields; None if no template is left."""
        form.ever |= lacking
        if lacking not in form.choices and len(form.choices) >= MOST_PATTERNS:
            # One template serves all further ones: it has only what every row had so far.
            self.counters.errors["patterns"] += n
            lacking = frozenset(form.ever)
        if lacking not in form.choices:
            places = [place for place in range(len(form.fields)) if place not in lacking]
            scopes = sum(place < form.scopes for place in places)
            fields = [form.fields[place] for place in places]
            kinds = [form.kinds[place] for place in places]
            if not fields:
                form.choices[lacking] = None
            elif len(self.templates) >= 2 * MOST_TEMPLATES:
                return None
            else:
                # an options template has one scope field at least (RFC 7011 section 3.4.2.1)
                form.choices[lacking] = self.encoder(fields, max(scopes, int(form.options)), kinds), places
        return form.choices[lacking]


def _unfit(column: Column, field: Field, limits: tuple[int, int] | None) -> np.ndarray | None:
    """A mask of the rows with a value too large for the field; None if there are none."""
    if field.length == VARIABLE:
        texts = strings(column)
        if isinstance(texts, Octets):
            longest = int(texts.plain().lengths.max(initial=0))
        else:
            longest = max(map(len, texts.values), default=0)
        return texts.plain().lengths > MAX_LENGTH if longest > MAX_LENGTH else None
    if limits is None or not len(column):
        return None
    values, (least, most) = numbers(column), limits
    if int(values.max()) <= most and int(values.min()) >= least:
        return None
    return (values < least) | (values > most)


def _groups(masks: dict[int, np.ndarray], n: int) -> Iterator[tuple[_Lacking, np.ndarray | None]]:
    """Rows by the fields that they lack: their numbers, None for all rows."""
    if not masks:
        yield frozenset(), None
        return
    places = np.array(list(masks))
    patterns = np.packbits(np.stack(list(masks.values()), axis=1), axis=1)
    if (patterns == patterns[0]).all():
        yield frozenset(places[[mask[0] for mask in masks.values()]].tolist()), None
        return
    codes = _numbers(patterns)
    order = np.argsort(codes, kind="stable")  # rows of a group stay in order
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    for rows in np.split(order, edges):
        lacks = [bool(mask[rows[0]]) for mask in masks.values()]
        yield frozenset(places[lacks].tolist()), rows


def _numbers(patterns: np.ndarray) -> np.ndarray:
    """A number for each row of octets, equal where the rows are."""
    n, wide = patterns.shape
    if wide > 8:
        return np.unique(patterns, axis=0, return_inverse=True)[1].reshape(n)
    words = np.zeros((n, 8), np.uint8)
    words[:, :wide] = patterns
    return words.view(np.uint64).reshape(n)
