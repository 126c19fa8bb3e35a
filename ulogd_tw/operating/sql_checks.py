"""Which queries DuckDB may run: one SELECT of the given tables, with functions of its arguments alone.

DuckDB parses a query itself and gives its parts as JSON. Whatever is not known here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ulogd_tw.errors import QueryError

ONE_SELECT = "a query is one SELECT of the tables of the service; nothing else is possible"
FUNCTIONS = (
    "select distinct function_name, stability from duckdb_functions() "
    "where function_type in ('scalar', 'aggregate', 'window', 'macro')"
)
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_REFERENCES = {
    "BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "COLUMN_DATA", "SHOW_REF",
    "PIVOT", "CTE",
}  # fmt: skip
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat", "json_each", "json_tree"}
_NOT_CONSTANT = {"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"}
_REFUSED = re.compile(
    r"pg_|has_\w+_privilege|inet_|current_(?!date$|time$|timestamp$|local)|\w+_description$|(session_)?user$|json_\w*sql"
    r"|_|getvariable|getenv|in_search_path|txid_|version$|get_block_size|read_|write_|query"
)
"""Names of functions that give something else than what they make of their arguments."""


def functions(found: Iterable[tuple[str, str | None]]) -> frozenset[str]:
    """The functions that a query may use, from rows of `FUNCTIONS`."""
    return frozenset(
        name.lower()
        for name, stability in found
        if name in _NOT_CONSTANT or (stability != "VOLATILE" and not _REFUSED.match(name.lower()))
    )


def check(parsed: dict[str, Any], tables: frozenset[str], allowed: frozenset[str]) -> None:
    """Raise `QueryError` unless the parsed text is one query of `tables`."""
    if parsed.get("error"):
        raise QueryError(ONE_SELECT)
    statements = parsed["statements"]
    if len(statements) != 1:
        raise QueryError(ONE_SELECT)
    _Check(frozenset(map(str.lower, tables)), allowed).node(statements[0], frozenset())


class _Check:
    """Walks through a query. `scope` has the names of the common table expressions that are seen from a part."""

    def __init__(self, tables: frozenset[str], allowed: frozenset[str]) -> None:
        self._tables, self._allowed = tables, allowed

    def node(self, node: Any, scope: frozenset[str]) -> None:
        """Check a part of the query, and the parts of it."""
        if isinstance(node, list):
            for part in node:
                self.node(part, scope)
        elif isinstance(node, dict):
            self._one(node, scope)
            scope = self._with_expressions(node, scope)
            for name, part in node.items():
                if name != "cte_map":
                    self.node(part, scope)

    def _with_expressions(self, node: dict[str, Any], scope: frozenset[str]) -> frozenset[str]:
        """Check WITH of a node, where each expression sees those before it; what the rest of the node sees."""
        for entry in (node.get("cte_map") or {}).get("map") or ():
            self.node(entry["value"], scope)
            scope |= {entry["key"].lower()}
        if node.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE"):
            scope |= {str(node.get("cte_name")).lower()}
        return scope

    def _one(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise QueryError(ONE_SELECT)
        if kind == "BASE_TABLE":
            self._table(node, scope)
        elif kind == "SHOW_REF" and not node.get("query"):
            raise QueryError(ONE_SELECT)
        elif kind == "TABLE_FUNCTION":
            function = node.get("function") or {}
            self._function(function, _TABLE_FUNCTIONS, "table function")
            self.node(function.get("children"), scope)
        elif "function_name" in node:
            self._function(node, self._allowed | _TABLE_FUNCTIONS, "function")

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name, path = node["table_name"], (node.get("catalog_name") or "", node.get("schema_name") or "")
        known = name.lower() in self._tables and path[0].lower() in ("", "memory") and path[1].lower() in ("", "main")
        if not known and (any(path) or name.lower() not in scope):
            have = ", ".join(sorted(self._tables))
            raise QueryError(f"there is no table {'.'.join(filter(None, (*path, name)))}; the query names {have}")

    def _function(self, node: dict[str, Any], allowed: frozenset[str] | set[str], what: str) -> None:
        name = str(node.get("function_name")).lower()
        if name not in allowed:
            raise QueryError(f"the {what} {name} is not possible in a query")
