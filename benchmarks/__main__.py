"""The table of all shapes beside peers, or those named: ``python -m benchmarks [--quick] [--both] [NAME ...]``.

A name is that of a shape (``--list``), or of a module of this folder, which has a process of its own:
``python -m benchmarks ipfix-400k``, ``python -m benchmarks ipfix_decode``.
"""

import argparse
import pkgutil
import subprocess
import sys

import benchmarks
from benchmarks import table
from benchmarks.measuring import NUMPY, kernels


def modules():
    """Benchmarks of single parts, by name."""
    parts = {
        "measuring",
        "sending",
        "traffic",
        "shapes",
        "collectors",
        "collecting",
        "netfilter",
        "flows",
        "table",
        "__main__",
    }
    return sorted({module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - parts)


def main():
    """Run what is named; the exit status of the last module that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="as short as it can be, one run: to see that all works")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--both", action="store_true", help="this program also without its compiled kernels")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("names", nargs="*", metavar="NAME")
    words = parser.parse_args()
    shapes = table.shapes()
    if words.list:
        print("\n".join([*shapes, *modules()]))
        return 0
    if unknown := set(words.names) - {*shapes, *modules()}:
        parser.error(f"no benchmark is called {' '.join(sorted(unknown))}; --list prints their names")
    status = 0
    for name in words.names:
        if name not in shapes:
            print(f"== {name}", flush=True)
            status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode or status
    chosen = [name for name in words.names or shapes if name in shapes]
    if chosen:
        table.run(chosen, 1 if words.quick else words.runs, words.quick, words.both and kernels() != NUMPY)
    return status


if __name__ == "__main__":
    sys.exit(main())
