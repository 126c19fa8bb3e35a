"""The sections ``[store:NAME]``: which outputs are one store, and the bounds of its questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ulogd_tw.core.keys import nearest
from ulogd_tw.core.options import Option, octets, seconds, words
from ulogd_tw.core.paths import output_file

MEMORY = 1 << 30
TIMEOUT_S = 600.0
LEAST_MEMORY = 128 << 20
"""Octets that a question needs in any case."""
PLUGIN = "PARQUET"
OPTIONS: tuple[Option, ...] = (
    Option("outputs", words, None, "Ids of the PARQUET outputs of the store: one with the flows themselves, and others "
           "below AGGREGATE with sums of the same flows. Example: parquet1,parquet5m,parquet1h", mandatory=True),
    Option("memory", octets, MEMORY, "Maximum memory of one question over stored flows; 128M at least. Two can run at "
           "once, each in a process of its own."),
    Option("timeout", seconds, TIMEOUT_S, "Seconds after which a question is ended."),
    Option("question_log", output_file, "", "File with a line for each question about these flows: who asked, what and "
           "when. It has mode 0600. Empty: none."),
)  # fmt: skip


def remarks(values: Any, outputs: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """(option, remark) of one section: the roll-ups that can answer no question of a time; `outputs` are nodes."""
    for node in outputs:
        if node.ident not in values.outputs or not hasattr(node.plugin, "makers"):
            continue
        for maker in node.plugin.makers:
            found = getattr(maker, "rollup", None)
            if found is not None and (reason := _no_rollup(found)):
                yield "outputs", f"{node.ident} answers no question {reason} in [{maker.instance}]"


def _no_rollup(found: Mapping[str, Any]) -> str:
    """Why sums cannot stand for flows; empty where they can. `flows.plan` decides by the same facts."""
    if not found["interval"]:
        return "about a time, as age and window make no intervals: leave them out"
    if found["time"] == "arrival":
        return "about a time, as its sums are those of arrival: write time=flow"
    if not found["whole"]:
        return "with keys or a filter, as top and overflow put groups together: leave them out"
    return ""


def mistakes(section: str, values: Any, config: Any) -> Iterator[tuple[str, str]]:
    """(option, mistake) of one section."""
    stores = [ident for ident in config.instances() if PLUGIN in config.plugins_of(ident)]
    for ident in values.outputs:
        if ident not in stores:
            near = nearest(ident, stores)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(stores) or 'none'}"
            yield "outputs", f"{ident} is the id of no {PLUGIN} in a stack; {hint}"
    if values.memory < LEAST_MEMORY:
        yield "memory", f"{values.memory} octets are too few; write 128M or more"
