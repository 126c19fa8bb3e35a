"""The sections ``[alert:NAME]``: their options, their mistakes, and the rule that each makes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ulogd_tw.alerting.conditions import Condition, parse
from ulogd_tw.core.keys import nearest
from ulogd_tw.core.options import Option, entries, positive, seconds, text
from ulogd_tw.core.resolve import Provided
from ulogd_tw.match import grammar
from ulogd_tw.match.errors import MatchError

OPTIONS: tuple[Option, ...] = (
    Option("when", text, None, "Condition of the alert. octets by destinationAddress > 1G in 1m: a sum over a window "
           "by keys of an AGGREGATE (octets, packets, flows, reply_octets, reply_packets; k, M, G, T are powers of "
           "1000). octets by destinationAddress > 3 times last week: the sum of this hour against the same hour a week "
           "ago. new sourceAddress: a value never seen before. exporter silent for 5m; lost > 0 in 1m; dropped > 0 in "
           "1m; template changed; sampling changed.", mandatory=True),
    Option("match", text, "", "Rows that count, as an expression of MATCH over the columns of the AGGREGATE. Empty: "
           "all rows."),
    Option("of", text, "", "Id of the AGGREGATE. Empty: the only one that has the keys of the rule."),
    Option("for", seconds, 0.0, "Seconds for which the condition must stay true until the alert fires."),
    Option("keep", seconds, 0.0, "Seconds for which the condition must stay untrue until the alert is resolved. A "
           "value that goes up and down sends nothing meanwhile."),
    Option("least", positive, 1, "With times last week: smallest sum of this hour that can fire."),
    Option("learn", seconds, 86400.0, "With new: seconds after the first start in which values are only remembered."),
    Option("max_seen", entries, 1_000_000, "With new: maximum number of remembered values. The ones unseen for the "
           "longest time are forgotten."),
    Option("max_alerts", entries, 100, "Maximum number of keys of this rule that are pending or firing. Further keys "
           "are counted."),
    Option("summary", text, "", "Text of the alert. {value} and the names of keys in braces are replaced. Empty: made "
           "from when."),
    Option("alertmanager", text, "", "Address of an Alertmanager, such as http://127.0.0.1:9093. It gets the alert "
           "while it fires, and its end."),
    Option("webhook", text, "", "Address that gets a POST with the alert as JSON when it fires and when it ends."),
    Option("command", text, "", "Program with its arguments, run without a shell when the alert fires and when it "
           "ends. It gets the alert as JSON on its standard input."),
    Option("timeout", seconds, 10.0, "Seconds that a receiver may take; a command that takes longer is ended."),
)  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Rule:
    """One section. `texts` tells whether a reload has changed it; `kinds` are those of the types of `condition.by`."""

    name: str
    condition: Condition
    values: Any
    of: str = ""
    term: Any = None
    kinds: tuple[str, ...] = ()
    texts: tuple[Any, ...] = ()

    def summary_name(self, labels: dict[str, str]) -> str:
        """The rule with the values of its key."""
        return " ".join([self.name, *labels.values()])

    def summary(self, labels: dict[str, str], value: float) -> str:
        """A sentence for people. Values of the key are never read as a template."""
        written = f"{value:.6g}"
        if self.values.summary:
            known = {**labels, "value": written}
            return re.sub(r"\{([^{}]+)\}", lambda found: known.get(found[1], found[0]), str(self.values.summary))
        of = ", ".join(f"{name} {shown}" for name, shown in labels.items())
        return f"{self.values.when}: {written}" + (f" ({of})" if of else "")


def read(name: str, values: Any, filters: Iterable[Any], texts: Iterable[Any]) -> tuple[Rule | None, list[Any]]:
    """The rule of a section, or None, and (option, mistake) of all that is wrong; `filters` are nodes of the graph."""
    wrong = list(_receivers(values))
    if not NAME.fullmatch(name):
        wrong.append(("", f"the name {name!r} is not possible; write letters, digits, _ . and -"))
    try:
        condition = parse(values.when)
    except ValueError as error:
        return None, [*wrong, ("when", str(error))]
    if not condition.of_flows:
        unused = [option for option in ("match", "of") if getattr(values, option)]
        wrong += [(option, f"has no meaning with when={values.when}; delete it") for option in unused]
        return (None if wrong else Rule(name, condition, values, texts=tuple(texts))), wrong
    term = None
    if values.match:
        try:
            from ulogd_tw.plugins.filters.match import port_of

            term = grammar.parse(values.match, {}, port_of)
        except MatchError as error:
            wrong.append(("match", f"{error}\n{values.match}\n{' ' * (error.column - 1)}^"))
    found, why = _aggregate(condition, values, term, filters)
    wrong += why
    if found is None or wrong:
        return None, wrong
    types = {key.name: key.type.kind for key in found.plugin.keys()}
    kinds = tuple(types[key] for key in condition.by)
    return Rule(name, condition, values, found.plugin.instance, term, kinds, tuple(texts)), []


def _lacks(plugin: Any, condition: Condition, term: Any) -> list[str]:
    """Keys that a rule needs and this AGGREGATE does not have."""
    provided = Provided(plugin.keys())
    asked = list(term.keys()) if term is not None else []
    return [key for key in condition.by if key not in plugin.key_names] + [
        key for key in asked if not provided.recipes(key)
    ]


def _aggregate(condition: Condition, values: Any, term: Any, filters: Iterable[Any]) -> tuple[Any, list[Any]]:
    """The node of the AGGREGATE of a rule, or what is wrong."""
    there: dict[str, Any] = {}
    for node in filters:
        if node.plugin.name == "AGGREGATE":
            there.setdefault(node.plugin.instance.partition("#")[0], node)
    listed = ", ".join(there) or "none"
    if values.of:
        if values.of not in there:
            near = nearest(values.of, there)
            hint = f"did you mean {near}?" if near else f"there are {listed}"
            return None, [("of", f"{values.of} is the id of no AGGREGATE in a stack; {hint}")]
        chosen = [values.of]
    else:
        chosen = [ident for ident, node in there.items() if not _lacks(node.plugin, condition, term)]
        if len(chosen) > 1:
            return None, [("when", f"{', '.join(chosen)} all have these keys; name one with of={chosen[0]}")]
        if not chosen:
            needs = ", ".join([*condition.by, *(term.keys() if term is not None else ())])
            text = f"no AGGREGATE has the keys {needs}; add them to key= of one (there are {listed})"
            return None, [
                ("when", text if there else "there is no AGGREGATE in a stack; add one, such as agg1:AGGREGATE")
            ]
    node = there[chosen[0]]
    settings = node.plugin.settings
    wrong: list[tuple[str, str]] = []
    if lacks := _lacks(node.plugin, condition, term):
        wrong.append(("of", f"[{chosen[0]}] has no {', '.join(lacks)}; add it to its key="))
    if settings.age or settings.window:
        wrong.append(("of", f"[{chosen[0]}] has age or window, so it has no intervals to look at; name another one"))
    elif condition.kind == "above" and condition.window % settings.interval:
        text = f"{condition.window} seconds are no multiple of interval={settings.interval} of [{chosen[0]}]"
        wrong.append(("when", f"{text}; write a multiple of it, or make the interval shorter"))
    return node, wrong


def _receivers(values: Any) -> Iterator[tuple[str, str]]:
    for option in ("alertmanager", "webhook"):
        address = getattr(values, option)
        if address:
            try:
                parts = urlsplit(address)
                usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
                usable = usable and address.isascii() and address.isprintable() and "@" not in parts.netloc
            except ValueError:
                usable = False
            if not usable:
                yield option, f"{address!r} is no address; write it as in http://127.0.0.1:9093"
    if values.command:
        try:
            words = shlex.split(values.command)
        except ValueError as error:
            yield "command", f"{error}: write each argument with blanks in ' '"
            return
        if not words or not os.path.isabs(words[0]):
            yield "command", "the program needs its whole path, such as /usr/local/bin/page"
    if values.timeout <= 0:
        yield "timeout", "must be more than 0"
