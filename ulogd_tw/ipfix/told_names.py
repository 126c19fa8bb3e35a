"""Names from options records: the kinds of things, their keys, and the columns given to rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.readable import application

_LONGEST_NAME = 255
"""Octets of a name that are kept; interface descriptions of routers have up to 240."""
DOMAIN = "observationDomainId"
"""In the place of a column: the number of the domain itself."""
_INTERFACES = ("scopeInterface", "ingressInterface", "egressInterface", "ingressPhysicalInterface",
               "egressPhysicalInterface")  # fmt: skip
_INGRESS = ("ingressInterface", "input", "ingressPhysicalInterface")
_EGRESS = ("egressInterface", "output", "egressPhysicalInterface")
_SAMPLERS = ("selectorId", "samplerId")
_VRFS = ("ingressVRFID", "egressVRFID")
_APPLICATIONS = ("applicationId",)


@dataclass(frozen=True, slots=True)
class NameKind:
    """Names of one kind of things.

    things   scope keys of an options record; its first one counts
    names    keys with the name; its first one counts
    columns  key given to rows: columns with the thing; the first one in the rows counts
    """

    kind: str
    things: tuple[str, ...]
    names: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]


def _own(*names: str, things: tuple[str, ...]) -> tuple[NameKind, ...]:
    """Names given to rows under the element that carried them."""
    return tuple(NameKind(name, things, (name,), {name: things}) for name in names)


KINDS: tuple[NameKind, ...] = (
    NameKind("interface", _INTERFACES, ("interfaceName", "interfaceDescription"),
             {"ingressInterfaceName": _INGRESS, "egressInterfaceName": _EGRESS}),
    NameKind("interfaceDescription", _INTERFACES, ("interfaceDescription",),
             {"ingressInterfaceDescription": _INGRESS, "egressInterfaceDescription": _EGRESS}),
    NameKind("application", _APPLICATIONS, ("applicationName",), {"applicationName": _APPLICATIONS}),
    *_own("applicationDescription", "applicationCategoryName", "applicationSubCategoryName", "applicationGroupName",
          "p2pTechnology", "tunnelTechnology", "encryptedTechnology", things=_APPLICATIONS),
    NameKind("vrf", _VRFS, ("VRFname",),
             {"ingressVRFName": ("ingressVRFID",), "egressVRFName": ("egressVRFID",), "VRFname": _VRFS}),
    *_own("selectorName", "samplerName", things=_SAMPLERS),
    *_own("natPoolName", things=("natPoolId",)),
    *_own("className", things=("classId",)),
    *_own("virtualStationInterfaceName", things=("virtualStationInterfaceId",)),
    *_own("virtualStationName", things=("virtualStationUUID",)),
    NameKind("domain", ("observationDomainId#2",), ("observationDomainName",), {"observationDomainName": (DOMAIN,)}),
)  # fmt: skip
ON_REQUEST = frozenset(("VRFname",))
"""Keys that only who names them gets: others have the same value."""
USED = frozenset(name for kind in KINDS for name in (*kind.things, *kind.names))
"""Keys of options records that are read."""
NAMES = frozenset(name for kind in KINDS for name in kind.names)
"""Keys with a name."""


def key_of(name: str) -> Key:
    """The key that rows get."""
    found = known(name)
    assert found is not None, name
    return found


def cleaned(octets: bytes) -> bytes:
    """A name as it is kept: it ends at the first NUL, behind which exporters leave anything in fixed fields."""
    return octets.partition(b"\0")[0].rstrip(b" ")[:_LONGEST_NAME]


_OF_APPLICATIONS = frozenset(kind.kind for kind in KINDS if kind.things == _APPLICATIONS)


def form(kind: str, thing: Any) -> Any:
    """A thing in the form in which its name is kept: equal ones are equal, in however many octets they came."""
    return application(thing) if kind in _OF_APPLICATIONS else thing
