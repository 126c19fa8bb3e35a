"""The base classes of plugins: a declaration of types, options and keys, and one method for a batch.

The life of an instance: it is made from its options (no I/O); `mistakes` checks them; `prepare` may look at the
outside; the stack is built from `keys` and `requests`; `open` opens; an input's `begin` starts to read; `stop` returns
when all is closed and nothing received is left inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters, Declared, Dropped, Fault, Lost
from ulogd_tw.core.errors import raised
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, Options, octets, positive, text
from ulogd_tw.core.passages import Passage
from ulogd_tw.core.paths import problem
from ulogd_tw.core.patience import AT_ONCE, Ends, Wish
from ulogd_tw.core.resolve import Found, Sources
from ulogd_tw.core.states import FINE, State

NULL, RAW, PACKET, FLOW, SUM = 0, 1, 2, 4, 8
"""Record types; a plugin that takes several says ``PACKET | FLOW``."""

TYPE_NAMES = {RAW: "raw", PACKET: "packet", FLOW: "flow", SUM: "sum"}


STATE = Fault("state", "occasions", "With state_dir: state could not be read or written; the log says why.")
UNSAVED = Lost("unsaved", "rows", "With state_dir: rows held when an earlier run was killed, neither passed on nor "
                                  "saved, and rows of groups saved by it that cannot be read. For a row of an "
                                  "AGGREGATE, all rows in its sum count.")  # fmt: skip


def type_text(types: int) -> str:
    """``packet|flow``, or ``null`` for none."""
    return "|".join(name for bit, name in TYPE_NAMES.items() if types & bit) or "null"


class All(Enum):
    """The request for every key of the stack. An Enum of one value, so that type checkers understand ``is ALL``."""

    ALL = "ALL"

    def __repr__(self) -> str:
        return "ALL"

    def __contains__(self, name: object) -> bool:
        return True


ALL: Final = All.ALL
Wanted = frozenset[str] | All


class Plugin:
    """One instance of a plugin. Subclass `Input`, `Filter`, `Aggregator` or `Output`."""

    name = ""
    itype = otype = NULL
    options: tuple[Option, ...] = ()
    common_options: tuple[Option, ...] = ()
    """Options of every plugin of this kind; `all_options` has both."""
    section_options: tuple[Option, ...] = ()
    """Options of the sections ``[collector:WORD]``, one for any word of its option `collectors`."""
    counts: tuple[Declared, ...] = ()
    """Its counters beyond the numbers of every instance: figures, and reasons of dropped, lost and errors."""
    common_counts: tuple[Declared, ...] = ()
    """The counters of every plugin of this kind; `all_counts` has both."""
    provides: tuple[Key, ...] = ()
    uses: tuple[str, ...] = ()
    """Names of keys that it needs."""
    may_use: tuple[str, ...] = ()
    """Names of keys used if a plugin above gives them."""
    seldom: frozenset[str] = frozenset()
    """Requested keys needed in some records only; see `quantities.needed`."""
    seldom_wanted: frozenset[str] = frozenset()
    """Wanted keys needed in some records only by every plugin that requests them."""
    hidden: frozenset[str] = frozenset()
    """Names of keys given only on request by name: another form of the same datum, or seldom of use."""
    open_keys = False
    """True if its keys depend on peers: it gives any Information Element."""
    own_clock = False
    """True while an input's rows have their own times (a replayed file). Filters below ask `source`."""
    source: Input | None = None
    """The input above a filter."""
    copied = False
    """Set where an output below `copies` records."""
    keeps_state = False
    """Set before `open` where `keep_state` will be called."""
    ledger: Any = None
    """Its `core.ledger.Entry`, set with ``state_dir`` while the service runs."""
    capabilities: frozenset[int] = frozenset()
    """Numbers of the capabilities that it needs while it runs: they stay when root becomes another user."""
    passes = True
    """False if keys of the plugins above do not reach the plugins below (an aggregate makes new rows)."""
    keeps_rows = False
    """Whether it keeps all rows for a while anyway, so that nobody sees them wait on their way to it."""

    def __init__(self, instance: str, config: Options | None = None) -> None:
        self.instance = instance
        self.config: Any = config if config is not None else Options(self.all_options())
        self.counters = Counters(self.name, isinstance(self, Aggregator), self.all_counts())
        self.sources = Sources()
        self.wanted: Wanted = frozenset()
        self.emit: Callable[[Batch], None] = _unplugged
        self.fault: Callable[[Exception], None] = raised
        """Takes an exception of the plugin, so that Twisted does not see it and close the socket."""

        self.tell: Callable[..., None] = _untold
        """Takes an event for administrators: its kind, its text and further facts by name (`operating.events`)."""

    def __repr__(self) -> str:
        return f"<{self.instance}:{self.name}>"

    @classmethod
    def all_options(cls) -> tuple[Option, ...]:
        """Its own options, then those of its kind."""
        own = {option.name for option in cls.options}
        return (*cls.options, *(option for option in cls.common_options if option.name not in own))

    @classmethod
    def all_counts(cls) -> tuple[Declared, ...]:
        """Its own counters, then those of its kind."""
        return (*cls.counts, *cls.common_counts)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """(option, text) for each fault beyond the reach of a single option's reader."""
        return iter(())

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """(option, obstacle, whether the stack cannot run), for obstacles visible without opening anything.

        For ``--check`` and doctor.
        """
        for option in self.all_options():
            if text := problem(option.read, getattr(self.config, option.name, None)):
                yield option.name, text, True

    def taken(self, running: Iterable[Plugin]) -> Iterator[tuple[str, str]]:
        """(option, obstacle) for what another program has, such as an address, as far as an attempt shows it.

        Asked in the running service before it restarts: what the `running` instances have will be free.
        """
        return iter(())

    def remarks(self) -> Iterator[tuple[str, str]]:
        """(option, text) for values that work but may be mistakes: warnings, errors with ``strict=1``."""
        return iter(())

    def prepare(self) -> None:
        """Look at the outside (the columns of a table) before keys are resolved.

        Blocking but bounded; never called for ``--check``. Raises `StartError` where the stack cannot work.
        """

    def keys(self) -> Iterable[Key]:
        """The keys given by this instance; they may depend on its options."""
        return self.provides

    def requests(self, wanted: Wanted) -> dict[str, bool] | All:
        """The keys needed to give the keys `wanted`: name -> True if mandatory. `ALL`: every key."""
        return dict.fromkeys(self.uses, True) | dict.fromkeys(self.may_use, False)

    def available(self, keys: tuple[Key, ...] | None) -> Iterable[str]:
        """Called before `open` if the instance asked for `ALL`, with the keys that can reach it, in stack order.

        None: a plugin above gives any Information Element. Returns the texts of mistakes.
        """
        return ()

    def patience(self) -> float | None:
        """Seconds that a row may wait for others on its way to this instance; 0: none. None: no wish of its own.

        An input gathers for the shortest wish below it. See `core.patience`.
        """
        return None

    def interval_ends(self) -> Iterable[Ends]:
        """Ends of intervals by the time of arrival: a row that came before must be here by then."""
        return ()

    def find(self, batch: Batch, name: str) -> Found | None:
        """The column of a requested key in this batch, under any name or form."""
        return self.sources.find(batch, name)

    def open(self) -> Any:
        """Open sockets, files, databases. May return a Deferred. Raises `StartError`."""

    stop_within = 10.0
    """Seconds that `stop` may take, set before it."""

    def stop(self) -> Any:
        """Close what `open` opened, with nothing left inside. May return a Deferred."""

    # what outlives it

    def keep_state(self, directory: Path, every: float) -> None:
        """Keep in this directory what a restart would lose: read what an earlier run left, then write while it runs.

        Called with ``state_dir`` only, once, before `begin` of an input and before `open` of others; the directory is
        there, and nobody else uses it. Changes are on the disk after `every` seconds, all of them after `stop`. What is
        damaged or of a newer release is set aside, logged, and counted as ``errors.state``.
        """

    def kept(self) -> dict[str, Any]:
        """What is kept by `keep_state` at this moment, for the operator: numbers and texts by name."""
        return {}

    def held_rows(self) -> int:
        """The rows that the groups of an aggregate sum up now; after `open` those of an earlier run."""
        return 0

    def count_unsaved(self, former: Any, ident: str) -> None:
        """Count the rows lost in an earlier run (`core.ledger.Former`): it was killed, or its groups are gone.

        Called once, after `open`.
        """
        if lost := former.unsaved(ident, self.held_rows()):
            self.counters.lost["unsaved"] += lost

    def give_state(self) -> Any:
        """What a successor in this process needs to go on in its place, for `take_state`; None: nothing.

        Called once, when nothing comes any more: after `stop` of an input, before that of others, and in place of
        `Aggregator.flush` where the successor takes it. It stays as it is.
        """
        return None

    def take_state(self, state: Any) -> bool:
        """Go on with the state of a replaced instance of this class; False, and nothing taken, where it does not fit.

        Called before `keep_state`, which then reads no file; of an input after `open`, as the sessions are there then.
        """
        return False

    def reopen(self) -> None:
        """SIGHUP: open files again, since a rotation may have renamed them."""

    rewires = False
    """True if other keys can be wanted of it while it runs; see `rewire`."""

    def rewire(self, twin: Plugin) -> None:
        """Give what is wanted of `twin` from now on: an instance that is not open, in the graph of a reload.

        Rows that wait inside go the way that they would have gone.
        """
        raise NotImplementedError

    def pause(self) -> None:
        """A queue below is full: an input stops reading if its peer can wait, an aggregate keeps its rows."""

    def resume(self) -> None:
        """There is room again."""

    def wake(self, now: float) -> float | None:
        """Do the work due at this time; returns seconds until the next call, or None for never.

        First called at the start. `now` is the wall clock, which can be set: a plugin measures durations otherwise.
        """
        return None

    def clock_set(self, now: float, step: float) -> None:
        """The wall clock was set by `step` seconds and shows `now`; it is called before the next `wake`."""


def hand_over(former: Plugin, successor: Plugin) -> bool:
    """Give the state of a replaced instance to its successor.

    False where nothing is handed over: an aggregate must then be flushed, as at a stop.
    """
    if former.name != successor.name:
        return False
    state = former.give_state()
    return state is not None and successor.take_state(state)


class Input(Plugin):
    """Begins a stack; calls `emit` with batches between `begin` and the end of `stop`."""

    chooses = False
    """True if its rows have only one type of `otype`: the last type that the plugin below takes."""
    seconds_apart = False
    """Set by a filter below: rows of different seconds must come in different batches."""
    continues = False
    """True once it is open, if the kernel has kept for it all that came since the process before this one."""
    listens = False
    """True if peers connect to it. Such inputs stop last, since an exporter of this process may be a peer."""
    common_counts = (STATE, UNSAVED)
    at_end = False
    """True after its last row."""
    opens_beside = False
    """True if it can be opened while a former instance of it still runs: it takes over sockets, and reads from `begin`
    on."""
    exits = False
    """True if the service ends when all inputs with it are at their end."""
    wish = Wish()
    """How long its rows may wait for others, set by the build of the stacks."""
    watchers = 0
    """How many look at its rows as they come."""

    def __init__(self, instance: str, config: Options | None = None) -> None:
        super().__init__(instance, config)
        self.ended: Callable[[], None] = _nothing
        """The input calls this at its end."""
        self.outlets: dict[str, Passage] = {}
        """The outputs below, by their names: how far its rows have come."""

    @classmethod
    def flowing(cls, below: type[Plugin]) -> int:
        """The types of its rows above this plugin."""
        types = cls.otype & below.itype
        return 1 << types.bit_length() - 1 if types and cls.chooses else cls.otype

    def begin(self) -> None:
        """Start to read; everything is open by now."""

    workers = 1
    """The number of processes that read; with more than one, `divide` is called before `open`."""

    def divide(self, plan: Callable[[], Any], node_of: Callable[[str], Any]) -> None:
        """Let workers read. `plan` gives what they run, `node_of` finds the nodes of the service by their idents."""

    def halt(self) -> Any:
        """Before the graph is replaced: workers hand on all that they have, and end. May return a Deferred."""

    def go_on(self) -> None:
        """The new graph is there."""

    def may_wait(self) -> float | None:
        """Seconds for which its rows may wait for others now; None where nobody below says so."""
        return AT_ONCE if self.watchers else self.wish.seconds

    def catch_up(self) -> None:
        """Read what has arrived, without waiting for more."""

    def read_now(self) -> None:
        """SIGUSR2: give what is known so far, without waiting for its time."""


class Filter(Plugin):
    """Takes a batch and gives a batch: the same rows with more keys, or fewer rows, or None for none.

    Rows of different schemas (packets of several families) become several batches.
    """

    common_counts = (Dropped("error", "rows", "Rows of a batch that the plugin failed to process."), STATE, UNSAVED)

    def process(self, batch: Batch) -> Batch | Sequence[Batch] | None:
        """The batch or batches for the plugins below.

        Rows left out count as filtered; the plugin counts drops itself.
        """
        raise NotImplementedError


class Aggregator(Filter):
    """A filter that keeps rows and emits rows of its own at its own time; `process` returns None.

    It counts `rows_merged` itself.
    """

    passes = False
    weighs = False
    """Whether its rows have the number of rows that they sum up as the column flows."""
    tells_leaving = False
    """Whether it tells the ledger how many of the rows added up leave with its own (`Entry.leave`)."""
    holds = False
    """Whether it holds rows."""

    def flush(self) -> None:
        """Emit all rows held; the inputs have stopped. What is kept for the next start stays."""

    def continued_by(self, other: Plugin | None) -> bool:
        """Whether the instance of this name at the next start goes on with the rows that `flush` keeps.

        None: there will be no such instance.
        """
        return True

    def hand_on(self) -> None:
        """Emit all rows held, also those that would be kept: another instance is in its place from now on."""
        self.flush()


class Output(Plugin):
    """Ends a stack. `inputs`: the inputs of all its stacks."""

    inputs: tuple[Input, ...] = ()
    makers: tuple[Plugin, ...] = ()
    """Of each of its stacks the instance that makes its rows: the nearest aggregate, else the input."""
    clock: Any = None
    """The reactor, or a clock, of an output that gathers."""
    knows_past = False
    """Whether it can tell that a batch from the disk is stored already (`Batch.past`): such are written one by one."""
    together = False
    """True if `write_together` takes batches of several schemas at once: it can order packets of both families."""
    losses: Callable[[], dict[str, int]] = staticmethod(dict)
    """Totals of `lost` and `dropped` on the way to this output, itself included: ``ct1 lost.kernel`` and such."""
    waited: Callable[[], float] = staticmethod(float)
    """Seconds for which the oldest row in the queue before this output has waited."""
    common_options = (
        Option("queue_rows", positive, 1_000_000, "Maximum number of rows waiting for this output. From half of it on, "
               "inputs able to wait (files, TCP) are paused; beyond it, rows of other inputs are dropped and counted "
               "as queue_full."),
        Option("queue_octets", octets, 256 << 20, "Maximum memory of the rows waiting for this output, in octets; "
               "works as queue_rows does."),
        Option("spool", text, "", "Directory for rows that are still waiting when stop_timeout ends; the next start "
               "reads and writes them. Empty: such rows are dropped and counted as stop_timeout."),
    )  # fmt: skip
    common_counts = (
        Dropped("queue_full", "rows", "Rows beyond queue_rows or queue_octets."),
        Dropped("stop_timeout", "rows", "Rows that still waited at the stop, without spool."),
        Dropped("error", "rows", "Rows of a batch that the output failed to write."),
        STATE,
        UNSAVED,
    )

    @property
    def copies(self) -> bool:
        """True if it writes received records of IPFIX as they came, where no plugin has changed them."""
        return False

    @property
    def gathers(self) -> Gather | None:
        """How much waits before a write. None: a batch is written when it comes, and others wait meanwhile."""
        return Gather() if self.together else None

    def requests_of(self, above: frozenset[str] | None) -> dict[str, bool] | All:
        """As `requests`, for one stack with the keys `above` (None: any key may come)."""
        return self.requests(frozenset())

    def named_beside_all(self) -> dict[str, bool]:
        """Keys to request by name where it asked for `ALL`: some are only given by name (`Plugin.hidden`)."""
        return {}

    def spool_places(self, state: Path | None) -> Iterable[Path]:
        """Directories of its own for what waits on the disk; `state` is where it keeps state, if it does."""
        return ()

    def state(self) -> State:
        """How its destination is now, for `/readyz`. Asked often; it opens nothing."""
        return FINE

    def write(self, batch: Batch) -> Any:
        """Write all rows. A Deferred opens a bounded queue before this output until it fires.

        Rows counted as dropped or filtered meanwhile do not count as written.
        """
        raise NotImplementedError

    def write_together(self, batches: Sequence[Batch]) -> Any:
        """As `write`, for several batches, of an output that is `together`."""
        raise NotImplementedError


def _untold(kind: str, text: str, **facts: Any) -> None:
    """Nobody looks at events."""


def _nothing() -> None:
    pass


def _unplugged(batch: Batch) -> None:
    raise RuntimeError("this instance is in no stack")
