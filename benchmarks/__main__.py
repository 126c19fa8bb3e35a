"""Run every benchmark, or those named: ``python -m benchmarks collect netlink_decode``."""

import importlib
import pkgutil
import sys

import benchmarks


def main(names):
    """Run the benchmarks one after the other."""
    there = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    for name in names or [n for n in there if hasattr(importlib.import_module(f"benchmarks.{n}"), "main")]:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


main(sys.argv[1:])
