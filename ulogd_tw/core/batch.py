"""A batch: rows of one schema, held column by column. Plugins pass batches to each other."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Coded, Column, Octets, Rows
from ulogd_tw.core.keys import Key


class Schema(Mapping[str, Key]):
    """The keys of a batch in order, each with the type of its column. Compared by value, hashed once.

    `ipv6`: where a batch has addresses of both families, the rows are IPv6's.
    """

    __slots__ = ("_keys", "_hash", "_derived", "ipv6")

    MOST_DERIVED = 64

    def __init__(self, keys: Sequence[Key], ipv6: bool = False) -> None:
        self._keys = {key.name: key for key in keys}
        self.ipv6 = ipv6
        self._hash = hash((*self._keys.values(), ipv6))
        self._derived: Bounded[Any, Schema] = Bounded(self.MOST_DERIVED)

    def with_keys(self, added: tuple[Key, ...]) -> Schema:
        """This schema with further keys at the end; they replace keys of the same name. Equal keys give the same
        object."""
        if not added:
            return self
        found = self._derived.get(added)
        if found is None:
            names = {key.name for key in added}
            found = self._keep(added, [*(key for key in self.values() if key.name not in names), *added])
        return found

    def only(self, names: tuple[str, ...]) -> Schema:
        """These keys in this order. Equal names give the same object."""
        return self._derived.get(names) or self._keep(names, [self[name] for name in names])

    def of_ipv6(self) -> Schema:
        """The same keys for rows of IPv6. Each call gives the same object."""
        return self if self.ipv6 else self._derived.get("ipv6") or self._keep("ipv6", list(self.values()), True)

    def _keep(self, what: Any, keys: Sequence[Key], ipv6: bool = False) -> Schema:
        found = self._derived[what] = Schema(keys, ipv6 or self.ipv6)
        return found

    def __getitem__(self, name: str) -> Key:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Schema) or self._hash != other._hash or self.ipv6 != other.ipv6:
            return False
        return tuple(self._keys.values()) == tuple(other._keys.values())

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{k.name}:{k.type}' for k in self._keys.values())})"


class Past(NamedTuple):
    """What may have happened to a batch before it went to the disk, or since it was read by a run that was killed.

    `mark` stands for it in a database that has its rows; `run` and `number` are of a write that got no answer.
    """

    mark: str = ""
    run: str = ""
    number: int = 0


class Batch:
    """`n` rows. A batch is never changed in place: stacks share it.

    columns   name -> column, for every key of the schema
    missing   name -> boolean mask of the rows without a value, for columns with such rows only; the column's content
              there is undefined
    now       the clock of the input, seconds since 1970: the wall clock, or that of a replayed file
    held      True when the input waits while its rows wait, so that a full queue need not drop them
    kept      True while its rows are in a file, too, which a kill leaves there
    """

    kept = False

    __slots__ = ("schema", "columns", "missing", "n", "now", "held", "__dict__")
    past: Past | None = None
    """Of a batch that goes to the disk or comes from there; batches made of this one have none."""

    def __init__(
        self,
        schema: Schema,
        columns: dict[str, Column],
        missing: dict[str, np.ndarray] | None = None,
        *,
        n: int,
        now: float,
        held: bool = False,
    ) -> None:
        self.schema = schema
        self.columns = columns
        self.missing = missing or {}
        self.n = n
        self.now = now
        self.held = held

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"<Batch of {self.n} rows: {', '.join(self.schema)}>"

    @cached_property
    def nbytes(self) -> int:
        """Octets of memory held by the columns; repeated values count once."""
        return sum(map(columns.nbytes, self.columns.values())) + self.n * len(self.missing)

    def take(self, rows: Rows) -> Batch:
        """The chosen rows: a boolean mask, indices in any order, or a slice."""
        if isinstance(rows, slice):
            n = len(range(*rows.indices(self.n)))
        else:
            n = int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows)
        taken = {name: columns.take(column, rows) for name, column in self.columns.items()}
        missing = {name: mask[rows] for name, mask in self.missing.items()}
        return Batch(self.schema, taken, missing, n=n, now=self.now, held=self.held)

    def with_columns(self, added: Mapping[Key, Column], missing: Mapping[str, np.ndarray] | None = None) -> Batch:
        """This batch with further columns; a key of the same name is replaced."""
        schema = self.schema.with_keys(tuple(added))
        new = {key.name: column for key, column in added.items()}
        masks = {name: mask for name, mask in self.missing.items() if name not in new} | dict(missing or {})
        return Batch(schema, self.columns | new, masks, n=self.n, now=self.now, held=self.held)

    def select(self, names: Sequence[str]) -> Batch:
        """Only these keys, in this order; each must be there."""
        return Batch(
            self.schema.only(tuple(names)),
            {name: self.columns[name] for name in names},
            {name: self.missing[name] for name in names if name in self.missing},
            n=self.n,
            now=self.now,
            held=self.held,
        )

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """Batches of one schema after each other; the clock is the last one's."""
        return batches[0] if len(batches) == 1 else batches[0]._join(batches)

    def _join(self, batches: Sequence[Batch]) -> Batch:
        """As `joined`; this is the first batch."""
        first = self
        together = {name: columns.joined([b.columns[name] for b in batches]) for name in first.schema}
        missing = {}
        for name in {name for b in batches for name in b.missing}:
            parts = [b.missing[name] if name in b.missing else np.zeros(b.n, bool) for b in batches]
            missing[name] = np.concatenate(parts)
        return Batch(
            first.schema,
            together,
            missing,
            n=sum(b.n for b in batches),
            now=batches[-1].now,
            held=all(b.held for b in batches),
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Plain rows: native numbers, addresses as integers, strings as bytes; a missing value is left out.

        About 0.75 M rows a second: for simple plugins that are not on a hot path.
        """
        values = [plain_values(self.columns[name], key) for name, key in self.schema.items()]
        for name in self.missing:
            place = list(self.schema).index(name)
            values[place] = [_ABSENT if m else v for v, m in zip(values[place], self.missing[name], strict=True)]
        names = list(self.schema)
        for row in zip(*values, strict=True):
            yield {name: value for name, value in zip(names, row, strict=True) if value is not _ABSENT}

    def save(self, file: Any) -> None:
        """Write the batch to an open binary file as NumPy's npz, without pickles; `load` reads it."""
        keys = [[k.name, k.type.name, list(k.elements), k.unit, k.semantics] for k in self.schema.values()]
        head = {"keys": keys, "n": self.n, "now": self.now, "ipv6": self.schema.ipv6}
        arrays = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        for place, name in enumerate(self.schema):
            column = self.columns[name]
            if isinstance(column, np.ndarray):
                arrays[f"c{place}"] = np.ascontiguousarray(column)
            else:
                plain = column.plain()
                arrays[f"o{place}"], arrays[f"d{place}"] = plain.offsets, plain.data
            if name in self.missing:
                arrays[f"m{place}"] = self.missing[name]
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy 2.0 declares them as bool

    @classmethod
    def load(cls, file: Any) -> Batch:
        """The batch written by `save`. Raises ValueError for anything else."""
        try:
            return cls._load(file)
        except (KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"not a saved batch: {error}") from None

    @staticmethod
    def rows_in(file: Any) -> int:
        """The rows of the batch written by `save`, of which no more is read. Raises ValueError for anything else."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return int(json.loads(arrays["head"].tobytes())["n"])
        except (KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"not a saved batch: {error}") from None

    @classmethod
    def _load(cls, file: Any) -> Batch:
        with np.load(file, allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            keys = [Key(n, types.TYPES[t], tuple(map(tuple, e)), u, s) for n, t, e, u, s in head["keys"]]
            found: dict[str, Column] = {}
            missing = {}
            for place, key in enumerate(keys):
                if f"c{place}" in arrays:
                    found[key.name] = arrays[f"c{place}"]
                else:
                    found[key.name] = Octets(arrays[f"o{place}"], arrays[f"d{place}"])
                if f"m{place}" in arrays:
                    missing[key.name] = arrays[f"m{place}"]
        schema = Schema(keys, bool(head.get("ipv6")))
        return cls(schema, found, missing, n=head["n"], now=head["now"])


_ABSENT = object()


def plain_values(column: Column, key: Key) -> list[Any]:
    """A column as Python values: numbers, one integer an address, bytes."""
    if isinstance(column, (Octets, Coded)):
        return column.to_list()
    if key.type is types.IPV6:
        return [high << 64 | low for high, low in column.tolist()]
    return column.tolist()
