"""Builds the extension ``ulogd_tw.kernels._kernels``: setup.py hands `extension` to setuptools.

Without a C compiler, or without the headers of Python, the installation goes on, and NumPy does the work.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCES = ("walk.c", "columns.c", "rows.c", "table.c", "packets.c", "netlink.c", "rest.c")
"""One file a subject."""


def extension(root: Path, flags: tuple[str, ...] = ()) -> FFI:
    """The description of the extension; `root` is the folder with setup.py, `flags` go to compiler and linker."""
    declarations = (HERE / "kernels.h").read_text("ascii")
    found = FFI()
    form = zlib.crc32(declarations.encode())
    found.cdef(f"{declarations}\n#define UT_FORM {form}")
    found.set_source(
        "ulogd_tw.kernels._kernels",
        f'#include <stdint.h>\n#include "kernels.h"\n#define UT_FORM {form}\n',
        sources=[str((HERE / name).relative_to(root)) for name in SOURCES],
        depends=[str((HERE / name).relative_to(root)) for name in ("kernels.h", "octets.h")],
        include_dirs=[str(HERE.relative_to(root))],
        extra_compile_args=["-O3", "-std=gnu11", "-fno-strict-aliasing", *flags],
        extra_link_args=list(flags),
        py_limited_api=True,
        optional=True,
    )
    return found
