"""Stored flows: a list of the stores, and questions, whose answers are written as they come."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.flows import filters, questions, times
from ulogd_tw.flows.answers import FORMS, KINDS
from ulogd_tw.flows.errors import FlowsError
from ulogd_tw.flows.questions import Question as Flows
from ulogd_tw.operating.api.answers import Page, Question, Refused, body_of, listed, refuse
from ulogd_tw.operating.question_log import NotLogged, asker_of
from ulogd_tw.operating.store_process import Busy, NoAnswer


class StoresPage(Page):
    """The stores with their outputs, size, hours, rows."""

    path = "/api/v1/stores"
    private = True

    def get(self, question: Question) -> Any:
        """One object a store."""
        return self.view.stores.listed().addCallback(lambda found: listed("stores", found))


class FlowsPage(Page):
    """Flows of a store, or sums of them."""

    path = "/api/v1/stores/flows"
    kind = "application/jsonl"
    private = True

    def post(self, question: Question) -> Any:
        """The answer is written as it comes."""
        raise NotImplementedError

    def render(self, request: Any) -> Any:
        """Begin an answer, or refuse it."""
        answer = defer.maybeDeferred(self._ask, request)
        answer.addErrback(lambda failure: refuse(request, failure))
        return server.NOT_DONE_YET

    def _ask(self, request: Any) -> Any:
        self.checked(request)
        body = body_of(request)
        store, form = _text(body, "store", ""), _text(body, "format", "json")
        if form not in FORMS:
            raise Refused(400, "body", f"format {form} is none of {', '.join(FORMS)}")
        question = asked(body, time.time())
        answer = _Answer(request, form)
        waiting = self.view.stores.ask(store, question, form, asker_of(request), answer)
        request.notifyFinish().addErrback(lambda _: waiting.cancel())
        return waiting.addCallbacks(answer.end, answer.failed)


def asked(body: dict[str, Any], now: float) -> Flows:
    """The question of a body, whose times may be texts. Raises `Refused`."""
    try:
        for name in ("begin", "end"):
            if isinstance(body.get(name), str):
                body[name] = times.moment(body[name], now)
        if isinstance(body.get("every"), str):
            body["every"] = times.span(body["every"])
        question = questions.of(body)
        filters.term(question.match)
    except FlowsError as error:
        raise Refused(400, "question", str(error)) from None
    return question


def _text(body: dict[str, Any], name: str, default: str) -> str:
    value = body.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Refused(400, "body", f"{name} must be a text")
    return value


class _Answer:
    """The way of an answer to its client. A slow client pauses the process that reads."""

    def __init__(self, request: Any, form: str) -> None:
        self._request, self._form = request, form
        self._begun = False

    def begin(self, producer: Any) -> None:
        """The first octets come."""
        self._begun = True
        self._request.setResponseCode(200)
        self._request.setHeader("Content-Type", KINDS[self._form])
        if not self._request.gone:
            self._request.registerProducer(producer, True)

    def write(self, octets: bytes) -> None:
        """Some octets of it."""
        if not self._request.gone:
            self._request.write(octets)

    def end(self, _: Any) -> None:
        """It is whole."""
        if not self._request.gone:
            self._request.unregisterProducer()
            self._request.door.hurry(self._request.channel)
            self._request.finish()

    def failed(self, failure: Failure) -> Any:
        """There is no answer, or it breaks off: the client sees that it is not whole."""
        if self._request.gone:
            return None
        if not self._begun:
            return _refused(failure)
        if failure.check(NoAnswer) is None:
            return failure
        self._request.unregisterProducer()
        if self._form == "events":
            self._request.write(json.dumps({"error": str(failure.value)}).encode() + b"\n")
            self._request.finish()
        else:
            self._request.channel.transport.abortConnection()
        return None


def _refused(failure: Failure) -> Any:
    failure.trap(NoAnswer, NotLogged)
    status = 503 if failure.check(Busy, NotLogged) else 400
    raise Refused(status, "question", str(failure.value))
