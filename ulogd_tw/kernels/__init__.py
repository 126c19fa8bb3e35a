"""Loops in C where NumPy needs many passes. Each has a NumPy twin with the same result, in use where it is missing.

`lib` and `ffi` are those of the compiled extension, None without it. The environment variable ``ULOGD_TW_KERNELS`` is
``on`` (the default), ``off``, or the path of another build of the extension, for its tests. The kernels read and write
memory of NumPy that is handed to them with its size, and nothing else; `rest` asks the operating system about sockets.
"""

from __future__ import annotations

import os
import zlib
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

__all__ = ["active", "ffi", "lib", "why_not"]

SUBJECTS = ("walk", "columns", "rows", "table", "packets", "netlink", "rest")
"""What the extension has kernels for: one file in C each."""

lib: Any = None
ffi: Any = None
_why_not = ""


def _load(path: str) -> tuple[Any, Any]:
    """Another build of the extension."""
    loader = ExtensionFileLoader("ulogd_tw.kernels._kernels", path)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module.ffi, module.lib


def _outdated() -> bool:
    """Whether the extension was compiled from other declarations than those that lie beside it."""
    declarations = Path(__file__).with_name("kernels.h")
    return declarations.exists() and getattr(lib, "UT_FORM", 0) != zlib.crc32(declarations.read_bytes())


if (_asked := os.environ.get("ULOGD_TW_KERNELS") or "on") == "off":
    _why_not = "ULOGD_TW_KERNELS=off"
elif _asked != "on":
    ffi, lib = _load(_asked)
else:
    try:
        from ulogd_tw.kernels._kernels import ffi, lib  # type: ignore[no-redef]
    except ImportError:
        _why_not = "not compiled: apt-get install gcc python3-dev, and install ulogd_tw anew"
    else:
        if _outdated():
            ffi = lib = None
            _why_not = "compiled from other sources: compile them anew (python setup.py build_ext --inplace)"


def active() -> tuple[str, ...]:
    """The subjects that kernels are used for; none without the extension."""
    return SUBJECTS if lib is not None else ()


def why_not() -> str:
    """Why there are no kernels, and what to do about it; empty where there are."""
    return _why_not
