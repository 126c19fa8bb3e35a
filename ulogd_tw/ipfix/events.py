"""What a decoder tells its caller for the log."""

from __future__ import annotations

from dataclasses import dataclass

from ulogd_tw.ipfix.session import Session


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state for the log.

    `kind` is ``domain`` (a new one), ``template``, ``template_changed``, ``template_again`` (not over UDP),
    ``template_withdrawn``, ``withdrawal_unknown``, ``template_expired``, ``no_template`` and ``set_id`` (of an id the
    first time), ``template_came`` (parked Data Sets are decoded), ``malformed``, ``limit``, ``sequence_gap``,
    ``sequence_reset``, ``odd_options``, ``clock_skew`` or ``clock_right``. `template` is 0 where it is not about one;
    of ``set_id`` it is the Set ID.
    """

    kind: str
    session: Session
    domain: int
    template: int
    detail: str


class Events:
    """Events that wait for the log. Beyond `most` they are only counted in `left_out`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: list[Event] = []
        self.left_out = 0

    def add(self, kind: str, session: Session, domain: int, template: int = 0, detail: str = "") -> None:
        """Another one."""
        if len(self.waiting) < self.most:
            self.waiting.append(Event(kind, session, domain, template, detail))
        else:
            self.left_out += 1
