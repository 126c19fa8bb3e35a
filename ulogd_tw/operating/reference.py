"""The reference, made from the declarations: every plugin with its options and keys, as Markdown.

    python -m ulogd_tw.operating.reference > docs/reference.md

It contains only plugins that come with ulogd_tw, so it is the same on every machine.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ulogd_tw import config, global_options, registry
from ulogd_tw.alerting import rules
from ulogd_tw.core import conversions, options, paths
from ulogd_tw.core.counters import NUMBERS, Declared, flat
from ulogd_tw.core.keys import CONTEXT, Key, known
from ulogd_tw.core.keys import registry as keys
from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import Option
from ulogd_tw.core.plugin import ALL, Aggregator, Filter, Input, Output, Plugin, type_text
from ulogd_tw.exporting.rules import marks
from ulogd_tw.ipfix import uniflow
from ulogd_tw.operating import manhole, metric_names
from ulogd_tw.operating.api import options as http
from ulogd_tw.operating.commands.described import commands
from ulogd_tw.operating.markdown import prose, table
from ulogd_tw.plugins.inputs.nfct import protocols
from ulogd_tw.plugins.inputs.nflog import groups
from ulogd_tw.storing.clickhouse import options as clickhouse

COMMAND = "python -m ulogd_tw.operating.reference > docs/reference.md"
"""The command to make the file."""


# options


@dataclass(frozen=True)
class Form:
    """The notation of an option's values; `examples` are accepted texts."""

    name: str
    meaning: str
    examples: tuple[str, ...]


FORMS: dict[Callable[[str], Any], Form] = {
    options.text: Form("text", "the text as it is; in `\"...\"` it may have blanks", ("/var/log/flows.json", "flows")),
    options.number: Form("number", "an integer of 64 bits: decimal, hexadecimal or octal", ("10", "0x1f", "017", "-1")),
    options.positive: Form("number from 1", "an integer of at least 1", ("1", "0x1000")),
    options.unsigned32: Form("number from 1 (32 bits)", "an integer from 1 to 4294967295", ("1", "100")),
    options.entries: Form("number from 1 (2^30)", "an integer from 1 to 1073741824", ("1", "1000000")),
    options.seconds: Form(
        "seconds", "a time: seconds, or a number with ms, s, m, h or d behind it",
        ("30", "0.2", "500ms", "5m", "2h", "1d"),
    ),
    options.whole_seconds: Form("whole seconds", "seconds as above, but whole ones from 1 on", ("60", "5m")),
    paths.input_file: Form("file", "the path of a file that is read", ("/etc/ulogd/networks.csv",)),
    paths.output_file: Form("file", "the path of a file that is written", ("/var/log/flows.json",)),
    paths.directory: Form("directory", "the path of a directory that is there", ("/var/log/ulogd",)),
    paths.network_namespace: Form("namespace", "the path of a network namespace", ("/run/netns/router",)),
    paths.new_socket: Form("socket", "the path of a Unix socket that is made", ("/run/ulogd/control.sock",)),
    options.octets: Form("octets", "a size: octets, or a number with k, M or G behind it (powers of 1024)",
                         ("65536", "64k", "256M", "1G")),
    options.share: Form("percent", "a part of a whole", ("5%", "0.5", "0")),
    options.boolean: Form("boolean", "a switch", ("1", "yes", "on", "true", "0", "no", "off", "false")),
    options.words: Form("words", "words with blanks or commas between them", ("udp:4739 tcp:4739", "a,b")),
    networks: Form("networks", "networks and addresses of both families, with blanks or commas between them",
                   ("10.0.0.0/8, 2001:db8::/32", "192.0.2.7")),
    protocols: Form("protocols", "IP protocols by number or by name, with blanks or commas between them", ("tcp, 17",)),
    marks: Form("marks", "marks of 32 bits, after a slash the bits that count, with blanks or commas between them",
                ("5", "0x10/0xf0 7")),
    groups: Form("groups", "numbers of groups (0 to 65535) with blanks or commas between them", ("5", "5 6")),
    global_options.level: Form("level", "debug 1, info 3, notice 5, error 7, fatal 8, by number or name",
                               ("5", "debug")),
    global_options.interval: Form("seconds over 0", "seconds as above, but more than 0", ("10", "1m")),
    global_options.file_mode: Form("mode", "permissions in octal, from 0 to 777", ("600", "660")),
    global_options.umask: Form("mask", "permissions in octal, from 0 to 777", ("022", "027")),
    http.places: Form("places", "`tcp:HOST:PORT`, `tls:HOST:PORT` and `unix:PATH`, with blanks or commas between them",
                      ("tcp:127.0.0.1:4780", "tls:[::]:4780, unix:/run/ulogd/http.sock")),
    clickhouse.servers: Form("servers", "`HOST` and `HOST:PORT`, with blanks or commas between them",
                             ("localhost", "ch1:8123 [2001:db8::1]:8123")),
    clickhouse.pairs: Form("pairs", "`COLUMN=KEY`, with blanks or commas between them", ("SrcAddr=sourceAddress",)),
    clickhouse.intervals: Form("intervals", "times as above, each with or without another one behind a colon",
                               ("1m 5m", "1m:7d,1h")),
    manhole._listen: Form("address", "`tcp:HOST:PORT`; loopback where no host stands", ("tcp:127.0.0.1:5022", "5022")),
}  # fmt: skip
"""Readers of options; a reader made by `one_of` has its words as name."""


def form_name(option: Option) -> str:
    """The form of an option's value, for a table."""
    form = FORMS.get(option.read)
    if form is not None:
        return form.name
    if "|" not in option.read.__name__:
        raise LookupError(f"FORMS does not say how {option.name} is typed ({option.read.__name__})")
    choices = [f"`{word}`" for word in option.read.__name__.split("|")]
    return ", ".join(choices[:-1]) + " or " + choices[-1]


def typed_default(option: Option) -> str | None:
    """The default as a user would type it; None if there is none."""
    value = option.default
    if value is None:
        return None
    if option.read is options.octets:
        return _size(value)
    if option.read is options.share:
        return f"{value * 100:g}%"
    if option.read is manhole._listen:
        return "tcp:{}:{}".format(*value)
    if isinstance(value, bool):
        return str(int(value))
    if option.read is global_options.file_mode:
        return f"{value:o}"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size(number: int) -> str:
    for letter, shift in (("G", 30), ("M", 20), ("k", 10)):
        if number and not number % (1 << shift):
            return f"{number >> shift}{letter}"
    return str(number)


def _default(option: Option) -> str:
    if option.mandatory:
        return "*must be given*"
    shown = typed_default(option)
    if shown is None:
        return "*none*"
    return f"`{shown}`" if shown else "*empty*"


def _options(declared: Iterable[Option]) -> Iterator[str]:
    rows = [(f"`{o.name}`", form_name(o), _default(o), o.meaning) for o in declared]
    return table(("option", "form", "default", "meaning"), rows) if rows else iter(["None of its own.", ""])


# plugins


def _types(position: str, class_: type[Plugin]) -> str:
    takes, gives = type_text(class_.itype), type_text(class_.otype)
    if position == "input":
        return f"Input; gives {gives}."
    if position == "output":
        return f"Output; takes {takes}."
    return f"Filter; takes {takes}, gives {gives}."


def sample(option: Option) -> Any:
    """A value of a mandatory option: any text, or the first word that it takes."""
    try:
        return option.read("x")
    except ValueError:
        return option.read(option.read.__name__.partition("|")[0])


def _instance(class_: type[Plugin]) -> Plugin:
    """An instance with default options; mandatory options get a placeholder."""
    given = {option.name: sample(option) for option in class_.all_options() if option.mandatory}
    return class_(class_.name, options.Options(class_.all_options(), given))


def _elements(key: Key) -> str:
    shown = []
    for pen, number in key.elements:
        name = keys.element(pen, number).name
        shown.append(f"{number} {name}" if not pen else f"{pen}/{number}")
    return " or ".join(shown)


def _given(position: str, class_: type[Plugin], instance: Plugin) -> Iterator[str]:
    yield "**Keys that it gives**"
    yield ""
    found = list(instance.keys())
    if found:
        rows = [(f"`{key.name}`", key.type.name, key.unit, _elements(key)) for key in found]
        yield from table(("key", "type", "unit", "Information Element"), rows)
    if class_.open_keys:
        yield "Any Information Element that an exporter sends, by its name; see [Keys](#keys)."
        yield ""
    if position == "filter" and class_.passes:
        yield "The keys of the plugins above it reach the plugins below it too."
        yield ""
    elif position == "filter":
        yield "The keys of the plugins above it end here."
        yield ""


def _asked(instance: Plugin) -> Iterator[str]:
    yield "**Keys that it reads**"
    yield ""
    requests = instance.requests(ALL)
    if requests is ALL:
        named = {option.name for option in type(instance).all_options()}
        if "keys" in named and "table" in named:
            yield "The keys of its option `keys`, else the keys with a column in its table, else every key."
        else:
            yield "Every key that can reach it."
        yield ""
        return
    rows = []
    for request, required in requests.items():
        key = known(request.partition("@")[0]) or _of_plugins(request)
        rows.append((f"`{request}`", "yes" if required else "no", key.type.name, key.unit, _elements(key)))
    yield from table(("key", "needed", "type", "unit", "Information Element"), rows)


def _counts(counts: Iterable[Declared]) -> Iterator[str]:
    """A table of counters: name as in `stats_file`, kind, unit, meaning."""
    rows = []
    for name, label, figure in flat(counts):
        kind = f"{figure.kind}, by {label}" if label else figure.kind
        rows.append((f"`{name}`", kind, figure.unit, figure.meaning))
    yield from table(("counter", "kind", "unit", "meaning"), rows)


def _counted(class_: type[Plugin]) -> Iterator[str]:
    yield "**Counters**, beside [those of every instance](#counters-of-every-instance)"
    yield ""
    yield from _counts(class_.counts) if class_.counts else iter(["None of its own.", ""])


def _of_plugins(name: str) -> Key:
    """The key of a plugin's own, which no table has."""
    for _, _, class_ in _plugins():
        for key in _instance(class_).keys() if not issubclass(class_, Output) else ():
            if key.name == name:
                return key
    raise LookupError(f"no plugin gives {name}")


def _plugins() -> Iterator[tuple[str, str, type[Plugin]]]:
    """(position, name, class) of every built-in plugin."""
    for position, places in registry.BUILT_IN.items():
        for name in sorted(places):
            yield position, name, registry.lookup(name, position)


def _plugin(position: str, name: str, class_: type[Plugin]) -> Iterator[str]:
    instance = _instance(class_)
    yield f"### {name} ({position})"
    yield ""
    yield _types(position, class_)
    yield ""
    yield from prose(inspect.getdoc(class_) or "")
    common = {option.name for option in class_.common_options}
    yield "**Options**" + (", beside the [common ones](#options-of-every-output)" if common else "")
    yield ""
    yield from _options(option for option in class_.all_options() if option.name not in common)
    if class_.section_options:
        yield "Options of a section `[collector:WORD]`, for a word of `collectors`:"
        yield ""
        yield from _options(class_.section_options)
    if position != "output":
        yield from _given(position, class_, instance)
    if position != "input":
        yield from _asked(instance)
    yield from _counted(class_)


# sections


def _values() -> Iterator[str]:
    yield "## Forms of values"
    yield ""
    rows = []
    for form in FORMS.values():
        rows.append((form.name, form.meaning, ", ".join(f"`{example}`" for example in form.examples)))
    yield from table(("form", "meaning", "examples"), rows)
    yield "If the form of an option is a list of words, write one of them."
    yield 'A value with blanks, tabs or `=` must be in `"..."`.'
    yield ""


def _sections() -> Iterator[str]:
    yield "## Options of [global]"
    yield ""
    rows = []
    for option in global_options.GLOBAL_OPTIONS:
        repeated = isinstance(option, global_options.Repeated)
        form = form_name(option) + (", any number of times" if repeated else "")
        rows.append((f"`{option.name}`", form, _default(option), option.meaning))
    yield from table(("option", "form", "default", "meaning"), rows)
    yield "## Options of [manhole]"
    yield ""
    yield "The ssh server runs if the configuration has this section."
    yield ""
    yield from _options(manhole.OPTIONS)
    yield "## Options of [http]"
    yield ""
    yield "The HTTP server runs if the configuration has this section ([its addresses](api.md))."
    yield ""
    yield from _options(http.OPTIONS)
    yield "## Options of [alert:NAME]"
    yield ""
    yield "Each section is one rule ([alerts](alerts.md))."
    yield ""
    yield from _options(rules.OPTIONS)
    yield "## Options of every output"
    yield ""
    yield f"The defaults of {' and '.join(f'`{name}`' for name in config.INHERITED)} can be set in `[global]`."
    yield ""
    yield from _options(Output.common_options)


def _counters() -> Iterator[str]:
    yield "## Counters of every instance"
    yield ""
    yield "`stats_file` contains the counters of each instance; the further counters of a plugin are listed"
    yield "with the plugin."
    yield "A counter only grows while the service runs; a gauge is a current value."
    yield "`dropped` (rows given up), `lost` (data that never arrived) and `errors` (faults) are counted by reason."
    yield "Other faults are counted in `errors` under the name of their exception."
    yield ""
    yield from _counts(NUMBERS)
    for kind in (Input, Filter, Output):
        yield f"Of every {kind.__name__.lower()}:"
        yield ""
        yield from _counts(kind.common_counts)


def _metrics() -> Iterator[str]:
    yield "## Metrics"
    yield ""
    yield "The [HTTP API](api.md) gives these metrics at `/metrics`. Octets are called bytes; names of"
    yield "counters end in `_total`."
    yield "The label `reason` has the reasons of `dropped`, `lost` and `errors`, as in the tables of counters."
    yield "The metrics `process_...` come from prometheus_client: memory, processor time and descriptors of"
    yield "the process."
    yield ""
    own = ("instance", "plugin")
    found = {metric.name: (metric, ()) for metric in metric_names.SERVICE}
    declared = [class_.all_counts() for _, _, class_ in _plugins()]
    for metric in (m for counts in (NUMBERS, *declared) for m in metric_names.metrics(counts)):
        found.setdefault(metric.name, (metric, own))
    rows = []
    for metric, before in found.values():
        labels = ", ".join(f"`{label}`" for label in (*before, *metric.labels))
        rows.append((f"`{metric.name}`", metric.kind, labels, metric.text))
    yield from table(("metric", "kind", "labels", "meaning"), rows)


def _overview() -> Iterator[str]:
    yield "## Plugins"
    yield ""
    rows = []
    for position, name, class_ in _plugins():
        kind = f"{position}, adds up" if issubclass(class_, Aggregator) else position
        takes = "" if issubclass(class_, Input) else type_text(class_.itype)
        gives = "" if issubclass(class_, Output) else type_text(class_.otype)
        summary = next(prose(inspect.getdoc(class_) or ""))
        rows.append((f"[{name}](#{name.lower()}-{position})", kind, takes, gives, summary))
    yield from table(("plugin", "place", "takes", "gives", "what it does"), rows)
    for position, name, class_ in _plugins():
        yield from _plugin(position, name, class_)


def _keys() -> Iterator[str]:
    yield "## Keys"
    yield ""
    yield "A key is requested by its name; a key of the same name or of the same Information Element answers"
    yield "the request."
    yield ""
    yield f"- IANA's {len(keys.iana)} Information Elements have their own names, such as `octetDeltaCount`."
    yield "- The reverse of an element (RFC 5103) has `reverse` before its name, such as `reverseOctetDeltaCount`."
    yield "- An enterprise's element has its own name, and `e<pen>.<name>` where IANA uses that name too."
    yield "- An element without a name is `e<pen>id<id>`; its value is octets."
    yield "- `name#2` is the second field of that name in a record."
    yield "- `key@instance` is the key of that instance, even if a nearer instance gives a key of the same name."
    yield ""
    yield "### Keys of a collected record's context"
    yield ""
    yield from table(("key", "type"), [(f"`{key.name}`", key.type.name) for key in CONTEXT])
    yield "### Addresses without a family"
    yield ""
    yield "A row has the element of its own family; `reverse` before the name is the reverse direction."
    yield ""
    rows = [
        (f"`{name}`", *(keys.element(*element).name for element in key.elements))
        for name, key in keys.neutral.items()
        if not name.startswith("reverse")
    ]
    yield from table(("key", "IPv4", "IPv6"), rows)
    yield "### Conversions"
    yield ""
    yield "If the key itself is missing, it is computed from other keys: the first available ones in this list."
    yield ""
    rows = []
    for target, ways in conversions.BY_TARGET.items():
        rows.append((f"`{target}`", "<br>".join(" and ".join(f"`{i}`" for i in way.inputs) for way in ways)))
    yield from table(("key", "made of"), rows)


def _templates() -> Iterator[str]:
    yield "## Templates of the exporter"
    yield ""
    yield "These are the fields of whole records of the output IPFIX, with their Information Elements and octets."
    yield "A record without a value has another template, without this field."
    yield "A template id always means the same fields, also after a restart."
    yield ""
    rows = []
    for variant, what in (
        (0, "IPv4"), (uniflow.IPV6, "IPv6"), (uniflow.NAT, "IPv4, translated"), (uniflow.ICMP, "ICMP"),
        (uniflow.IPV6 | uniflow.ICMP, "ICMPv6"),
    ):  # fmt: skip
        template = uniflow.template(variant)
        fields = [f"{keys.element(f.pen, f.ident).name} ({f.ident}, {f.length})" for f in template.fields]
        rows.append((str(template.ident), what, ", ".join(fields)))
    yield from table(("template", "records", "fields"), rows)


def text() -> str:
    """The whole reference."""
    lines = [
        "# Reference", "", f"Made by `{COMMAND}` from what the program itself declares.",
        "`twistd ulogd --info PLUGIN` prints the same for one plugin, also for plugins of other packages.", "",
    ]  # fmt: skip
    for section in (commands, _values, _sections, _counters, _metrics, _overview, _templates, _keys):
        lines += section()
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Print it."""
    sys.stdout.write(text())


if __name__ == "__main__":
    main()
