"""The compression of inserts on their way: HTTP's Content-Encoding, as ClickHouse takes it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from ulogd_tw.storing.clickhouse.native import Buffer

LIBRARIES = {"lz4": "lz4", "zstd": "zstandard"}
"""The library for each way that Python does not have itself."""
WAYS = ("none", "lz4", "zstd", "gzip")
_FASTEST = 1
_GZIP = 16 + zlib.MAX_WBITS


def compressed(body: Sequence[Buffer], way: str) -> tuple[Sequence[Buffer], str]:
    """A body in pieces, compressed, and the name of its encoding."""
    if way == "none":
        return body, ""
    whole = b"".join(body)
    if way == "lz4":
        import lz4.frame

        return [lz4.frame.compress(whole, compression_level=0, block_linked=False)], way
    if way == "zstd":
        import zstandard

        return [zstandard.ZstdCompressor(level=_FASTEST).compress(whole)], way
    made = zlib.compressobj(_FASTEST, wbits=_GZIP)
    return [made.compress(whole) + made.flush()], way
