"""Terms that no row can make true, beside all rows that there can be."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.match.test_grammar import SERVICES, batch_of, rows_of
from ulogd_tw.match import parse
from ulogd_tw.match.never import never


def odd(text):
    """The columns of the terms that are never true."""
    return [column for column, _ in never(parse(text, {"some": ["300", "400"]}, SERVICES.get))]


class NeverTests(SynchronousTestCase):
    """`never`."""

    def test_every_number(self):
        """Of a key of one octet: exactly the terms that select none of its 256 values are named."""
        batch = batch_of([{"ipTTL": value} for value in range(256)])
        numbers = (-1, 0, 1, 128, 254, 255, 256, 300, 1 << 64)
        terms = [f"ttl {sign} {number}" for sign in ("=", "!=", "<", "<=", ">", ">=") for number in numbers[1:]]
        terms += [f"ttl {low}-{high}" for low in numbers[1:] for high in numbers if high >= low]
        terms += ["ttl in [300 7]", "ttl in [300 400-500]", "ttl = 0.5", "ttl < 0.5", "ttl > 255.5"]
        some = 0
        for text in terms:
            if "0.5" in text and "=" in text:
                continue  # between two numbers that there are
            self.assertEqual(not rows_of(text, batch), bool(odd(text)), text)
            some += bool(odd(text))
        self.assertTrue(10 < some < len(terms) - 10, some)

    def test_places(self):
        """Each such term at its place, once; also within others, and of words with two keys."""
        for text, columns in (
            ("port 99999", [1]), ("port 65535", []), ("src port http or dst port > 65535", [22]),
            ("not (tos 256 and proto 6)", [6]), ("as 4294967296", [1]), ("as 4294967295", []), ("vlan 65536", [1]),
            ("octets > 18446744073709551615", [1]), ("octets > 18446744073709551614", []), ("ttl @some", [1]),
            ("sourceTransportPort 70000", [1]), ("bps > 100000000000000000000", []), ("flags S", []), ("any", []),
            ("host 192.0.2.1 and in if 4294967296", [23]),
        ):  # fmt: skip
            self.assertEqual(columns, odd(text), text)
