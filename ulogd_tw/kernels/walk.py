"""Messages in memory to runs of records (walk.c): the templates that are looked for, and what a walk met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ulogd_tw.kernels import ffi, lib

MOST_TEMPLATES = 1 << 15
"""Templates that have room; a table that is full is made anew by its owner."""
_MOST_RUNS = 1 << 13
_MOST_SOURCES = _MOST_RUNS
SOURCE = 7
"""Numbers of a source: template, place of its body, octets, rows, Export Time (s), uptime (ms), nanoseconds."""

Template = tuple[int, int, int]
"""What a walk met of a template: its place, rows, octets."""


def _dtype(name: str) -> np.dtype:
    """A structure of C as NumPy sees it."""
    form = ffi.typeof(name)
    fields = [(field, described) for field, described in form.fields]
    return np.dtype(
        {
            "names": [field for field, _ in fields],
            "formats": [_CODES[described.type.cname] for _, described in fields],
            "offsets": [described.offset for _, described in fields],
            "itemsize": ffi.sizeof(form),
        }
    )


_CODES = {"uint32_t": "u4", "int32_t": "i4", "int64_t": "i8"}
_OF_DOMAIN = ["template_", "place", "messages", "first_number", "first_rows", "number", "next", "first_exported",
              "exported", "first_uptime", "uptime", "sampling", "rows", "octets"]  # fmt: skip
_OF_TEMPLATE = ["rows", "body"]


class Walk:
    """The table of templates, and the state of the last walk. Groups are the domains, numbered by `new_group`.

    `same_uptime`: ms by which the uptimes of NetFlow v9 and their times of export may differ from packet to packet.
    """

    def __init__(self, same_uptime: int) -> None:
        self._state = state = ffi.new("ut_walk *")
        slots = 1 << (4 * MOST_TEMPLATES - 1).bit_length()
        room = {"templates": ("ut_template", MOST_TEMPLATES), "index": ("int32_t", slots),
                "segments": ("ut_segment", MOST_TEMPLATES), "domains": ("ut_domain", MOST_TEMPLATES),
                "met_templates": ("int32_t", MOST_TEMPLATES), "met_domains": ("int32_t", MOST_TEMPLATES),
                "runs": ("ut_run", _MOST_RUNS)}  # fmt: skip
        # Of NumPy's zeros only the pages that are used take memory; what cffi makes is written at once.
        self._kept = {name: np.zeros(ffi.sizeof(form) * n, np.uint8) for name, (form, n) in room.items()}
        for name, (form, _) in room.items():
            setattr(state, name, ffi.cast(f"{form} *", ffi.from_buffer(self._kept[name])))
        state.same_uptime = same_uptime
        state.most_templates, state.index_mask, state.most_runs = MOST_TEMPLATES, slots - 1, _MOST_RUNS
        self._templates = self._kept["templates"].view(_dtype("ut_template"))[_OF_TEMPLATE]
        self._domains = self._kept["domains"].view(_dtype("ut_domain"))[_OF_DOMAIN]
        self._met = tuple(self._kept[name].view(np.int32) for name in ("met_templates", "met_domains"))
        self._sources = np.zeros((_MOST_SOURCES, SOURCE), np.int64)
        self._to_sources = ffi.from_buffer("int64_t[]", self._sources)

    def new_group(self) -> int:
        """The number of a further domain; -1 where there is no room."""
        state = self._state
        if state.n_domains == MOST_TEMPLATES:
            return -1
        state.n_domains += 1
        return state.n_domains - 1

    def put(
        self, key: tuple[int, int, int], group: int, octets: int, segments: Sequence[tuple[int, int]], tail: int,
        least: int,
    ) -> int:  # fmt: skip
        """Look for Data Sets of a template from now on: (session, domain, version << 16 | Set ID). Its place, or -1."""
        state = self._state
        place, segment = state.n_templates, state.n_segments
        if place == MOST_TEMPLATES or segment + len(segments) > MOST_TEMPLATES:
            return -1
        for number, (skip, rest) in enumerate(segments, segment):
            state.segments[number].skip, state.segments[number].rest = skip, rest
        template = state.templates[place]
        template.session, template.domain, template.version_set = key
        template.group, template.octets, template.least, template.tail = group, octets, least, tail
        template.segment, template.segments, template.live = segment, len(segments), 1
        state.n_templates, state.n_segments = place + 1, segment + len(segments)
        lib.ut_put(state, place)
        return place

    def remove(self, place: int) -> None:
        """The template at this place is not valid any more."""
        self._state.templates[place].live = 0

    def messages(
        self, memory: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sessions: np.ndarray, first: int, end: int
    ) -> int:
        """Walk Messages [first, end) of `memory` (uint8): int64 `starts` and `lengths`, uint32 `sessions`.

        Returns the place of the first one that was not taken.
        """
        octets = ffi.from_buffer("uint8_t[]", memory)
        return lib.ut_messages(
            self._state, octets, len(octets), ffi.from_buffer("int64_t[]", starts),
            ffi.from_buffer("int64_t[]", lengths), ffi.from_buffer("uint32_t[]", sessions), first, end,
        )  # fmt: skip

    def met_templates(self) -> list[Template]:
        """The templates of the records in the last walk, in the order of their first ones."""
        places = self._met[0][: self._state.n_met_templates]
        rows = self._templates[places].tolist()
        return [(place, *figures) for place, figures in zip(places.tolist(), rows, strict=True)]

    def met_domains(self) -> list[tuple]:
        """The domains of the last walk, in the order of their first Messages: `_OF_DOMAIN`."""
        return self._domains[self._met[1][: self._state.n_met_domains]].tolist()

    def bodies(self, memory: np.ndarray, order: Iterable[int], before: int, room: int) -> tuple[np.ndarray, list]:
        """Copies of the records of templates in this `order`, and the sources (see `SOURCE`).

        `room`: octets of them all. Each body has `before` octets in front.
        """
        places = ffi.new("int32_t[]", list(order))
        out = np.empty(room + before * self._state.n_runs, np.uint8)
        octets, to = ffi.from_buffer("uint8_t[]", memory), ffi.from_buffer("uint8_t[]", out)
        n = lib.ut_bodies(self._state, octets, len(octets), places, len(places), before, to, len(out),
                          self._to_sources, _MOST_SOURCES)  # fmt: skip
        assert n >= 0, "a walk has met more than it had room for"
        return out, self._sources[:n].tolist()
