"""``ulogd-tw examples``: configurations, schemas, alert rules and dashboards that come with the program.

They are found in a source tree, and where the program came as a package.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import TextIO

from ulogd_tw.core.keys import nearest
from ulogd_tw.core.plurals import plural
from ulogd_tw.operating.commands import tree

_TREE = Path(__file__).resolve().parents[2] / "etc"
"""Where they lie in a source tree."""
_SHARED = "share/ulogd_tw/"
"""Where a package puts them, below the prefix of its Python."""
_KINDS = (".conf", ".sql", ".service", ".yaml", ".yml", ".json", "ulogd-tw")


def main(argv: list[str], out: TextIO | None = None) -> int:
    """The command with these arguments."""
    return run(parser().parse_args(argv), out or sys.stdout)


def run(given: argparse.Namespace, out: TextIO) -> int:
    """List the examples, print one, or write one or all of them; the exit status."""
    found = examples()
    if not given.name and not given.all:
        _list(found, given.json, out)
        return 0
    try:
        if given.all:
            return _write_all(found, Path(given.all), out)
        if given.name not in found:
            near = nearest(given.name, found)
            hint = f"did you mean {near}?" if near else "ulogd-tw examples lists them"
            print(f"ulogd-tw examples: there is no {given.name}; {hint}", file=sys.stderr)
            return 1
        if given.file:
            _write(found[given.name], Path(given.file))
            print(f"{given.file} is written", file=out)
        else:
            out.write(found[given.name].read_text("utf-8"))
    except OSError as error:
        print(f"ulogd-tw examples: {error.filename}: {error.strerror}; {_advice(error)}", file=sys.stderr)
        return 2
    return 0


def _list(found: dict[str, Path], as_json: bool, out: TextIO) -> None:
    """Name and title of each."""
    if as_json:
        listed = [{"name": name, "file": str(path), "title": _title(path)} for name, path in found.items()]
        print(json.dumps(listed, indent=1), file=out)
        return
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:{width}}  {_title(path)}", file=out)


def _advice(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if isinstance(error, FileExistsError):
        return "choose another name, since an existing file is kept"
    return "choose a directory that exists, and that you may write to"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return tree.of("examples")


def examples() -> dict[str, Path]:
    """Name -> file, in the order of the names: ``ulogd.conf``, ``examples/nat-log.conf``, ``sql/mysql/flows.sql``."""
    if (_TREE / "ulogd.conf").exists():
        found = {path.relative_to(_TREE).as_posix(): path for path in _TREE.rglob("*") if path.is_file()}
    else:
        found = dict(_packaged())
    return {name: found[name] for name in sorted(found) if name.endswith(_KINDS)}


def _packaged() -> list[tuple[str, Path]]:
    try:
        files = metadata.files("ulogd_tw") or []
    except metadata.PackageNotFoundError:
        files = []
    found = []
    for file in files:
        _, mark, name = file.as_posix().partition(_SHARED)
        if mark:
            found.append((name, Path(str(file.locate()))))
    return found


def _title(path: Path) -> str:
    """The first sentence of a file's comment, or as much of it as fits into a line; of JSON its description."""
    if path.suffix == ".json":
        found = json.loads(path.read_text("utf-8"))
        return f"{found['title']}: {found['description']}"
    comment = [line.lstrip("#- ") for line in path.read_text("utf-8").split("\n\n")[0].splitlines() if line[:1] in "#-"]
    return textwrap.shorten(" ".join(comment).split(". ")[0], 90, placeholder=" ...")


def _write(source: Path, to: Path) -> None:
    """A copy. FileExistsError where there is such a file."""
    with open(to, "x", encoding="utf-8") as file:
        file.write(source.read_text("utf-8"))


def _write_all(found: dict[str, Path], folder: Path, out: TextIO) -> int:
    status = 0
    for name, path in found.items():
        to = folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(path, to)
        except FileExistsError:
            print(f"ulogd-tw examples: {to} exists and is kept", file=sys.stderr)
            status = 1
    print(f"{plural(len(found), 'file')} in {folder}", file=out)
    return status
