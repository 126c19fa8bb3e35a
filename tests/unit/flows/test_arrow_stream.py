"""Arrow's IPC format: octets of the specification, and octets that another program has read."""

import base64
import struct
import zlib

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.flows import arrow_stream

COLUMNS = [("n", "unsigned"), ("s", "signed"), ("f", "float"), ("b", "boolean"), ("t", "time"), ("x", "text")]
ROWS = [[1, -5, 1.5, True, 1_780_000_000_000, "äö"], [None] * 6, [2**64, 7, 2.5, False, 0, ""]]


class FormatTests(SynchronousTestCase):
    """The messages of a stream."""

    def test_messages(self):
        """Each message has a continuation mark, its metadata in whole 8 octets, and a body in whole 8 octets."""
        data = arrow_stream.schema(COLUMNS) + arrow_stream.rows(COLUMNS, ROWS)
        mark, length = struct.unpack_from("<Ii", data)
        self.assertEqual((0xFFFFFFFF, 0), (mark, (8 + length) % 8))
        mark, second = struct.unpack_from("<Ii", data, 8 + length)
        self.assertEqual(0xFFFFFFFF, mark)
        self.assertEqual(0, (len(data) - 16 - length - second) % 8)
        self.assertEqual(bytes.fromhex("ffffffff00000000"), arrow_stream.END)

    def test_read_by_pyarrow(self):
        """These octets were read by pyarrow 26.0.1, with its full validation.

        It gave the types uint64, int64, double, bool, timestamp[ms, tz=UTC], string, and the values of `ROWS`; of the
        sum beyond 64 bits the greatest number.
        """
        octets = arrow_stream.schema(COLUMNS) + arrow_stream.rows(COLUMNS, ROWS) + arrow_stream.END
        self.assertEqual(zlib.decompress(base64.b64decode(_READ)), octets)


_READ = """
eNqtU7FKA0EQfXvZS44jQoRDtkxhYWFpKXhgCj9AwTJYiFUIaJFPsEyZysrC0kL8gfyKHxGwWGc2s2ZvZMEiA+92hrfzdmZ3znvvXQGM
AAzh0OCI/Ir8rjFvYYipgsffSrg+YWWACWFD/gfhltCEPEe7RzgMu4dB55jgQgSYcncGq1rxSQqLTP45YSw1mbpbZxWqt7J7q8PWI9xc
X4b46T919fN13WXyT9O6euoC6ZZYhWUL0bnP6JylOsXf/qy8Qpv0x+vjHvSQ6M0INB5+afLz8S6rC/cUm64pZuUGdXL/bF/J3Byo85Bw
Ttax4k8U3yr+SvFTxT+oeK7ihcpfKn6V/A9sb78zkr70rl+j+t9XXKo4mheL/LfEkR+o/K1tLroqti0z5+F5Mn/Rhyo9m2D9uv6MdfH6
A4YbOAA=
"""
