"""One collector of an exporter, as its options name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ulogd_tw.exporting.rules import Rule
from ulogd_tw.transports.url import Url


@dataclass(frozen=True)
class Target:
    """One collector: the word that stands for it, its URL, its own section, and the section of the exporter.

    An option of its own section goes before that of the exporter.
    """

    word: str
    url: Url
    own: Any
    common: Any

    @property
    def rule(self) -> Rule:
        """The rule selecting its flows."""
        return Rule(frozenset((self.word, str(self.url))), self.own.networks, self.own.marks)

    def placed(self, mistakes: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """(option, what is wrong with it), with the section where the option is not the exporter's own.

        An option that nobody gives is one of the collector's section, if there is one.
        """
        has_section = self.word in self.common.sections
        for option, wrong in mistakes:
            given = "cert" if option == "private_key" and self.own.cert else option  # the key may be in its file
            own = getattr(self.own, given) or has_section and not getattr(self.common, given)
            yield (f"[collector:{self.word}] {option}" if own else option), wrong
