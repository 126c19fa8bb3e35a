"""What gathering saves: COLLECTOR -> AGGREGATE -> SQLITE3 at small rates, beside batch_latency=0.004."""

from functools import partial

from benchmarks import collectors, traffic
from benchmarks.measuring import in_turn, kernels
from benchmarks.shapes import Collecting

RUNS = 5
RATES = ((100, 1), (1_000, 1), (10_000, 10), (100_000, 28))
"""Records a second, and in a message."""
PROGRAMS = {
    "as it is": collectors.sqlite,
    "batch_latency=0.004": partial(collectors.sqlite, option="batch_latency=0.004"),
}


def main():
    """Print the table: percent of a core, medians of runs in turn."""
    print(f"kernels: {kernels()}\n| records a second | in a message | {' | '.join(PROGRAMS)} |\n|{'---|' * 4}")
    for rate, per in RATES:
        shape = Collecting("", "", "", PROGRAMS, messages=partial(traffic.ipfix, per=per), rate=rate, seconds=6,
                           share=True)  # fmt: skip
        found, _ = in_turn(PROGRAMS, lambda name, shape=shape: shape.measure(PROGRAMS[name]), RUNS)
        print(
            f"| {rate:,} | {per} | " + " | ".join(f"{found[name].median:.2f} %" for name in PROGRAMS) + " |", flush=True
        )
        shape.close()


if __name__ == "__main__":
    main()
