"""What helps to write a filter: the keys of a store, and whether an expression is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ulogd_tw.core.keys import registry
from ulogd_tw.flows import filters
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.questions import EITHER, KEY_WORDS
from ulogd_tw.match import MatchError
from ulogd_tw.operating.api.answers import Page, Question, Refused, listed, one
from ulogd_tw.operating.store_process import NoAnswer

_WORDS = {name: word for word, name in KEY_WORDS.items()}


class KeysPage(Page):
    """The keys of a store, each with its type and the words for it."""

    path = "/api/v1/keys"
    parameters = ("store",)
    private = True

    def get(self, question: Question) -> Any:
        """In the order of the store's columns."""
        return _keys(self.view.stores, question.parameters.get("store", "")).addCallback(
            lambda found: listed("keys", (_described(name, kind, found) for name, kind in found.items()))
        )


class MatchPage(Page):
    """Whether a text is a filter, and what of it a store does not have."""

    path = "/api/v1/match"
    private = True

    def post(self, question: Question) -> Any:
        """`ok`, and `missing` keys of the store; or the mistake with its column."""
        match, store = (_text(question.body, name) for name in ("match", "store"))
        try:
            term = filters.term(match)
        except QuestionError as error:
            mistake = error.__context__
            column = mistake.column if isinstance(mistake, MatchError) else 1
            return one({"ok": False, "error": str(mistake or error), "column": column, "missing": []})
        needed = [name for name, must in term.keys().items() if must]
        if not store and len(self.view.stores.groups()) != 1:
            return one({"ok": True, "missing": []})
        return _keys(self.view.stores, store).addCallback(
            lambda found: one({"ok": True, "missing": [name for name in needed if found and name not in found]})
        )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise Refused(400, "body", f"{name} must be a text")
    return value


def _keys(stores: Any, name: str) -> Any:
    """Fires with the type of each key of a store. Raises `Refused`."""
    try:
        return stores.keys(name)
    except NoAnswer as error:
        raise Refused(404, "store", str(error)) from None


def _described(name: str, kind: str, have: Mapping[str, str]) -> dict[str, Any]:
    """One key; its words are those of `--by`, such as srcip and ip."""
    words = [_WORDS[name]] if name in _WORDS else []
    words += [word for word, sides in EITHER.items() if name in sides and set(sides) <= set(have)]
    key = registry.key(name)
    elements = [] if key is None else [f"{pen}/{number}" if pen else str(number) for pen, number in key.elements]
    return {"name": name, "type": kind, "words": words, "unit": "" if key is None else key.unit, "elements": elements}
