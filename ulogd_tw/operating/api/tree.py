"""The tree of resources, and what an address answers that is none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure
from twisted.web import resource, server

from ulogd_tw.operating.api.answers import Page, Refused, refuse
from ulogd_tw.operating.api.pages import PAGES
from ulogd_tw.operating.api.view import View


class Branch(resource.Resource):
    """A part of addresses that is none itself; it lists nothing."""

    def getChild(self, name: Any, request: Any) -> resource.Resource:
        return Nowhere()

    def render(self, request: Any) -> Any:
        return Nowhere().render(request)


class Nowhere(resource.Resource):
    """What no address has."""

    isLeaf = True

    def render(self, request: Any) -> Any:
        refuse(
            request, Failure(Refused(404, "path", "there is nothing here; /api/v1/openapi.json lists the addresses"))
        )
        return server.NOT_DONE_YET


def root(view: View, more: Sequence[type[Page]] = ()) -> resource.Resource:
    """The tree of all pages, and of `more`."""
    found: Any = Branch()
    pages = (*PAGES, *more)
    for page in pages:
        *above, last = page.path.removeprefix("/").split("/")
        place = found
        for word in above:
            place = place.children.setdefault(word.encode(), Branch())
        made = page(view)
        made.isLeaf = not any(other.path.startswith(page.path + "/") for other in pages if page.path != "/")
        place.putChild(last.encode(), made)
    return found
