"""The language of the filter MATCH: a text becomes a tree of terms, and a term selects rows. No Twisted, no files.

`parse` turns the text of an expression into a `Term`, or raises `MatchError` with the column of the mistake. A term
lists the keys it needs, and gives a mask of the rows of a batch for which it is true. `sql.where` gives the condition
with the same meaning for rows of a flow store.
"""

from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.grammar import parse
from ulogd_tw.match.terms import Always, Term

__all__ = ["Always", "MatchError", "Term", "parse"]
