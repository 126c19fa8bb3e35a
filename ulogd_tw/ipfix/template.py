"""Template Records (RFC 7011 section 3.4): their fields, and the octets of both kinds."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.message import FIRST_DATA_SET, OPTIONS_TEMPLATE_SET, SET_HEADER, VERSION

VARIABLE = 65535
"""The length that says: each value carries its own (section 7)."""
_ENTERPRISE = 0x8000


@dataclass(frozen=True, slots=True)
class Field:
    """A Field Specifier (section 3.2); enterprise 0 is IANA, length 65535 is variable."""

    pen: int
    ident: int
    length: int


@dataclass(frozen=True, slots=True)
class Template:
    """A Template or, with `scopes` > 0, an Options Template whose first `scopes` fields are its scope."""

    ident: int
    fields: tuple[Field, ...]
    scopes: int = 0

    @property
    def options(self) -> bool:
        return self.scopes > 0

    @property
    def least_octets(self) -> int:
        """The size of its smallest record: a variable field takes one octet at least."""
        return sum(1 if f.length == VARIABLE else f.length for f in self.fields)

    @property
    def variable(self) -> bool:
        return any(f.length == VARIABLE for f in self.fields)


def record_ends(template: Template, body: bytes | memoryview) -> list[int]:
    """Where each record of one of our own Data Sets ends, without padding.

    One Python step a field where the template has one of variable length.
    """
    if not template.variable:
        size = template.least_octets
        return list(range(size, len(body) + 1, size))
    ends: list[int] = []
    at = 0
    while at + template.least_octets <= len(body):
        for field in template.fields:
            octets = field.length
            if octets == VARIABLE:
                octets, at = body[at], at + 1
                if octets == 255:
                    octets, at = int.from_bytes(body[at : at + 2], "big"), at + 2
            at += octets
            if at > len(body):
                return ends
        ends.append(at)
    return ends


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A Template Withdrawal (section 8.1): one template, or with id 2 or 3 all of this kind."""

    ident: int
    options: bool


@dataclass(frozen=True, slots=True)
class Unusable:
    """A Template Record or Withdrawal that makes no sense, though it is clear where the next one begins."""

    ident: int
    why: str


Action = Template | Withdrawal | Unusable
"""The content of one record of a Template Set."""


def parse_set(set_id: int, body: bytes | memoryview) -> list[Action]:
    """The records of a Template Set (2) or Options Template Set (3), padding left out.

    Unusable are an id below 256, a scope count of 0 or over the field count, and a template whose records would have no
    octets. Raises `MessageError` for a record that is cut.
    """
    options = set_id == OPTIONS_TEMPLATE_SET
    found: list[Action] = []
    at, end = 0, len(body)
    while end - at >= 4:
        ident, count = SET_HEADER.unpack_from(body, at)
        if ident == 0 and count == 0 and not any(body[at:end]):
            break  # padding
        at += 4
        if count == 0:
            odd = ident < FIRST_DATA_SET and ident != set_id
            found.append(Unusable(ident, f"a withdrawal in set {set_id}") if odd else Withdrawal(ident, options))
            if not ident:
                break  # what comes behind zeros is no record
            continue
        scopes = 0
        if options:
            if end - at < 2:
                raise MessageError(f"options template {ident} is cut", "template", at)
            (scopes,) = struct.unpack_from("!H", body, at)
            at += 2
        fields, at = _parse_fields(body, at, count, ident)
        template = Template(ident, fields, scopes)
        why = _fault(template, options)
        found.append(Unusable(ident, why) if why else template)
    return found


def _fault(template: Template, options: bool) -> str:
    """Why a template makes no sense; empty for one that does."""
    if template.ident < FIRST_DATA_SET:
        return "its id is below 256"
    if options and not 1 <= template.scopes <= len(template.fields):
        return f"{template.scopes} of its {len(template.fields)} fields are its scope"
    return "" if template.least_octets else "its records have no octets"


def _parse_fields(body: bytes | memoryview, at: int, count: int, ident: int) -> tuple[tuple[Field, ...], int]:
    fields: list[Field] = []
    end = len(body)
    for _ in range(count):
        if end - at < 4:
            raise MessageError(f"template {ident} is cut: {len(fields)} of {plural(count, 'field')}", "template", at)
        element, length = SET_HEADER.unpack_from(body, at)
        at += 4
        pen = 0
        if element & _ENTERPRISE:
            if end - at < 4:
                raise MessageError(f"template {ident} is cut in an enterprise number", "template", at)
            (pen,) = struct.unpack_from("!I", body, at)
            at += 4
        fields.append(Field(pen, element & ~_ENTERPRISE, length))
    return tuple(fields), at


def encode_record(template: Template, version: int = VERSION) -> bytes:
    """The Template Record's octets, without a Set Header; `version` 9 for NetFlow v9 (RFC 3954 sections 5.2, 6.1).

    An Options Template of v9 has the lengths of its parts; its scopes are `keys.NETFLOW9_SCOPE` in place of an
    enterprise number.
    """
    if version == 9 and template.options:
        scope, rest = 4 * template.scopes, 4 * (len(template.fields) - template.scopes)
        parts = [struct.pack("!HHH", template.ident, scope, rest)]
        return b"".join((*parts, *(SET_HEADER.pack(field.ident, field.length) for field in template.fields)))
    parts = [SET_HEADER.pack(template.ident, len(template.fields))]
    if template.options:
        parts.append(struct.pack("!H", template.scopes))
    for field in template.fields:
        if field.pen:
            parts.append(struct.pack("!HHI", field.ident | _ENTERPRISE, field.length, field.pen))
        else:
            parts.append(SET_HEADER.pack(field.ident, field.length))
    return b"".join(parts)
