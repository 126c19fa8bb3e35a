"""The files of the page: those of this package, and the script of plotly, each compressed once."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
PLOTLY = "plotly.min.js"
"""The name of plotly's script in the page."""
_FOLDER = "page"


class NoFile(Exception):
    """There is no such file; the text says what to do."""


@dataclass(frozen=True)
class File:
    """One file: its media type, its octets as they are and in gzip's format, and its entity tag."""

    kind: str
    plain: bytes
    zipped: bytes
    tag: str


class Files:
    """The files by name, each read and compressed at its first use."""

    def __init__(self) -> None:
        self._found: dict[str, File] = {}

    def get(self, name: str) -> File:
        """One of them. It may take some tenths of a second, once. Raises `NoFile`."""
        if name not in self._found:
            self._found[name] = _made(name)
        return self._found[name]

    def has(self, name: str) -> bool:
        """Whether it is at hand already."""
        return name in self._found


def names() -> list[str]:
    """The files of this package."""
    return sorted(file.name for file in resources.files(__package__).joinpath(_FOLDER).iterdir())


def plotly() -> Path | None:
    """Plotly's script; None without the package."""
    found = importlib.util.find_spec("plotly")
    for place in found.submodule_search_locations or () if found is not None else ():
        script = Path(place, "package_data", PLOTLY)
        if script.is_file():
            return script
    return None


def plotly_version() -> str:
    """The version of the Python package, whose script the page takes; empty without it."""
    return metadata.version("plotly") if plotly() is not None else ""


def _made(name: str) -> File:
    if name == PLOTLY:
        script = plotly()
        if script is None:
            raise NoFile("plotly is missing, so nothing can be drawn: pip install 'ulogd_tw[console]'")
        octets = script.read_bytes()
    elif name in names():
        octets = resources.files(__package__).joinpath(_FOLDER, name).read_bytes()
    else:
        raise NoFile(f"the console has no file {name}")
    kind = KINDS.get(Path(name).suffix, "application/octet-stream")
    return File(kind, octets, gzip.compress(octets, 6, mtime=0), f'"{hashlib.sha256(octets).hexdigest()[:20]}"')
