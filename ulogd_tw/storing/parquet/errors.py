"""Why a store takes no rows now. All are OSErrors, as those of its file system are."""

from __future__ import annotations

import errno
from pathlib import Path


class StoreError(OSError):
    """A reason, and what to do; `reason` is the word that it is counted under."""

    reason = ""
    remedy = ""


class StoreGone(StoreError):
    """The directory of a store is not there; it is not made again, since its file system may not be mounted."""

    reason = "gone"
    remedy = "mount its file system, or make the directory again"

    def __init__(self, text: str, remedy: str = remedy) -> None:
        super().__init__(errno.ENOENT, text)
        self.remedy = remedy


class StoreLocked(StoreError):
    """Another process or output writes to the directory."""

    reason = "locked"
    remedy = "give each PARQUET a directory of its own"

    def __init__(self, directory: Path) -> None:
        super().__init__(errno.EAGAIN, f"another output writes to {directory}")


class StoreFull(StoreError):
    """The file system has less room than `min_free`."""

    reason = "full"
    remedy = "make room, or let retain= or max_size= delete old rows"

    def __init__(self, directory: Path, share: float) -> None:
        super().__init__(errno.ENOSPC, f"less than {share:.3g} of the file system of {directory} is free")


class StoreStrange(StoreError):
    """store.json is not one of this release."""

    reason = "strange"
    remedy = "move it away if the files beside it are to stay in the store"

    def __init__(self, error: ValueError) -> None:
        super().__init__(errno.EINVAL, str(error))
