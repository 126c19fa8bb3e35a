"""The events of a decoder, for the log of its caller."""

from __future__ import annotations

from dataclasses import dataclass

from ulogd_tw.ipfix.session import Session


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state for the log.

    `kind` is ``domain`` (a new one), ``template``, ``template_changed``, ``template_again`` (not over UDP),
    ``template_withdrawn``, ``withdrawal_unknown``, ``template_expired``, ``no_template`` and ``set_id`` (of an id the
    first time), ``template_came`` (parked Data Sets are decoded), ``malformed``, ``template_unusable``, ``limit``,
    ``sequence_gap``, ``restart_gap``, ``sequence_reset``, ``restart``, ``template_distrusted``, ``odd_options``,
    ``layers`` (a template
    has the headers of a tunnel and of the packet in it), ``clock_skew``, ``clock_right``, or a failed look-up in an
    exporter's options data: ``sampling_unmatched``, ``sampling_ambiguous``, ``names_unmatched``, ``names_ambiguous``,
    ``start_unknown``. `template` is 0 where it is not about one; of ``set_id`` it is the Set ID.
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

    def once(self, kind: str, session: Session, domain: int, template: int = 0, detail: str = "") -> None:
        """Add an event, unless the same one was reported before."""
        key = (kind, domain, template, detail)
        if key not in session.said and len(session.said) < _MOST_SAID:
            session.said.add(key)
            self.add(kind, session, domain, template, detail)


_MOST_SAID = 256
"""Events of a session reported once; further ones are only counted."""
