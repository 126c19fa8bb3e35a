"""FLOWCACHE: packets in, flow records out: a Metering Process (RFC 7011 section 2, RFC 5470)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.biflow_names import other_end, reverse
from ulogd_tw.core.counters import ByReason, Count, Dropped, Gauge, Reason
from ulogd_tw.core.flow_end import ACTIVE, ENDED, FORCED, IDLE, NO_ROOM
from ulogd_tw.core.keys import FIVE_TUPLE, Key, known, nearest, registry, ulogd_keys
from ulogd_tw.core.options import Option, boolean, entries, one_of, seconds, text, unsigned32
from ulogd_tw.core.plugin import FLOW, PACKET, Aggregator, Wanted
from ulogd_tw.metering.flow_ends import Rules
from ulogd_tw.metering.flow_layout import BOUNDS, Layout, Wish
from ulogd_tw.metering.flow_table import MOST_PACKETS, SLICE, Ended

ICMP = ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6")
COUNTS = ("packetDeltaCount", "octetDeltaCount")
FIRST = ("ipClassOfService", "vlanId", "ingressInterface", "sourceMacAddress", "destinationMacAddress",
         "flowLabelIPv6", "oob.in")  # fmt: skip
"""Keys with the value of the flow's first packet, unless they are part of the key."""
EMITTED_AT_ONCE = 16384
"""Rows emitted in one batch; many small batches would cost several times as much."""
LATE_S = 1.0
"""Seconds allowed for packets under way before the machine's clock ends their flows."""
SET_BACK_S = 60.0
"""A step back in time by this many seconds means a new clock, not packets out of order."""
LOOK_S = 1.0
"""Seconds between two passes over all flows."""
_MOST_SECONDS = 1e6
_REASONS = {IDLE: "idle", ACTIVE: "active", ENDED: "ended", FORCED: "forced", NO_ROOM: "max_flows"}


class FLOWCACHE(Aggregator):
    """Makes flows of packets: packets with the same key are added up, and a flow becomes a row when it ends.

    A flow ends `idle_timeout` after its last packet or `active_timeout` after its first. After a FIN or RST (with
    biflow=1 a FIN from both sides, or a RST) it ends `end_timeout` after its last packet, or at once when a SYN begins
    a new flow. flowEndReason is 1 (idle timeout), 2 (active timeout), 3 (FIN or RST), 4 (stop of the service or end of
    the files) or 5 (max_flows reached).

    All times are packet times, so the flows of a capture file do not depend on the speed of reading. octetDeltaCount
    counts the octets of IP packets with their headers; packets other than IP are filtered out. Keys other than counters
    have the value of the flow's first packet.
    """

    name = "FLOWCACHE"
    tells_leaving = True
    itype = PACKET
    otype = FLOW
    counts = (
        Gauge("flows", "flows", "Flows in the table now."),
        Gauge("memory_octets", "octets", "Memory of the flow table."),
        ByReason("ended", "Flows by the reason of their end.", tuple(
            Reason(name, "flows", meaning) for name, meaning in (
                ("idle", "No packet arrived for idle_timeout."),
                ("active", "The flow lasted for active_timeout."),
                ("ended", "FIN or RST was seen."),
                ("forced", "The service stopped, or the files were at their end."),
                ("max_flows", "There was no room; make max_flows larger, or look for a scan."),
            )
        )),
        Count("packets_not_sampled", "packets", "Packets that sampling left out."),
        Dropped("key_range", "packets", "Packets with a value that is too wide for its key."),
        Dropped("max_flows", "packets", "Packets of flows without room in the table; normally 0."),
    )  # fmt: skip
    options = (
        Option("key", text, "5tuple," + ",".join(ICMP), "Keys that define a flow, separated by commas. 5tuple stands "
               "for " + ",".join(FIVE_TUPLE)),
        Option("idle_timeout", seconds, 30.0, "Seconds without a packet after which a flow ends."),
        Option("active_timeout", seconds, 120.0, "Seconds after its first packet when a flow ends even if it goes on; "
               "the next packet begins a new flow."),
        Option("end_timeout", seconds, 5.0, "Seconds without a packet after which a flow with a FIN or RST ends. 0: "
               "the next packet begins a new flow."),
        Option("biflow", boolean, False, "1: both directions make one flow, with the reverse counters of RFC 5103 "
               "(reverseOctetDeltaCount); the sender of the first packet is the source. 0: each direction is a flow."),
        Option("max_flows", entries, 1_000_000, "Maximum number of flows in memory; beyond it, the flows idle for the "
               "longest time end early."),
        Option("sampling", unsigned32, 1, "Count one packet in this number, such as 100. 1: count all packets."),
        Option("sampling_method", one_of("systematic", "random"), "systematic", "systematic: count every n-th packet, "
               "where n is sampling; random: one packet at random out of each n."),
        Option("scale", boolean, False, "1: multiply the counters by sampling, as an estimate of the whole traffic."),
    )  # fmt: skip
    may_use = ("tcpControlBits", "protocolIdentifier", "ipTotalLength", "raw.pktlen", "oob.time.sec", "oob.time.usec",
               "observationTimeMilliseconds", "ipTTL", *FIRST)  # fmt: skip
    hidden = frozenset(
        {"sourceMacAddress", "destinationMacAddress", "flowLabelIPv6", "oob.in",
         *(name for bound in BOUNDS for name in bound[1:])}
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        config = self.config
        chosen = config.key.replace("5tuple", ",".join(FIVE_TUPLE))
        self.key_names = tuple(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip()))
        self.hidden = type(self).hidden.difference(name.partition("@")[0] for name in self.key_names)
        idle, active, end = (_us(s) for s in (config.idle_timeout, config.active_timeout, config.end_timeout))
        self._rules = Rules(idle, active, end, config.biflow)
        self._layouts: dict[int, Layout] = {}
        self._clock = 0
        """The time of the latest packet of any family, microseconds since 1970. Each layout has a clock of its own."""
        self._looked = 0
        """The clock at the last complete pass over all flows."""
        self._since_look = 0
        self._looking: deque[Layout] = deque()
        self._sampled = self._picked = 0
        self._random = np.random.default_rng()
        self._outgoing: deque[tuple[Layout, Ended]] = deque()
        self._outgoing_rows = 0
        self._paused = self._held_back = self._held = False
        self._now = 0.0
        more = self.counters.figures
        more["flows"] = lambda: sum(layout.table.n for layout in self._layouts.values())
        more["memory_octets"] = lambda: sum(layout.table.nbytes for layout in self._layouts.values())
        more["ended"] = dict.fromkeys(_REASONS.values(), 0)

    # declarations

    def patience(self) -> float | None:
        """Half of the time allowed for packets under way."""
        return LATE_S / 2

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if not self.key_names:
            yield "key", 'must name at least one key, such as key="5tuple"'
        for name in self.key_names:
            if known(name.partition("@")[0]) is None:
                near = nearest(name, registry.names())
                yield (
                    "key",
                    f"there is no key {name}"
                    + (f"; did you mean {near}?" if near else "; --check prints the keys of each input"),
                )
            elif config.biflow and (end := other_end(name)) and end not in self.key_names:
                yield "key", f"{name} without {end}: with biflow=1 both ends are in the key, or none; add {end}"
        for option in ("idle_timeout", "active_timeout"):
            if not 0.001 <= getattr(config, option) <= _MOST_SECONDS:
                yield option, "must be from 1 ms to 1000000 s"
        if config.end_timeout > _MOST_SECONDS:
            yield "end_timeout", "must be at most 1000000 s"

    def keys(self) -> Iterable[Key]:
        named = [known(name.partition("@")[0]).named(name) for name in self.key_names if known(name.partition("@")[0])]
        counted = [*COUNTS, "flowStartMilliseconds", "flowEndMilliseconds", "flowEndReason", "tcpControlBits"]
        if self.config.biflow:
            counted += [reverse(name) for name in (*COUNTS, "tcpControlBits")]
        bounds = [name for bound in BOUNDS for name in bound[1:]]
        others = [*counted, *self._constants(), *(n for n in FIRST if n not in self.key_names), *bounds]
        return (*named, *ulogd_keys(*others))

    def _constants(self) -> dict[str, int]:
        found = {"biflowDirection": 1} if self.config.biflow else {}
        if self.config.sampling > 1:
            random = self.config.sampling_method == "random"
            found |= {"samplingInterval": self.config.sampling, "samplingAlgorithm": 2 if random else 1}
        return found

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        optional = [name for name in self.may_use if name not in (*FIRST, "ipTTL")]
        optional += [name for name in FIRST if name in wanted]
        optional += ["ipTTL"] if "minimumTTL" in wanted or "maximumTTL" in wanted else []
        needed = {name: name not in ICMP for name in self.key_names}
        return needed | {name: False for name in optional if name not in needed}

    # packets in

    def process(self, batch: Batch) -> None:
        self._now, self._held = batch.now, batch.held
        rows = self._chosen(batch)
        if rows is not None:
            batch = batch.take(rows)
        if not batch.n:
            return
        for at in range(0, batch.n, MOST_PACKETS):
            part = batch if batch.n <= MOST_PACKETS else batch.take(slice(at, at + MOST_PACKETS))
            self._add(part)
        if self._outgoing_rows >= EMITTED_AT_ONCE:
            if self._paused:
                self._hold_back()
            else:
                self._send(all_=True)

    def _chosen(self, batch: Batch) -> np.ndarray | None:
        """A mask of the rows to count: sampled IP packets. None: all."""
        keep = None
        if self.config.sampling > 1:
            keep = self._sample(batch.n)
            self.counters.figures["packets_not_sampled"] += batch.n - int(np.count_nonzero(keep))
        addresses = [n for n in self.key_names if known(n.partition("@")[0]).type.kind in ("address", "ipv4", "ipv6")]
        if addresses:
            found = [f for name in addresses if (f := self.find(batch, name)) is not None]
            masks = [f.missing for f in found]
            if not found or all(m is not None for m in masks):
                of_ip = ~np.logical_and.reduce(masks) if found else np.zeros(batch.n, bool)
                if not of_ip.all():
                    keep = of_ip if keep is None else keep & of_ip
        if keep is not None:
            self.counters.rows_filtered += batch.n - int(np.count_nonzero(keep))
        return keep

    def _sample(self, n: int) -> np.ndarray:
        """A mask of one packet in each `sampling` consecutive ones (RFC 5475 sections 5.1 and 5.2.1)."""
        every = self.config.sampling
        place = (self._sampled + np.arange(n)) % every
        blocks = (self._sampled + np.arange(n)) // every
        picks = np.zeros(int(blocks[-1]) + 1, np.int64)
        if self.config.sampling_method == "random":
            picks = self._random.integers(0, every, len(picks))
            if self._sampled:  # goes on in a block that has begun
                picks[0] = self._picked
        self._picked = int(picks[-1])
        self._sampled = (self._sampled + n) % every
        return place == picks[blocks]

    def _times(self, batch: Batch, layout: Layout) -> np.ndarray:
        """Times of the packets, microseconds since 1970; never back, even for a packet out of order.

        The packets in a batch of BASE's input come family by family, so each family has a clock. Times of the other
        families are from an earlier batch: no family can have earlier packets any more.
        """
        parts = self.find(batch, "oob.time.sec"), self.find(batch, "oob.time.usec")
        if parts[0] is not None:
            times, missing = parts[0].values.astype(np.int64) * 1_000_000, parts[0].missing
            if parts[1] is not None:
                times += parts[1].values.astype(np.int64)
        elif (whole := self.find(batch, "observationTimeMilliseconds")) is not None:
            times, missing = whole.values.astype(np.int64) * 1000, whole.missing
        else:
            times, missing = np.full(batch.n, int(batch.now * 1e6)), None
        if missing is not None:
            times[missing] = int(batch.now * 1e6)
        if int(times.max()) < layout.clock - int(SET_BACK_S * 1e6):
            self._begin_anew()
        for other in self._layouts.values():
            other.clock = max(other.clock, layout.clock)
        np.maximum(times, layout.clock, out=times)
        np.maximum.accumulate(times, out=times)
        layout.clock = int(times[-1])
        self._clock = max(self._clock, layout.clock)
        return times

    def _add(self, batch: Batch) -> None:
        layout = self._layout(batch)
        times = self._times(batch, layout)

        def find(name: str) -> Any:
            return self.find(batch, name)

        rows, fits = layout.rows(find, times, batch.n)
        if fits is not None and not fits.all():
            self.counters.dropped["key_range"] += batch.n - int(np.count_nonzero(fits))
            batch = batch.take(fits)
            if not batch.n:
                return
            rows = layout.rows(find, times[fits], batch.n)[0]
        ended, full = layout.table.add(rows)
        self.counters.rows_merged += batch.n - full
        if full:
            self.counters.dropped["max_flows"] += full
        self._put(layout, ended)
        self._since_look += batch.n
        self._look()
        self._make_room()

    def _layout(self, batch: Batch) -> Layout:
        kinds = {f.key.type.kind for n in self.key_names if (f := self.find(batch, n)) is not None}
        family = 4 if "ipv4" in kinds else 6 if "ipv6" in kinds else 0
        layout = self._layouts.get(family)
        if layout is None:
            first = tuple(n for n in FIRST if n in self.wanted and n not in self.key_names)
            scale = self.config.sampling if self.config.scale else 1
            constants = {name: value for name, value in self._constants().items() if name in self.wanted}
            wish = Wish(self.key_names, first, self.config.biflow, self.wanted, self.config.max_flows, scale, constants)
            layout = self._layouts[family] = Layout(wish, family, self._rules)
        return layout

    # flows that end

    def _look(self) -> None:
        """Check some flows for their end, if the clock has advanced enough."""
        if not self._looking:
            size = sum(layout.table.size for layout in self._layouts.values())
            due = self._clock - self._looked >= LOOK_S * 1e6
            if not due or (self._replayed and self._since_look < size // 2):
                return
            self._look_anew()
        self._look_on()

    def _look_anew(self) -> None:
        self._looked, self._since_look = self._clock, 0
        self._looking = deque(layout for layout in self._layouts.values() if layout.table.n)

    def _look_on(self) -> None:
        """Check the next slice."""
        if self._looking:
            layout = self._looking[0]
            self._put(layout, layout.table.look(layout.clock))
            if layout.table.looked_over:
                self._looking.popleft()

    def _make_room(self) -> None:
        """End the idlest flows if there are too many: some more than needed, since it costs the same."""
        most = self.config.max_flows
        count = sum(layout.table.n for layout in self._layouts.values())
        if count <= most:
            return
        self._look_anew()
        while self._looking:
            self._look_on()
        last = np.concatenate([layout.table.last_times() for layout in self._layouts.values()])
        if len(last) <= most:
            return
        gone = min(len(last) - most + most // 16, len(last) - 1)
        before = int(np.partition(last, gone)[gone])
        if len(last) - int(np.count_nonzero(last < before)) > most:  # many of one time
            before += 1
        for layout in self._layouts.values():
            self._put(layout, layout.table.idlest(before, NO_ROOM))

    def _end_all(self) -> None:
        self._looking.clear()
        for layout in self._layouts.values():
            self._put(layout, layout.table.end_all(self._clock))

    @property
    def _replayed(self) -> bool:
        return self.source is not None and self.source.own_clock

    # rows out

    def _put(self, layout: Layout, ended: Ended | None) -> None:
        if ended is None:
            return
        self._outgoing.append((layout, ended))
        self._outgoing_rows += len(ended.reasons)
        counts = np.bincount(ended.reasons, minlength=NO_ROOM + 1).tolist()
        for reason, name in _REASONS.items():
            self.counters.figures["ended"][name] += counts[reason]
        if self._outgoing_rows > max(self.config.max_flows, SLICE):
            self._send(all_=True)  # the outputs below count rows without room; nothing here grows without bound

    def _send(self, all_: bool = False) -> None:
        """Emit ended flows: about EMITTED_AT_ONCE rows of one layout in a batch, or all of them."""
        while self._outgoing:
            layout, first = self._outgoing.popleft()
            parts, count, others = [first], len(first.reasons), deque()
            while self._outgoing and count < EMITTED_AT_ONCE:
                other, ended = self._outgoing.popleft()
                if other is layout:
                    parts.append(ended)
                    count += len(ended.reasons)
                else:
                    others.append((other, ended))
            self._outgoing.extendleft(reversed(others))
            joined = Ended(np.concatenate([p.rows for p in parts]), np.concatenate([p.reasons for p in parts]))
            self._outgoing_rows -= count
            for at in range(0, count, EMITTED_AT_ONCE):
                piece = Ended(joined.rows[at : at + EMITTED_AT_ONCE], joined.reasons[at : at + EMITTED_AT_ONCE])
                batch = layout.batch(piece, self._now, self._held)
                if self.ledger is not None:
                    self.ledger.leave(layout.table.packets(piece))
                self.emit(batch)
            if not all_:
                return

    def _hold_back(self) -> None:
        """Pause a replayed file while its flows find no room below."""
        if self._replayed and not self._held_back:
            self._held_back = True
            self.source.pause()

    @property
    def holds(self) -> bool:
        return bool(self._outgoing or any(layout.table.n for layout in self._layouts.values()))

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._held_back:
            self._held_back = False
            self.source.resume()

    def clock_set(self, now: float, step: float) -> None:
        """All flows end where the clock goes back, as the times of their packets are still to come."""
        if step < 0 and not self._replayed:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Another clock begins."""
        self._end_all()
        self._clock = self._looked = 0
        for layout in self._layouts.values():
            layout.clock = 0

    def wake(self, now: float) -> float:
        """End expired flows, a slice at a time, and emit them.

        The packets of a replayed file have a clock of their own; at its end all flows end.
        """
        if self._replayed:
            if self.source.at_end and any(layout.table.n for layout in self._layouts.values()):
                self._end_all()
        elif self._layouts:
            self._now = now
            self._clock = max(self._clock, int((now - LATE_S) * 1e6))
            for layout in self._layouts.values():
                layout.clock = max(layout.clock, int((now - LATE_S) * 1e6))
            if not self._looking and abs(self._clock - self._looked) >= LOOK_S * 1e6:
                self._look_anew()
            self._look_on()
        if self._outgoing and not self._paused:
            self._send()
        if self._looking:
            return 0.0
        if self._outgoing:
            return 0.05 if self._paused else 0.0
        return 0.25

    def flush(self) -> None:
        self._end_all()
        self._send(all_=True)


def _us(span: float) -> int:
    return int(min(span, _MOST_SECONDS) * 1e6)
