"""Finds the keys for a request among the keys of a plugin: by name, by Information Element, by a conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.conversions import BY_TARGET, LAST_MS, Convert
from ulogd_tw.core.keys import Key, known, registry


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to a requested key: the columns used, and the function of them (None: the one column as it is)."""

    inputs: tuple[str, ...]
    convert: Convert | None = None


class Provided:
    """The keys of one plugin. With `open` it also gives any Information Element sent by a peer."""

    def __init__(self, keys: Iterable[Key], open_: bool = False) -> None:
        self.keys = {key.name: key for key in keys}
        self.open = open_

    def direct(self, name: str) -> tuple[str, ...]:
        """The names of its keys for the datum `name`: the same name, else the same element."""
        if name in self.keys:
            return (name,)
        asked = known(name)
        if asked is None:
            return ()
        found = [
            key.name
            for key in self.keys.values()
            if set(key.elements) & set(asked.elements) and types.compatible(asked.type, key.type)
        ]
        if self.open and not found:
            if "#" in name or name[:1] == "e" and not asked.elements:
                return (name,)
            found = [registry.element(*element).name for element in asked.elements]
            for element in asked.elements:
                found += registry.netflow5.get(element, ())
        return tuple(dict.fromkeys(found))

    def recipes(self, name: str) -> tuple[Recipe, ...]:
        """All ways to the key `name`, the plainest first; empty where there is none."""
        found = [Recipe((column,)) for column in self.direct(name)]
        for conversion in BY_TARGET.get(name, ()):
            inputs = [self.direct(i) for i in conversion.inputs]
            if all(inputs):
                found.append(Recipe(tuple(i[0] for i in inputs), conversion.convert))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Found:
    """A requested column of one batch: its values, the mask of missing rows (or None), the key with the type held."""

    values: Column
    missing: np.ndarray | None
    key: Key

    @property
    def numbers(self) -> np.ndarray:
        """The values of a key that is held as an array; TypeError for strings."""
        return numbers(self.values)

    def filled(self, value: int | np.ndarray) -> np.ndarray:
        """The numbers, with `value` (one for all rows, or an array) in rows without one."""
        if self.missing is None:
            return self.numbers
        missing = self.missing if self.numbers.ndim == 1 else self.missing[:, None]
        value = value if isinstance(value, np.ndarray) else self.numbers.dtype.type(value)
        return np.where(missing, value, self.numbers)

    def known(self, rows: np.ndarray) -> np.ndarray:
        """A mask of the `rows` with a value."""
        return rows if self.missing is None else rows & ~self.missing


Find = Callable[[Batch, str], Found | None]
"""How a plugin finds a key in a batch: `Plugin.find`."""


class Sources:
    """Where one instance finds the keys it asked for; chosen once for each schema."""

    MOST_SCHEMAS = 1024

    def __init__(self) -> None:
        self.recipes: dict[str, tuple[Recipe, ...]] = {}
        self._chosen: Bounded[Schema, dict[str, tuple[Recipe, Key] | None]] = Bounded(self.MOST_SCHEMAS)
        self._last: tuple[Schema | None, dict[str, tuple[Recipe, Key] | None]] = (None, {})
        """The last schema and its part of `_chosen`: one value, since a database's thread asks too."""

    def add(self, name: str, recipes: Iterable[Recipe]) -> None:
        """Add ways to `name` (an output below several stacks has ways through each)."""
        self.recipes[name] = tuple(dict.fromkeys((*self.recipes.get(name, ()), *recipes)))
        self._chosen.clear()
        self._last = (None, {})

    def find(self, batch: Batch, name: str) -> Found | None:
        """The column of the key `name` in this batch, or None where the batch has no such value."""
        schema, of_schema = self._last
        if schema is not batch.schema:
            of_schema = self._turn_to(batch.schema)
        try:
            chosen = of_schema[name]
        except KeyError:
            chosen = of_schema[name] = self._choose(batch.schema, name)
        if chosen is None:
            return None
        recipe, key = chosen
        if recipe.convert is None:
            column = recipe.inputs[0]
            return Found(batch.columns[column], batch.missing.get(column), key)
        masks = [batch.missing[i] for i in recipe.inputs if i in batch.missing]
        missing = np.logical_or.reduce(masks) if masks else None
        values = recipe.convert(*(batch.columns[i] for i in recipe.inputs))
        if key.type is types.MILLISECONDS:
            beyond = values > np.uint64(LAST_MS)  # of an uptime or a boot time that cannot be
            if beyond.any():
                missing = beyond if missing is None else missing | beyond
        return Found(values, missing, key)

    def _turn_to(self, schema: Schema) -> dict[str, tuple[Recipe, Key] | None]:
        """The recipes chosen for this schema, of which the next batches will be."""
        found = self._chosen.get(schema)
        if found is None:
            found = self._chosen[schema] = {}
        self._last = schema, found
        return found

    def key(self, schema: Schema, name: str) -> Key | None:
        """The key that `find` gives for batches of this schema."""
        chosen = self._choose(schema, name)
        return chosen[1] if chosen else None

    def _choose(self, schema: Schema, name: str) -> tuple[Recipe, Key] | None:
        asked = known(name)
        recipes: Iterable[Recipe] = self.recipes.get(name, ())
        if schema.ipv6 and asked is not None and asked.type is types.ADDRESS:
            recipes = sorted(recipes, key=lambda recipe: not _is_ipv6(schema.get(recipe.inputs[0])))
        for recipe in recipes:
            if not all(i in schema for i in recipe.inputs):
                continue
            held = schema[recipe.inputs[0]]
            if recipe.convert is not None and asked is not None:
                # A field of an impossible length is held as octets, which nothing can be made of.
                if all(fits(schema[i]) for i in recipe.inputs):
                    return recipe, asked
                continue
            if asked is None or types.compatible(asked.type, held.type):
                return recipe, held.named(name)
        return None


def _is_ipv6(held: Key | None) -> bool:
    return held is not None and held.type is types.IPV6


def fits(held: Key) -> bool:
    """Whether a column has the form that its key declares."""
    key = known(held.name)
    return key is None or types.compatible(key.type, held.type)
