"""What `ulogd-tw doctor` says of this machine: a process of its own looks, as its checks may take seconds."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from twisted.internet import defer, utils

from ulogd_tw.operating.api.answers import Chunks, Page, Question, Refused, one

SECONDS = 30
"""So long the checks may take; then their process ends by itself."""
_PROGRAM = f"import signal; signal.alarm({SECONDS}); from ulogd_tw.cli import main; main()"


class DoctorPage(Page):
    """The points that `ulogd-tw doctor` checks, each with its state and remedy."""

    path = "/api/v1/doctor"
    private = True

    def get(self, question: Question) -> defer.Deferred[Chunks]:
        """One object a point."""
        words = ["-c", _PROGRAM, "doctor", "--json", *(["-c", self.view.config] if self.view.config else [])]
        looking = utils.getProcessOutputAndValue(sys.executable, words, env=dict(os.environ))
        looking.addTimeout(SECONDS, self.view.clock, lambda *_: _late())
        return looking.addCallback(_told)


def _late() -> Any:
    raise Refused(503, "doctor", f"the checks took more than {SECONDS} seconds; ulogd-tw doctor makes them, too")


def _told(result: tuple[bytes, bytes, int]) -> Chunks:
    out, err, _ = result
    try:
        return one({"findings": json.loads(out)})
    except ValueError:
        said = err.decode("utf-8", "replace").strip().splitlines()
        raise Refused(503, "doctor", f"ulogd-tw doctor: {said[-1] if said else 'it said nothing'}") from None
