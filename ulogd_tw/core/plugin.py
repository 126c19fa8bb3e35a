"""What a plugin is: a declaration of types, options and keys, and one method that takes a batch.

The life of an instance: it is made from its options (no I/O); `mistakes` says what is wrong with them; `prepare` may
look at the outside; the stack is built from `keys` and `requests`; `open` opens; an input's `begin` starts to read;
`stop` returns when all is closed and nothing received is left inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Final

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters, Declared, Dropped
from ulogd_tw.core.errors import raised
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, Options, octets, positive, text
from ulogd_tw.core.resolve import Found, Sources

NULL, RAW, PACKET, FLOW, SUM = 0, 1, 2, 4, 8
"""Record types; a plugin that takes several says ``PACKET | FLOW``."""

TYPE_NAMES = {RAW: "raw", PACKET: "packet", FLOW: "flow", SUM: "sum"}


def type_text(types: int) -> str:
    """``packet|flow``, or ``null`` for none."""
    return "|".join(name for bit, name in TYPE_NAMES.items() if types & bit) or "null"


class All(Enum):
    """The request for every key of the stack. An Enum of one value, so that ``is ALL`` tells the types apart."""

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
    """Options of a section ``[collector:WORD]``, which may be there for each word of its option `collectors`."""
    counts: tuple[Declared, ...] = ()
    """What it counts beyond the numbers of every instance: figures, and reasons of dropped, lost and errors."""
    common_counts: tuple[Declared, ...] = ()
    """What every plugin of this kind counts; `all_counts` has both."""
    provides: tuple[Key, ...] = ()
    uses: tuple[str, ...] = ()
    """Names of keys without which it cannot work."""
    may_use: tuple[str, ...] = ()
    """Names of keys that it takes where some plugin above gives them."""
    hidden: frozenset[str] = frozenset()
    """Names of keys that only those get who ask for them by name: the same datum in another form, or seldom of use."""
    open_keys = False
    """True where it gives any Information Element that a peer may send."""
    own_clock = False
    """True while rows of an input carry times of their own (a file that is replayed): a filter below asks `source`."""
    source: Input | None = None
    """Of a filter: the input whose rows reach it."""
    passes = True
    """False where the keys of the plugins above end here (an aggregate is a new row)."""

    def __init__(self, instance: str, config: Options | None = None) -> None:
        self.instance = instance
        self.config: Any = config if config is not None else Options(self.all_options())
        self.counters = Counters(self.name, isinstance(self, Aggregator), self.all_counts())
        self.sources = Sources()
        self.wanted: Wanted = frozenset()
        self.emit: Callable[[Batch], None] = _unplugged
        self.fault: Callable[[Exception], None] = raised
        """Takes an exception that must not reach Twisted, which would close the socket that brought the octets."""

    def __repr__(self) -> str:
        return f"<{self.instance}:{self.name}>"

    @classmethod
    def all_options(cls) -> tuple[Option, ...]:
        """Its own options, then those of its kind."""
        own = {option.name for option in cls.options}
        return (*cls.options, *(option for option in cls.common_options if option.name not in own))

    @classmethod
    def all_counts(cls) -> tuple[Declared, ...]:
        """What it counts, then what its kind counts."""
        return (*cls.counts, *cls.common_counts)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """(option, what is wrong with it) for faults that a single option's reader cannot see."""
        return iter(())

    def prepare(self) -> None:
        """Learn what only the outside knows (the columns of a table) before keys are resolved.

        Blocking but bounded; never called for ``--check``. Raises `StartError` where the stack cannot work.
        """

    def keys(self) -> Iterable[Key]:
        """The keys that this instance can give; may depend on its options."""
        return self.provides

    def requests(self, wanted: Wanted) -> dict[str, bool] | All:
        """The keys it needs for those `wanted` of it: name -> whether it cannot do without. `ALL`: every key."""
        return dict.fromkeys(self.uses, True) | dict.fromkeys(self.may_use, False)

    def available(self, keys: tuple[Key, ...] | None) -> Iterable[str]:
        """Told before `open` to an instance that asked for `ALL`: the keys that can reach it, in stack order.

        None where a plugin above gives any element that a peer may send. Gives what is wrong with that.
        """
        return ()

    def find(self, batch: Batch, name: str) -> Found | None:
        """The column of a requested key in this batch, whichever name or form the batch has it in."""
        return self.sources.find(batch, name)

    def open(self) -> Any:
        """Open sockets, files, databases. May return a Deferred. Raises `StartError`."""

    def stop(self) -> Any:
        """Close what `open` opened, with nothing left inside. May return a Deferred."""

    def reopen(self) -> None:
        """SIGHUP: open files anew, since their names may have been rotated away."""

    def pause(self) -> None:
        """A queue below is full: an input stops reading what can wait, an aggregate keeps its rows."""

    def resume(self) -> None:
        """There is room again."""

    def wake(self, now: float) -> float | None:
        """Do what time asks for; seconds until the next call, or None for never. Called first at start."""
        return None


class Input(Plugin):
    """Begins a stack; calls `emit` with batches between `begin` and the end of `stop`."""

    chooses = False
    """True where its rows are of one of the types of `otype`, the last of those that the plugin below takes."""
    seconds_apart = False
    """Set by a filter below that wants rows of different seconds in different batches, each with its time."""
    listens = False
    """True where peers connect to it; such inputs stop last, as a peer may be an exporter of this process."""
    at_end = False
    """True when no further row will come from it."""
    exits = False
    """True where the service ends when this input, and every other one with it, is at its end."""

    def __init__(self, instance: str, config: Options | None = None) -> None:
        super().__init__(instance, config)
        self.ended: Callable[[], None] = _nothing
        """To be called when it is at its end."""

    @classmethod
    def flowing(cls, below: type[Plugin]) -> int:
        """The types of its rows above this plugin."""
        types = cls.otype & below.itype
        return 1 << types.bit_length() - 1 if types and cls.chooses else cls.otype

    def begin(self) -> None:
        """Start to read; everything is open by now."""

    def read_now(self) -> None:
        """SIGUSR2: give what is known so far, without waiting for its time."""


class Filter(Plugin):
    """Takes a batch and gives one: the same rows with more keys, fewer rows, or None for none of them.

    Rows that get different schemas (packets of several families) are several batches.
    """

    common_counts = (Dropped("error", "rows", "Rows of a batch that the plugin failed to process."),)

    def process(self, batch: Batch) -> Batch | Sequence[Batch] | None:
        """What becomes of the batch. Rows that are left out count as filtered; drops are counted by the plugin."""
        raise NotImplementedError


class Aggregator(Filter):
    """A filter that keeps rows and emits others of its own at its time: `process` returns None.

    It counts `rows_merged` itself.
    """

    passes = False
    holds = False
    """Whether there are rows in it."""

    def flush(self) -> None:
        """Emit everything that is kept; the inputs have stopped."""


class Output(Plugin):
    """Ends a stack. `inputs` are those whose rows reach it."""

    inputs: tuple[Input, ...] = ()
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
    )

    def requests_of(self, above: frozenset[str] | None) -> dict[str, bool] | All:
        """As `requests`, of one stack, which gives the keys `above`; None where any key may come."""
        return self.requests(frozenset())

    def write(self, batch: Batch) -> Any:
        """Write all rows. A Deferred opens a bounded queue before this output until it fires.

        Rows that it counts as dropped or filtered meanwhile are not counted as written.
        """
        raise NotImplementedError


def _nothing() -> None:
    pass


def _unplugged(batch: Batch) -> None:
    raise RuntimeError("this instance is in no stack")
