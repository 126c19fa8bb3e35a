"""A server of ClickHouse in memory for tests: answers by statement, and inserts that are taken down."""

import re

from ulogd_tw.storing.clickhouse.client import ServerError

SETTINGS = ("async_insert", "insert_deduplicate", "insert_deduplication_token",
            "deduplicate_blocks_in_dependent_materialized_views")  # fmt: skip


class Server:
    """`table`: columns with their types, None without a table; `refuses(body, settings)` raises for an insert.

    `statements` and `inserts` (statement, octets, settings) are what came.
    """

    host = 0

    def __init__(self, table=None, version="26.9.2.1", engine="MergeTree", key="", window=100, settings=SETTINGS):
        self.table, self.version, self.engine, self.key, self.window = table, version, engine, key, window
        self.settings = settings
        self.statements, self.inserts, self.tokens = [], [], set()
        self.refuses = lambda body, settings: None
        self.others = set()
        """Names of further tables."""
        self.log = None
        """The kinds of the query log's lines; None without one."""

    def ask(self, statement, **settings):
        self.statements.append(statement)
        if statement == "SELECT version()":
            return [[self.version]]
        if "system.settings" in statement:
            return [[name] for name in self.settings]
        if "system.columns" in statement:
            return [[name, type_name, ""] for name, type_name in (self.table or {}).items()]
        if statement.startswith("SELECT name FROM system.tables"):
            return [[name] for name in re.findall(r"'(\w+)'", statement) if name in self.others]
        if "system.tables" in statement:
            full = f"{self.engine} SETTINGS non_replicated_deduplication_window = {self.window}"
            return [[self.engine, full, self.key]]
        if "query_log" in statement or statement == "SYSTEM FLUSH LOGS":
            if self.log is None:
                raise ServerError(60, 404, "Table system.query_log does not exist")
            return [[kind] for kind in self.log]
        if added := re.match(r"ALTER TABLE \S+ ADD COLUMN (\w+) (.+?)(?: CODEC.*)?$", statement):
            self.table[added[1]] = added[2]
        if statement.startswith("CREATE TABLE") and self.table is None:
            self.table = dict(re.findall(r"^  `?(\w+)`? (.+?)(?: CODEC.*)?,?$", statement, re.M))
        return []

    def insert(self, statement, body, encoding="", **settings):
        octets = b"".join(map(bytes, body))
        self.refuses(octets, settings)
        token = settings.get("insert_deduplication_token")
        if token is None or token not in self.tokens:
            self.tokens.add(token)
            self.inserts.append((statement, octets, settings))

    def closed_by_server(self):
        return False

    def cut(self):
        pass

    close = rollback = commit = cut
