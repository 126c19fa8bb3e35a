"""Check the types of ulogd_tw with mypy, and that its list of exceptions only shrinks.

    python -m tests.typecheck

pyproject.toml lists the modules whose errors are still ignored. A module with errors that is not listed fails the
check, and so does a listed one without errors: its line is to be taken out.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def settings() -> dict:
    """mypy's part of pyproject.toml."""
    return tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["mypy"]


def exceptions(table: dict) -> list[str]:
    """The modules whose errors are ignored."""
    return [name for part in table["overrides"] if part.get("ignore_errors") for name in part["module"]]


def as_configuration(table: dict) -> Iterator[str]:
    """The lines of a mypy.ini without the exceptions."""
    yield "[mypy]"
    yield from (f"{name} = {value}" for name, value in table.items() if not isinstance(value, list))
    for part in table["overrides"]:
        if not part.get("ignore_errors"):
            yield f"[mypy-{','.join(part['module'])}]"
            yield from (f"{name} = {value}" for name, value in part.items() if name != "module")


def module_of(line: str) -> str:
    """The module of a line of mypy's output."""
    return line.split(":")[0].removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def mistakes(lines: Iterable[str], listed: list[str]) -> Iterator[str]:
    """What is wrong, given mypy's errors of all modules and those that are excepted."""
    by_module: dict[str, list[str]] = {}
    for line in lines:
        by_module.setdefault(module_of(line), []).append(line)
    for module, errors in by_module.items():
        if module not in listed:
            yield from errors
    for module in listed:
        if module not in by_module:
            yield f"pyproject.toml: {module} has no type error: take it out of the exceptions"


def main() -> int:
    """Run mypy, print what is wrong; the exit status."""
    table = settings()
    ini = TOP / ".mypy_cache" / "all.ini"
    ini.parent.mkdir(exist_ok=True)
    ini.write_text("\n".join(as_configuration(table)) + "\n")
    words = [sys.executable, "-m", "mypy", "--config-file", str(ini), "--no-error-summary", "--hide-error-context"]
    run = subprocess.run([*words, *table["files"]], cwd=TOP, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if ": error: " in line]
    if run.stderr or (run.returncode and not lines):
        print(run.stdout, run.stderr, sep="", file=sys.stderr)
        return 2
    found = list(mistakes(lines, exceptions(table)))
    print(*found, f"{len(found)} mistakes, {len(exceptions(table))} modules excepted", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
