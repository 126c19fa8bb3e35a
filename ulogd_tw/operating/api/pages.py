"""The addresses of the API, each with its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from twisted.internet import defer

from ulogd_tw.core.graph import Graph
from ulogd_tw.errors import NoTable, QueryError
from ulogd_tw.operating.api.answers import Chunks, Page, Question, Refused, listed, mapped, one
from ulogd_tw.operating.api.doctor import DoctorPage
from ulogd_tw.operating.api.match import KeysPage, MatchPage
from ulogd_tw.operating.api.now import NowPage
from ulogd_tw.operating.api.stores import FlowsPage, StoresPage
from ulogd_tw.operating.api.tap import TapPage

V1 = "/api/v1/"


class Status(Page):
    """What runs, since when, and how each stack is."""

    path = V1 + "status"

    def get(self, question: Question) -> Chunks:
        """A small object."""
        return one(self.view.status())


class GraphPage(Page):
    """The stacks as a graph, with counters on its nodes and rows on its edges."""

    path = V1 + "graph"

    def get(self, question: Question) -> Chunks:
        """The nodes come last, since they are the longest."""
        return listed("nodes", self.view.nodes(), stacks=self.view.stacks(), edges=self.view.edges())


class InstancesPage(Page):
    """Every instance with its plugin, its place, its options as they are written and its counters; or one."""

    path = V1 + "instances"
    parameters = ("instance",)
    private = True

    def get(self, question: Question) -> Chunks:
        """In the order of the graph: inputs first."""
        _known(self.view.graph, chosen := question.parameters.get("instance"))
        return listed("instances", (found for found in self.view.instances() if chosen in (None, found["node"])))


def _known(graph: Graph, chosen: str | None) -> None:
    """Refuse an id that no instance has."""
    have = [node.ident for node in graph.nodes]
    if chosen is not None and chosen not in have:
        raise Refused(404, "instance", f"there is no instance {chosen}; there are {', '.join(have)}")


class CountersPage(Page):
    """The counters of every instance, as `stats_file` has them, or those of one."""

    path = V1 + "counters"
    parameters = ("instance",)

    def get(self, question: Question) -> Chunks:
        """By the id of the instance."""
        chosen = question.parameters.get("instance")
        _known(self.view.graph, chosen)
        nodes = [node for node in self.view.graph.nodes if chosen in (None, node.ident)]
        return mapped("instances", ((node.ident, node.plugin.counters.as_dict()) for node in nodes))


class AlertsPage(Page):
    """Alerts that fire, are pending or ended lately, and the rules of [alert:NAME] with what was sent."""

    path = V1 + "alerts"

    def get(self, question: Question) -> Chunks:
        """Alerts that fire come first within each rule."""
        alerts = getattr(self.view.ulogd, "alerts", None)
        found = {"alerts": [], "rules": []} if alerts is None else alerts.listed()
        return listed("alerts", found["alerts"], rules=found["rules"])


class ExportersPage(Page):
    """Each exporter with templates, losses, sampling and clock: one object an Observation Domain."""

    path = V1 + "exporters"

    def get(self, question: Question) -> Chunks:
        """In the order of the inputs, the longest silent first."""
        return listed("exporters", self.view.exporters())


class TemplatesPage(Page):
    """The templates of all exporters, or of one address."""

    path = V1 + "templates"
    parameters = ("exporter",)

    def get(self, question: Question) -> Chunks:
        """One object a template, with its fields."""
        return listed("templates", self.view.templates(question.parameters.get("exporter", "")))


class TablesPage(Page):
    """The tables for SQL, each with its columns."""

    path = V1 + "tables"

    def get(self, question: Question) -> Chunks:
        """One object a table."""
        return listed("tables", self.view.tables())


class QueryPage(Page):
    """SQL over the tables."""

    path = V1 + "query"
    private = True

    def post(self, question: Question) -> defer.Deferred[Chunks]:
        """Columns and rows. A query that is none, or fails, is refused with its reason."""
        asked = self.view.database.answer(question.text("sql"))
        question.request.notifyFinish().addErrback(lambda _: asked.cancel())
        return asked.addCallbacks(lambda answer: iter((answer,)), _no_query)


def _no_query(failure: Any) -> Any:
    failure.trap(QueryError)
    raise Refused(404 if failure.check(NoTable) else 400, "query", str(failure.value))


class WhoHadPage(Page):
    """Who had an outside address and port at a time."""

    path = V1 + "stores/who-had"
    private = True

    def post(self, question: Question) -> defer.Deferred[Chunks]:
        """The hosts inside, and the times of which records may be missing."""
        from ulogd_tw.operating.question_log import asker_of

        asked = self.view.who_had.answer(question.body, asker_of(question.request))
        question.request.notifyFinish().addErrback(lambda _: asked.cancel())
        return asked.addCallbacks(one, _no_holder)


def _no_holder(failure: Any) -> Any:
    from ulogd_tw.operating.question_log import NotLogged
    from ulogd_tw.operating.store_process import Busy, NoAnswer
    from ulogd_tw.operating.who_had import WrongQuestion

    if failure.check(WrongQuestion):
        raise Refused(400, "question", str(failure.value))
    if failure.check(NotLogged):
        raise Refused(503, "question_log", str(failure.value))
    if failure.check(NoAnswer):
        raise Refused(503 if failure.check(Busy) else 400, "question", str(failure.value))
    return failure


class EventsPage(Page):
    """What happened lately: stacks left out, reloads, exporters that came, fell silent or restarted, and so on."""

    path = V1 + "events"
    parameters = ("since",)

    def get(self, question: Question) -> Chunks:
        """Those with a number above `since`; the last number is for the next question."""
        return listed("events", self.view.ulogd.events.since(question.number("since", 0)))


class Live(Page):
    """Whether the service turns at all."""

    path = "/livez"

    def get(self, question: Question) -> Chunks:
        """An answer is the proof: the reactor gives it."""
        return one({"alive": True})


class Ready(Page):
    """Whether rows arrive: the state of each stack, with the reasons."""

    path = "/readyz"

    def get(self, question: Question) -> Chunks:
        """Status 200, or 503 where a stack is down."""
        return one(self.view.readiness())

    def status_of(self, body: bytes) -> int:
        """By the answer itself, which is the same for all within a second."""
        return 200 if json.loads(body)["ready"] else 503


class Description(Page):
    """All of this in OpenAPI's form."""

    path = V1 + "openapi.json"

    def get(self, question: Question) -> Chunks:
        """A file of the package."""
        return iter([resources.files(__package__).joinpath("openapi.json").read_bytes()])


class Metrics(Page):
    """The counters for Prometheus, in its text format."""

    path = "/metrics"
    kind = "text/plain; version=0.0.4; charset=utf-8"

    def get(self, question: Question) -> Chunks:
        """Made in slices."""
        from ulogd_tw.operating import prometheus

        return prometheus.text(self.view)


class _Later(Page):
    """A command for which the service has no method yet."""

    private = True
    command = ""

    def post(self, question: Question) -> Any:
        """The answer of the service's own method."""
        method = getattr(self.view.ulogd, self.command, None)
        if method is None:
            raise Refused(501, "not_there", f"this version of the service has no {self.command}")
        return defer.maybeDeferred(method).addCallback(self.told)

    def told(self, result: Any) -> Iterator[bytes]:
        """The answer from what the method gave."""
        raise NotImplementedError


class Reload(_Later):
    """Read the configuration again, and run what is new in it."""

    path = V1 + "reload"
    command = "reload"

    def post(self, question: Question) -> Any:
        """The changes; 409 with the mistakes where the configuration has some, and the old one runs on."""
        return super().post(question).addErrback(_mistakes)

    def told(self, result: Any) -> Iterator[bytes]:
        return one({"changes": [str(change) for change in result or ()]})


def _mistakes(failure: Any) -> Any:
    if failure.check(Refused):
        return failure
    mistakes = getattr(failure.value, "mistakes", None)
    if mistakes is None:
        return failure
    texts = [str(mistake) for mistake in mistakes]
    raise Refused(409, "mistakes", str(failure.value) or "the configuration has mistakes", mistakes=texts)


class Restart(_Later):
    """Let a new process take over."""

    path = V1 + "restart"
    command = "restart"

    def post(self, question: Question) -> Any:
        """That it restarts; 409 with the mistakes where no service could start, and the old one runs on."""
        return super().post(question).addErrback(_mistakes)

    def told(self, result: Any) -> Iterator[bytes]:
        return one(result or {"restarting": True})


class Index(Page):
    """The addresses that there are."""

    path = "/api/v1"

    def get(self, question: Question) -> Chunks:
        """With the methods of each."""
        return one({"addresses": {page.path: page(self.view).methods for page in PAGES}})


class Login(Page):
    """Begins a session of a browser for a token."""

    path = "/login"
    parameters = ("token",)
    status = 303
    kept = False

    def get(self, question: Question) -> Chunks:
        """A cookie, and the way to the first page."""
        question.request.door.login(question.request, question.parameters.get("token", ""))
        return iter(())


PAGES: tuple[type[Page], ...] = (
    Index, Login, Live, Ready, Metrics,
    Status, GraphPage, InstancesPage, CountersPage, ExportersPage, TemplatesPage, TablesPage, EventsPage, AlertsPage,
    TapPage, NowPage, DoctorPage,
    QueryPage, KeysPage, MatchPage, StoresPage, FlowsPage, WhoHadPage, Reload, Restart, Description,
)  # fmt: skip
"""Every address."""
