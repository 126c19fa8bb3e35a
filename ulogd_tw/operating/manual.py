"""Man pages and completion scripts, made from the tree of commands and from the reference.

    python -m ulogd_tw.operating.manual DIR

writes ``DIR/man/ulogd-tw.8``, ``ulogd-tw.conf.5`` and a page for each plugin (``ulogd-tw-collector.5``), and
``DIR/completion`` for bash and zsh. It needs the packages argparse-manpage and shtab, an installed program neither.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TextIO

from ulogd_tw import __version__
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.operating import roff
from ulogd_tw.operating.commands import tree

SCRIPTS = {"bash": "ulogd-tw", "zsh": "_ulogd-tw"}
"""Shell -> name of its script, which is the one under which the shell looks for it."""
_SOURCE = f"ulogd_tw {__version__}"
_SUMMARY = "meter, collect, aggregate and store network flows"
_FILES = (
    ("/etc/ulogd-tw.conf", "The configuration; without it that of ulogd2, /etc/ulogd.conf, is read."),
)  # fmt: skip


class NotMade(UlogdError):
    """A script or a page that cannot be made here."""


# completion


def completion(given: argparse.Namespace, out: TextIO) -> int:
    """Print the script of a shell: that of the package, else one made now."""
    path = _packaged(given.shell)
    out.write(path.read_text("utf-8") if path else script(given.shell))
    return 0


def _packaged(shell: str) -> Path | None:
    """The script that a package brought."""
    wanted = f"share/ulogd_tw/completion/{SCRIPTS[shell]}"
    try:
        files = metadata.files("ulogd_tw") or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.as_posix().endswith(wanted))
    return next((path for path in found if path.exists()), None)


def script(shell: str) -> str:
    """The completion script for a shell. Raises `NotMade` where shtab is not there."""
    try:
        import shtab
    except ImportError:
        raise NotMade("this installation has no completion scripts; to make them: pip install shtab") from None
    from ulogd_tw import registry

    whole = tree.parser()
    for parser in (whole, *tree.subparsers(whole).values()):
        for action in parser._actions:
            if action.metavar == "PLUGIN":
                action.choices = sorted({name for table in registry.BUILT_IN.values() for name in table})
            elif action.metavar == "FILE" or action.dest == "socket":
                action.complete = shtab.FILE
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY
    return shtab.complete(whole, shell=shell)


# man pages


def date() -> str:
    """The day of the making, or that of SOURCE_DATE_EPOCH, so that packages can be made again alike."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))


def pages() -> dict[str, str]:
    """The name of each page's file, and its text."""
    from ulogd_tw.operating import reference

    sections = list(_sections(reference.text()))
    plugins: dict[str, list[list[str]]] = {}
    for title, lines in sections:
        if plugin := re.fullmatch(r"(\w+) \((input|filter|output)\)", title):
            plugins.setdefault(plugin[1], []).append(lines)
    made = {"ulogd-tw.8": command_page(sorted(plugins)), "ulogd-tw.conf.5": _configuration(sections, sorted(plugins))}
    for name, parts in plugins.items():
        made[f"{page_of(name)}.5"] = _plugin(name, parts)
    return made


def page_of(plugin: str) -> str:
    """The name of a plugin's page."""
    return f"ulogd-tw-{plugin.lower()}"


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """The title of each section of the reference and its lines, of subsections apart."""
    for part in re.split(r"^(?=#{1,3} )", text, flags=re.M):
        head, _, rest = part.partition("\n")
        if head.startswith("#"):
            yield head.lstrip("# "), rest.splitlines()


def command_page(plugins: list[str]) -> str:
    """``ulogd-tw(8)``. Raises `NotMade` where argparse-manpage is not there."""
    try:
        from argparse_manpage.manpage import Manpage
    except ImportError:
        raise NotMade("man pages are made by argparse-manpage: pip install argparse-manpage") from None
    whole = tree.parser()
    whole.epilog = None
    for parser in tree.subparsers(whole).values():
        parser.epilog = None
    data = {"manual_section": 8, "manual_title": "ulogd_tw", "project_name": "ulogd_tw", "version": __version__,
            "description": _SUMMARY, "date": date()}  # fmt: skip
    found = str(Manpage(whole, data, format="pretty"))
    found = re.sub(r"^\.TH .*", f'.TH ULOGD\\-TW 8 "{date()}" "{roff.escaped(_SOURCE)}" "ulogd_tw"', found)
    return roff.tidy(found + "\n".join(_ending(plugins)) + "\n")


def _ending(plugins: list[str]) -> Iterator[str]:
    yield ".SH SIGNALS"
    yield from roff.text(
        "SIGHUP reopens files, SIGUSR2 makes inputs give their present state, SIGTERM ends the service in order."
    )
    yield ".SH EXIT STATUS"
    for status in tree.STATUS.partition(": ")[2].rstrip(".").split("; "):
        number, _, meaning = status.partition(" ")
        yield from (".TP", f"\\fB{number}\\fP", *roff.text(meaning[0].upper() + meaning[1:] + "."))
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from (".TP", f"\\fB{roff.escaped(path)}\\fP", *roff.text(meaning))
    yield from _see_also(["ulogd-tw.conf", *map(page_of, plugins)])


def _see_also(names: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    for name in names:
        end = "" if name == names[-1] else ","
        yield f".BR {roff.escaped(name)} ({'8' if name == 'ulogd-tw' else '5'}){end}"


def _configuration(sections: list[tuple[str, list[str]]], plugins: list[str]) -> str:
    """``ulogd-tw.conf(5)``: the form of the file, and what does not belong to one plugin."""
    lines = list(roff.body(_FORM.splitlines()))
    for title, found in sections:
        if title.startswith(("Options of [", "Options of every", "Forms of", "Counters of every", "Plugins")):
            lines += [f".SH {roff.escaped(title.upper())}", *_trimmed(roff.body(found))]
    lines += _see_also(["ulogd-tw", *map(page_of, plugins)])
    return roff.tidy(roff.page("ulogd-tw.conf", 5, "configuration of ulogd-tw(8)", date(), _SOURCE, lines))


_FORM = """\
# Description
The configuration has sections, and in each of them lines `option=value`.
A section begins with its name in brackets, such as `[global]`, and reaches to the next one.
A line that begins with `#` is a comment.
A value with blanks, tabs or `=` in it stands in `"..."`.

A line `stack=` in `[global]` chains plugins: an input, then filters, then an output, each as `ID:PLUGIN`.
The section with the name of an id has the options of that instance.

`ulogd-tw check` finds every mistake, and opens nothing.
# Example
    [global]
    stack=col1:COLLECTOR,json1:JSON
    [col1]
    listen="udp:4739"
    [json1]
    file="/var/log/flows.json"
"""


def _plugin(name: str, parts: list[list[str]]) -> str:
    """The page of a plugin, at all of its places in a stack."""
    summary = next(line for line in parts[0][2:] if line.strip() and not re.match(r"(Input|Filter|Output);", line))
    lines: list[str] = []
    for part in parts:
        lines += [".SH DESCRIPTION", *_trimmed(roff.body(part))]
    lines += _see_also(["ulogd-tw", "ulogd-tw.conf"])
    short = re.sub(r"[`*]", "", summary).rstrip(".")
    short = f"plugin {name} of ulogd-tw(8): {short[0].lower()}{short[1:]}"
    return roff.tidy(roff.page(page_of(name), 5, short, date(), _SOURCE, lines))


def _trimmed(lines: Iterator[str]) -> list[str]:
    """Without a paragraph that begins or ends with nothing."""
    found = list(lines)
    while found and found[0] == ".PP":
        del found[0]
    return found


def write(folder: Path) -> int:
    """Write everything below a directory; the number of files."""
    files = {f"man/{name}": text for name, text in pages().items()}
    files |= {f"completion/{name}": script(shell) for shell, name in SCRIPTS.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return len(files)


def main() -> None:
    """Write man pages and scripts below the directory on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m ulogd_tw.operating.manual DIR")
    try:
        print(f"{write(Path(sys.argv[1]))} files below {sys.argv[1]}")
    except NotMade as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
