"""Run every benchmark, or those named: ``python -m benchmarks collect netlink_decode``. Each has its own process."""

import pkgutil
import subprocess
import sys

import benchmarks


def main(names):
    """Run the benchmarks one after the other; the exit status of the last one that failed."""
    status = 0
    for name in names or sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name != "__main__"):
        print(f"== {name}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode or status
    return status


sys.exit(main(sys.argv[1:]))
