"""What SQL from outside cannot do: read files, settings and other tables, write, load, change."""

import numpy as np

from tests.unit.operating.test_query import EngineCase
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.errors import QueryError
from ulogd_tw.operating import sql, sql_checks

_KEYS = (Key("octets", types.UNSIGNED64), Key("sourceAddress", types.IPV4))

OTHER_STATEMENTS = r"""
copy agg to '{file}' | copy (select * from agg) to '{file}' | copy agg from '/etc/passwd' | attach '{file}' as x
detach agg | install httpfs | load httpfs | pragma database_list | pragma table_info('agg') | pragma agg
set threads=8 | set memory_limit='100GB' | reset threads | use main | call enable_logging() | call duckdb_settings()
call enable_logging(storage='file', storage_config={{'path': '{file}'}}) | prepare p as select * from agg | execute p
deallocate p | explain analyze select * from agg | create table x as select * from agg | create view x as select 1
create macro f(a) as a | insert into agg select * from agg | delete from agg | update agg set octets = 1
drop table agg
truncate agg | alter table agg rename to x | begin | commit | checkpoint | vacuum | analyze agg
export database '{file}'
import database '{file}' | comment on table agg is 'x' | create secret (type s3) | vacuum into '{file}'
select 1; select octets from agg | select octets from agg; copy agg to '{file}'
set threads=8; select octets from agg
select octets from agg; -- \n drop table agg | /* x */ copy agg to '{file}' -- select octets from agg
with t as (delete from agg returning *) select * from t
with t as (insert into agg select * from agg returning *) select 1
"""
FILES = """
select * from read_csv('/etc/passwd') | select * from agg, read_text('/etc/passwd') | select * from '/etc/passwd', agg
select * from read_blob('/etc/passwd'), agg | select * from glob('/etc/*'), agg
select * from sniff_csv('/etc/passwd'), agg
select * from read_json('/etc/passwd'), agg | select * from parquet_scan('/etc/passwd'), agg
from read_text('/etc/passwd')
select * from "read_csv"('/etc/passwd'), agg | select * from system.main.read_csv('/etc/passwd'), agg
select octets.read_text() from agg | select (select content from read_text('/etc/passwd')) from agg
select * from agg where exists (select 1 from read_text('/etc/passwd')) | select readfile('/etc/passwd') from agg
select writefile('{file}', 'x') from agg | select load_extension('x') from agg
select * from sqlite_scan('{file}', 'x'), agg
select * from query('select * from agg') | select * from query_table('agg') | select edit('x') from agg
select * from json_execute_serialized_sql(json_serialize_sql('select 1')), agg
with "/etc/passwd" as (select * from "/etc/passwd") select * from "/etc/passwd", agg
"""
SETTINGS = """
select getenv('HOME') from agg | select current_setting('threads') from agg | select getvariable('x') from agg
select "current_setting"('threads') from agg | select system.main.current_setting('threads') from agg
select CURRENT_SETTING ('threads') from agg | select * from duckdb_settings(), agg
select * from duckdb_secrets(), agg
select * from information_schema.tables, agg | select * from sqlite_master, agg
select * from pragma_database_list, agg
select * from pg_catalog.pg_class, agg | select * from pragma_table_info('agg') | select version() from agg
select * from (with sqlite_master as (select 1 from agg) select 1), sqlite_master | select nextval('x') from agg
with sqlite_master as (select * from sqlite_master) select * from sqlite_master, agg | select write_log('x') from agg
select sleep_ms(10000) from agg | select * replace (current_setting('threads') as octets) from agg | show tables
select * from agg limit (select current_setting('threads')::int)
select * from agg order by current_setting('threads')
select sum(octets) over (order by current_setting('threads')) from agg
select {{'a': current_setting('threads')}} from agg
select sum(octets) filter (current_setting('threads') = '1') from agg
select unnest([current_setting('threads')]) from agg
select * from agg a, lateral (select current_setting('threads') where a.octets > 1) | show all | describe
select * from (values (current_setting('threads'))), agg
select * from range((select current_setting('threads')::int)), agg
select list_transform([1], lambda x: current_setting('threads')) from agg | select * from seq_scan('agg')
select 1 from agg union select current_setting('threads')::int | select * from agg join agg b on getenv('x') = '1'
select case when current_setting('threads') = '1' then 1 end from agg | select * from pandas_scan(1), agg
"""
NOTHING = "; | -- | /* agg */ | select | select $1 from agg | selec octets from agg | select '"

POSSIBLE = """
select sum(octets) from agg | select agg.octets, main.agg.octets from main.agg | SELECT OCTETS FROM AGG
select a.octets from agg as a join agg as b using (octets) | select octets from agg;
select octets /* x */ from agg -- y
with t as (select * from agg) select * from t | select row_number() over (order by octets), octets from agg
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select max(i) from n, agg
select count(*), max(sourceAddress), round(1.5), coalesce(octets, 1) from agg where sourceAddress like '0%' group by 4
"""
POSSIBLE_IN_DUCKDB = """
from agg select octets | describe agg | summarize agg | select memory.main.agg.octets from memory.main.agg
select octets, date_trunc('hour', now()), current_date, list(octets), map {'a': octets} from agg group by all
select columns('oct.*') from agg | select * exclude (octets) from agg | select unnest(range(3)) from agg
"""


def queries(text, **words):
    """The queries of a text, one behind the other with a bar between."""
    for line in text.strip().split("\n"):
        yield from (query.strip().replace("\\n", "\n").format(**words) for query in line.split(" | "))


class AttackTests(EngineCase):
    """Both engines."""

    def few(self):
        """A table of five rows."""
        columns = {"octets": np.arange(5, dtype=np.uint64), "sourceAddress": np.arange(5, dtype=np.uint32)}
        return {"agg": sql.Table(tuple(columns), [Batch(Schema(_KEYS), columns, n=5, now=0.0)])}

    def refused(self, text):
        """Each query is refused, in each engine."""
        for name in self.engines():
            engine = sql.engine()
            for query in queries(text, file=self.mktemp()):
                try:
                    found = list(engine.ask(query, self.few()).rows())
                except QueryError as error:
                    self.assertTrue(str(error))
                else:
                    self.fail(f"{name} let pass {query!r}: {found}")
                engine.forget()
            engine.close()

    def test_statements(self):
        """Only SELECT is possible, and only one."""
        self.refused(OTHER_STATEMENTS)

    def test_files(self):
        """No function and no name reads a file, writes one, or runs a text as a query."""
        self.refused(FILES)

    def test_settings(self):
        """Environment, settings, catalog and state of the database are hidden in every place of a query."""
        self.refused(SETTINGS)

    def test_nothing(self):
        """No query at all."""
        self.refused(NOTHING)

    def test_possible(self):
        """What is of use passes: qualified names, WITH, windows, comments."""
        for name in self.engines():
            also = POSSIBLE_IN_DUCKDB.replace("{'a': octets}", "{{'a': octets}}") if name == "duckdb" else ""
            for query in (*queries(POSSIBLE), *(queries(also) if also else ())):
                self.assertTrue(sql.run(query, self.few()).rows, query)

    def test_second_wall(self):
        """DuckDB itself refuses files and settings, should a query pass that should not."""
        self.patch(sql_checks, "check", lambda *_: None)
        for query in ("select * from read_text('/etc/passwd')", "select * from '/etc/passwd'", "copy agg to '/tmp/x'",
                      "set threads = 8", "load httpfs", "attach '/tmp/x.db' as x"):  # fmt: skip
            with self.assertRaises(QueryError):
                sql.run(query, self.few())
