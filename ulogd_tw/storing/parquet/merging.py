"""The service's side of `merge_process`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ulogd_tw.storing.parquet import merge_process
from ulogd_tw.storing.parquet.merge_process import TEMPORARY

__all__ = ["TEMPORARY", "result", "start"]

_BEGIN = "import runpy, sys; sys.path[:] = sys.argv[3:]; runpy.run_path(sys.argv[2])['main'](int(sys.argv[1]))"
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "LANG": "C.UTF-8"}


def start(files: Sequence[Path], part: Path, order: Sequence[str], compression: str) -> subprocess.Popen[bytes]:
    """A process that merges files into `part`, which `result` awaits. Raises OSError."""
    path = [os.path.abspath(place) for place in sys.path]
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BEGIN, str(os.getpid()), os.path.abspath(merge_process.__file__), *path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT | kept,
    )
    job = {
        "files": [os.fspath(file) for file in files],
        "part": os.fspath(part),
        "order": list(order),
        "compression": compression,
    }
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has died, and `result` says why
        pass
    return process


def result(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process; returns the rows of the new file. Raises OSError with what it has said."""
    out, said = process.communicate()
    if process.returncode or not out.strip().isdigit():
        lines = (said or out).decode("utf-8", "replace").strip().splitlines()
        raise OSError(f"the merge ended with {process.returncode}: {lines[-1] if lines else 'it said nothing'}")
    return int(out)
