"""Rows as text or files, and the way to a file, a part file that gets its name when whole, or a socket.

In come batches of an output; out go lines and blocks of octets, written in order, kept while the disk or the peer takes
none, and counted when given up. `TextOutput` is the output on top of it, `FileWriter` and `PartFile` are for files of
other kinds.
"""

from ulogd_tw.writing.file_writer import FileWriter
from ulogd_tw.writing.part_file import PartFile
from ulogd_tw.writing.text import TextOutput

__all__ = ["FileWriter", "PartFile", "TextOutput"]
