"""Libraries that only some stacks need: whether they are there, and the command that brings them."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

_DEBIAN = {"maxminddb": "python3-maxminddb", "pymysql": "python3-pymysql", "cffi": "python3-cffi"}
"""Names of Debian's packages."""
_EXTRAS = {
    "psycopg": "postgresql", "lz4": "clickhouse", "zstandard": "clickhouse", "confluent_kafka": "kafka",
    "pyarrow": "kafka",
}  # fmt: skip
"""Extras of this package, for libraries that need more than themselves."""
_TOGETHER = {"psycopg": "'psycopg[binary]'", "confluent_kafka": "confluent-kafka"}
"""What brings a library with all that it needs."""


def is_there(library: str) -> bool:
    """Whether it can be imported."""
    return find_spec(library) is not None


def install(library: str) -> str:
    """The command that installs a library where this program runs: pipx, Debian's Python, or any other one."""
    if os.path.exists(os.path.join(sys.prefix, "pipx_metadata.json")):
        return f"pipx inject ulogd_tw {_TOGETHER.get(library, library)}"
    if sys.prefix == sys.base_prefix and library in _DEBIAN:
        return f"apt-get install {_DEBIAN[library]}"
    wanted = f"'ulogd_tw[{_EXTRAS[library]}]'" if library in _EXTRAS else library
    return f"{sys.executable} -m pip install {wanted}"
