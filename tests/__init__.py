"""Tests of ulogd_tw: `make test` runs all of them, `make unit` those that need no root, no sockets and no peers."""

from ulogd_tw.core.counters import refuse_undeclared

refuse_undeclared()
