"""How rows that PostgreSQL refuses are found, and to whom the password is shown."""

from types import SimpleNamespace

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given

try:
    import psycopg
    from psycopg import errors

    from ulogd_tw.storing import postgresql_connection
    from ulogd_tw.storing.postgresql_connection import HIDDEN, guarded, safe
    from ulogd_tw.storing.postgresql_copy import about_row, write
except ModuleNotFoundError:
    skip = "install: psycopg"


def refusal(context):
    """The server's error for a row of COPY, with the line in its context."""

    class Refusal(errors.NumericValueOutOfRange):
        diag = SimpleNamespace(context=context, message_primary="out of range")

    return Refusal("out of range")


class Server:
    """What a server does with COPY: it takes rows in order, and names the line of the first bad one, or not."""

    def __init__(self, bad, context="COPY flows9, line {}, column x7"):
        self.bad, self.context = bad, context
        self.taken, self.saved, self.sent = [], [], 0

    def execute(self, statement):
        if statement.startswith("SAVEPOINT"):
            self.saved = list(self.taken)
        elif statement.startswith("ROLLBACK"):
            self.taken = list(self.saved)

    def send(self, start, stop):
        self.sent += stop - start
        for row in range(start, stop):
            if row in self.bad:
                raise refusal(self.context.format(row - start + 1))
            self.taken.append(row)


class WriteTests(SynchronousTestCase):
    """`write`, with a server that refuses some rows."""

    def check(self, bad, n, context):
        server, refused = Server(bad, context), []
        write(server, n, server.send, lambda row, error: refused.append(row), "flows9")
        self.assertEqual(sorted(bad), sorted(refused))
        self.assertEqual([row for row in range(n) if row not in bad], server.taken)
        return server.sent

    @given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
    def test_every_other_row(self, case):
        """Exactly the bad rows are left out, in any language, and where no line is named."""
        n, bad = case
        for context in (
            "COPY flows9, line {}, column x7: 3",
            "a 7\nCOPY flows9, Zeile {}",
            "PL/pgSQL function f()",
            "COPY flows9, line 0",
        ):
            self.check(bad, n, context)

    def test_effort(self):
        """Rows are sent a few times at most, however many are bad."""
        n = 20_000
        self.assertLess(self.check({7}, n, "COPY flows9, line {}"), 3 * n)
        self.assertLess(self.check(set(range(0, n, 100)), n, "COPY flows9, line {}"), 12 * n)

    def test_other_errors(self):
        """An error that is not about a row ends it."""
        server = Server(())

        def send(start, stop):
            raise errors.UndefinedTable("no table")

        self.assertRaises(errors.UndefinedTable, write, server, 3, send, None, "flows9")
        self.assertFalse(about_row(errors.InvalidBinaryRepresentation()))
        self.assertTrue(about_row(errors.UniqueViolation()))


class PasswordTests(SynchronousTestCase):
    """A server that asks for the password in clear text gets it over a safe way only."""

    def test_ways(self):
        """Unix sockets and verified certificates are safe; a name, an address, or TLS with anybody is not."""
        for parameters, expected in (
            ({"host": "/run/postgresql"}, True), ({"host": "db"}, False), ({"host": "127.0.0.1"}, False), ({}, False),
            ({"host": "db", "sslmode": "require"}, False), ({"host": "db", "sslmode": "verify-ca"}, True),
            ({"host": "/run/postgresql,db"}, False), ({"host": "/tmp", "hostaddr": "10.0.0.1"}, False),
        ):  # fmt: skip
            self.assertEqual(expected, safe(parameters), parameters)
            made = guarded(parameters | {"password": "p"})
            self.assertEqual(None if expected else HIDDEN, made.get("require_auth"))

    def test_old_library(self):
        """A libpq that cannot refuse is not given a password for an unsafe way."""
        self.patch(postgresql_connection.pq, "version", lambda: 150018)
        self.assertRaises(psycopg.NotSupportedError, guarded, {"host": "db", "password": "p"})
        self.assertEqual({"host": "db", "passfile": "/dev/null"}, guarded({"host": "db"}))
        self.assertIn("password", guarded({"host": "/run/postgresql", "password": "p"}))
