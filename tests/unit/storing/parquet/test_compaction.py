"""Which files are merged, and when."""

from pathlib import Path

import duckdb
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.storing.parquet.flows import HOUR, NOON, RUN
from ulogd_tw.storing.parquet.compaction import MANY, MOST_ROWS, QUIET_S, next_merge, settled
from ulogd_tw.storing.parquet.directory import StoredFile, name_of
from ulogd_tw.storing.parquet.merge_process import connected, merge

OVER = NOON + 3600 + QUIET_S + 1
"""When the hour is over."""


def file(rows, level=0, number=1, start=NOON):
    """A file with so many rows."""
    return StoredFile(Path(name_of(start, level, rows, RUN, number, 0)), HOUR, start, level, rows, RUN, number, 0)


def many(n, rows=100, level=0):
    """Files that differ by their write."""
    return [file(rows, level, number, NOON + number) for number in range(n)]


class NextMergeTests(SynchronousTestCase):
    """Merges of one hour."""

    def rows(self, files, now=NOON, changed=NOON):
        found = next_merge(HOUR, files, changed, now)
        return None if found is None else sorted(one.rows for one in found.files)

    def test_few(self):
        """Few files of an hour under way stay."""
        self.assertIsNone(self.rows(many(MANY - 1)))

    def test_many(self):
        """Many files of a level are merged, and their result is one of the next level."""
        found = next_merge(HOUR, [*many(MANY), file(5, 1)], NOON, NOON)
        new = found.result("fedc", 3)
        self.assertEqual((len(found.files), found.final, new.level, new.rows), (MANY, False, 1, 100 * MANY))
        self.assertEqual((new.start, new.path.name), (NOON, f"{NOON}-1-{100 * MANY}.fedc.3.0.parquet"))

    def test_full(self):
        """No merged file has more rows than it may; as many rows need no more files to wait for."""
        half = MOST_ROWS // 2 - 1
        self.assertEqual(self.rows([file(half, 0, number) for number in range(3)]), [half, half])
        self.assertIsNone(self.rows([file(MOST_ROWS // 2, 1)] * MANY))

    def test_over(self):
        """Once the hour is over, and nothing came for a while, all small files become one."""
        files = [*many(3), *many(2, 1000, 1), file(MOST_ROWS - 10, 2)]
        self.assertIsNone(self.rows(files, OVER - 2))
        self.assertIsNone(self.rows(files, OVER, OVER - 10))
        self.assertEqual(self.rows(files, OVER), [100, 100, 100, 1000, 1000])

    def test_one(self):
        """A file as it was written is sorted at the end; a merged one stays as it is."""
        self.assertEqual(self.rows([file(5)], OVER), [5])
        self.assertEqual(self.rows([file(MOST_ROWS)], OVER), [MOST_ROWS])
        self.assertIsNone(self.rows([file(5, 1)], OVER))

    def test_late_rows(self):
        """Few late rows do not have a large file written again."""
        self.assertEqual(self.rows([file(1_000_000, 1), file(10)], OVER), [10])
        self.assertIsNone(self.rows([file(1_000_000, 1), file(10, 1)], OVER))
        self.assertTrue(settled(HOUR, [file(1_000_000, 1), file(10, 1)], OVER))

    def test_strange_files(self):
        """Files of other programs stay."""
        self.assertIsNone(self.rows([file(1)._replace(rows=-1)] * MANY, OVER))

    @given(st.lists(st.tuples(st.integers(1, MOST_ROWS * 2), st.integers(0, 3)), max_size=60))
    def test_ends(self, found):
        """Whatever the files, merges end with few of them, and no row is lost on the way."""
        files = [file(rows, level, number) for number, (rows, level) in enumerate(found)]
        for number in range(200):
            job = next_merge(HOUR, files, NOON, OVER)
            if job is None:
                break
            self.assertTrue(job.rows <= MOST_ROWS or len(job.files) == 1)
            files = [one for one in files if one not in job.files] + [job.result("fedc", number)]
        self.assertIsNone(job if files else None)
        self.assertEqual(sum(one.rows for one in files), sum(rows for rows, _ in found))


class MergeTests(SynchronousTestCase):
    """The merged file."""

    def file(self, name, query):
        quoted = name.replace("'", "''")
        duckdb.sql(f"copy ({query}) to '{quoted}' (format parquet)")
        return name

    def merged(self, files, order):
        part = Path(self.mktemp())
        merge(files, part, order, "zstd")
        return duckdb.sql(f"from read_parquet('{part}')")

    def test_sorted(self):
        """All rows, sorted, with the columns of all files; a column to sort by may be missing."""
        files = [self.file("a", "select 3 as x, 'a' as y"), self.file("it's", "select 1 as x, null::int as z")]
        self.assertEqual(self.merged(files, ["x", "w"]).fetchall(), [(1, None, None), (3, "a", None)])

    def test_wide_numbers(self):
        """Numbers of both signs stay exact."""
        files = [self.file("u", "select 18446744073709551615::ubigint as x"), self.file("i", "select -1::bigint as x")]
        self.assertEqual([int(row[0]) for row in self.merged(files, ["x"]).fetchall()], [-1, 2**64 - 1])

    def test_no_progress_bar(self):
        """DuckDB writes nothing to standard output, however long it takes."""
        with connected(1 << 28) as connection:
            found = connection.execute("select current_setting('enable_progress_bar')").fetchall()
        self.assertEqual(found, [(False,)])

    def test_no_hive_columns(self):
        """The names of directories are no columns."""
        place = Path("date=2026-10-01/hour=12")
        place.mkdir(parents=True, exist_ok=True)
        self.assertEqual(self.merged([self.file(f"{place}/a", "select 3 as x")], []).columns, ["x"])
