"""A configuration file made into stacks: their graph, the values of [global], and every mistake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ulogd_tw import config as configuration
from ulogd_tw import global_options, registry
from ulogd_tw.core.errors import ConfigError, Mistake
from ulogd_tw.core.graph import Node
from ulogd_tw.core.options import Options as Values
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.core.stack import Builder, Graph, Lookup


def _whole(class_: type[Plugin], instance: str, options: Values) -> Plugin:
    return class_(instance, options)


def _divided(class_: type[Plugin], instance: str, options: Values) -> Plugin:
    """The instance, which has workers where its options say so."""
    if class_.name == "COLLECTOR" and getattr(options, "workers", 1) != 1:
        from ulogd_tw.plugins.inputs.divided_collector import DividedCollector

        return DividedCollector(instance, options)
    return class_(instance, options)


class Built:
    """A configuration with its built stacks: the graph, the values of [global], and every mistake."""

    def __init__(
        self, config: configuration.Config, prepare: bool, lookup: Lookup = registry.lookup, workers: bool = True
    ) -> None:
        """`prepare`: outputs may look at the outside. `lookup` gives the class of a plugin.

        `workers`: a COLLECTOR may have them.
        """
        self.config = config
        self.settings: Any
        self.settings, wrong = config.read("global", global_options.GLOBAL_OPTIONS, "[global]")
        self.sections = {name: config.texts(name) for name in ("manhole", "http")}
        self.spools = [text for name in config.sections for key, text in config.texts(name) if key == "spool" and text]
        """All values of the option spool, also of instances in no stack."""
        builder = Builder(lookup, self._read, registry.providers, _divided if workers else _whole)
        self.graph: Graph = builder.build(config.stacks(), prepare)
        for node in self.graph.nodes:
            node.plugin.keeps_state = bool(self.settings.state_dir)
        self.manhole: Values | None = None
        if "manhole" in config.sections:
            from ulogd_tw.operating import manhole  # conch takes 0.2 s to import

            self.manhole, odd = config.read("manhole", manhole.OPTIONS, "[manhole]")
            if any(not m.tolerated for m in odd):
                self.manhole = None  # the stacks run without it
            wrong += odd
        self.http = self._http(wrong)
        self.stores = self._stores(wrong)
        self.alerts = self._alerts(wrong)
        seen: dict[str, Mistake] = {str(m): m for m in (*config.mistakes, *wrong, *builder.mistakes)}
        self.mistakes = sorted(seen.values(), key=place_of)
        self.fatal = [m for m in self.mistakes if not m.remark and (self.settings.strict or not m.tolerated)]
        self.forbidden: list[Mistake] = self.fatal if self.settings.strict else []
        """With ``strict=1``: what keeps every stack from running."""

    def left_out(self) -> Iterator[dict[str, str]]:
        """The stacks of the file that are not in the graph: text, where, and the reason."""
        run = {stack.spec.where for stack in self.graph.stacks}
        for line in self.config.stacks():
            if line.where not in run:
                found = [m.text for m in self.mistakes if not m.tolerated and m.where == line.where]
                reason = "; ".join(found) or "an instance of it has a mistake, which the log names"
                yield {"text": line.text, "where": line.where, "reason": reason}

    def _http(self, wrong: list[Mistake]) -> Values | None:
        """The values of [http]; None without the section, or with a mistake in it: then nothing listens."""
        if "http" not in self.config.sections:
            return None
        from ulogd_tw.operating.api import options

        values, odd = self.config.read("http", options.OPTIONS, "[http]")
        if all(m.tolerated for m in odd):
            odd += self.said(values, options.mistakes(values), False)
            odd += self.said(values, options.remarks(values), True)
        wrong += odd
        return values if all(m.tolerated for m in odd) else None

    def _stores(self, wrong: list[Mistake]) -> dict[str, Values]:
        """The values of each [store:NAME]; a section with a mistake is left out."""
        sections = [name for name in self.config.sections if name.startswith(configuration.STORE)]
        if not sections:
            return {}
        from ulogd_tw.operating import store_options

        found: dict[str, Values] = {}
        for section in sections:
            values, odd = self.config.read(section, store_options.OPTIONS, "a store's section")
            if all(m.tolerated for m in odd):
                mistakes = store_options.mistakes(section, values, self.config)
                odd += [Mistake(values.place(name), f"[{section}] {name}: {text}") for name, text in mistakes]
                for name, text in store_options.remarks(values, self.graph.outputs):
                    odd.append(Mistake(values.place(name), f"[{section}] {name}: {text}", tolerated=True))
            wrong += odd
            if all(m.tolerated for m in odd):
                found[section.removeprefix(configuration.STORE)] = values
        return found

    def _alerts(self, wrong: list[Mistake]) -> dict[str, Any]:
        """The rule of each [alert:NAME]; a section with a mistake is left out."""
        sections = [name for name in self.config.sections if name.startswith(configuration.ALERT)]
        if not sections:
            return {}
        from ulogd_tw.alerting import rules

        found: dict[str, Any] = {}
        for section in sections:
            values, odd = self.config.read(section, rules.OPTIONS, "an alert's section")
            if all(m.tolerated for m in odd):
                name = section.removeprefix(configuration.ALERT)
                rule, said = rules.read(name, values, self.graph.filters, self.config.texts(section))
                place = values.place
                odd += [Mistake(place(o), f"[{section}] {o + ': ' if o else ''}{text}") for o, text in said]
                if rule is not None:
                    found[name] = rule
            wrong += odd
        return found

    def said(self, values: Values, found: Iterable[tuple[str, str]], tolerated: bool) -> list[Mistake]:
        """Mistakes of [http], each with its line."""
        section = self.config.place(self.config.sections["http"].line)
        return [Mistake(values.place(name) or section, f"[http] {name}: {text}", tolerated) for name, text in found]

    def _read(self, instance: str, class_: type[Plugin]) -> tuple[Values, list[Mistake]]:
        others = registry.options_of(self.config.plugins_of(instance) - {class_.name})
        values: Any
        values, mistakes = self.config.read(instance, class_.all_options(), f"plugin {class_.name}", others)
        for word in values.collectors if class_.section_options else ():
            name = configuration.COLLECTOR + word
            if name in self.config.sections:
                own, wrong = self.config.read(name, class_.section_options, "a collector's section")
                values.sections[word] = own
                values.places |= {f"[{name}] {option}": place for option, place in own.places.items()}
                mistakes += wrong
        return values, mistakes


def place_of(mistake: Mistake) -> tuple[str, int]:
    """File and line, to print mistakes in the order of the file."""
    file, _, line = mistake.where.rpartition(":")
    return (file, int(line)) if line.isdigit() else (mistake.where, 0)


def obstacles(nodes: Iterable[Node]) -> list[tuple[Node, Mistake]]:
    """What stands against instances, as far as looking shows; nothing is opened. Tolerated: the stack runs with it."""
    found = []
    for node in nodes:
        plugin = node.plugin
        for name, text, fatal in plugin.obstacles():
            where = plugin.config.place(name) or node.stacks[0].spec.where
            found.append((node, Mistake(where, f"[{plugin.instance}] {name}: {text}", not fatal)))
    return found


def why_no_start(path: str) -> list[str]:
    """Why no service could start with this file: its mistakes. Empty where one can, if with fewer stacks."""
    try:
        built = Built(configuration.load(path), prepare=False)
    except ConfigError as error:
        return [str(error)]
    return why_not(built, obstacles(built.graph.nodes))


def why_not(built: Built, seen: list[tuple[Node, Mistake]]) -> list[str]:
    """Why no service could start with what stands against its instances; empty where one can."""
    broken = {node for node, mistake in seen if not mistake.tolerated}
    graph = built.graph.without(broken)[0] if broken else built.graph
    if graph.stacks and not (built.settings.strict and (built.fatal or broken)):
        return []
    return [str(mistake) for mistake in (*built.mistakes, *(found for _, found in seen))] or [
        f"{built.config.file}: there is no stack to run"
    ]
