"""What docs/store.md says of reading the files works as printed."""

import re
from pathlib import Path

import duckdb
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import COLUMNS, NOON, flows, writer
from ulogd_tw.core.keys import known
from ulogd_tw.storing.stored_columns import StoredColumn

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "store.md"


class DocumentTests(SynchronousTestCase):
    """The statements for DuckDB."""

    def test_duckdb(self):
        """Macros, view and question, on flows of both families; addresses are as Python's ipaddress reads them."""
        place = Path(self.mktemp())
        store = writer(place)
        self.addCleanup(store.end)
        keys = [known(name) for name in ("destinationAddress", "destinationTransportPort", "octets")]
        more = {keys[2]: np.arange(3, dtype=np.uint64), keys[1]: np.full(3, 443, np.uint16)}
        ended = (NOON + 60 * 86400) * 1000  # 60 days after 2026-10-01
        columns = (*COLUMNS, *map(StoredColumn, keys))
        batches = [flows([ended] * 3, ipv6=ipv6, now=ended / 1000).with_columns(more) for ipv6 in (False, True)]
        store.write(batches, columns, 1)
        text = DOCUMENT.read_text("utf-8").replace("/var/lib/ulogd/flows", str(place)).replace("192.0.2.", "10.0.0.")
        block = next(block for block in re.findall(r"```sql\n(.*?)```", text, re.S) if "MACRO" in block)
        with duckdb.connect() as connection:
            *made, question = [statement for statement in block.split(";") if statement.strip()]
            for statement in made:
                connection.execute(statement).fetchall()
            found = connection.execute(question).fetchall()
            self.assertEqual([row[0] for row in found], ["10.0.0.2", "10.0.0.1", "10.0.0.0"])
            self.assertEqual(str(found[0][4]), "2026-11-30 12:00:00")
            six = connection.execute("select ip(sourceAddress) from flows order by sourceAddress desc limit 1")
            self.assertEqual(six.fetchall(), [("2001:db8:0:0:0:0:0:2",)])
