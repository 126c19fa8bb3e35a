"""The table of all shapes: ratio first, then medians with the lowest and highest run, and what was lost."""

import os
import platform
import subprocess
from contextlib import contextmanager, nullcontext

import numpy

from benchmarks import collecting, collectors, netfilter, whole
from benchmarks.measuring import in_turn, kernels
from benchmarks.shapes import OURS

FALLBACK = "without kernels"
HEAD = ("ratio", "shape", "peer", "its figure", OURS, FALLBACK, "unit", "lost", "kernels")
PEERS = ("pmacct", "nfdump", "ulogd2", "softflowd")


def shapes():
    """All shapes by name, in the order of the table."""
    return {shape.name: shape for shape in [*collecting.SHAPES, *netfilter.SHAPES, *whole.SHAPES]}


def machine():
    """What the figures belong to."""
    words = ["dpkg-query", "-W", "-f", "${Package} ${Version}  ", *PEERS]
    try:
        versions = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except OSError:
        versions = "peers of unknown versions"
    python = f"Python {platform.python_version()}, NumPy {numpy.__version__}"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {python}\n"
        f"{versions}\nsocket buffer of every program: {collectors.BUFFER >> 10} KB"
    )


def number(value):
    """Three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def spread(figures):
    """The median, and the lowest and highest run."""
    return f"{number(figures.median)} ({number(min(figures.values))} to {number(max(figures.values))})"


def lost(figures):
    """Part of the rows that was lost, at most in a run."""
    return "?" if figures.lost is None else "0" if figures.lost <= 0 else f"{figures.lost:.2%}"


def rows(shape, found):
    """A row of the table for each peer, or one where there is none."""
    own, alone = found[OURS], found.get(FALLBACK)
    ours = spread(own), spread(alone) if alone else "", shape.unit
    peers = {name: figures for name, figures in found.items() if name not in (OURS, FALLBACK)}
    for name, figures in peers.items():
        ratio = own.median / figures.median if shape.more else figures.median / max(own.median, 1e-9)
        yield f"{ratio:.2f} x", shape.title, name, spread(figures), *ours, f"{lost(figures)} / {lost(own)}", kernels()
    if not peers:
        yield "", shape.title, "", "", *ours, lost(own), kernels()


def line(cells):
    """A line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def measured(shape, runs, quick, both=False, programs=None):
    """(figures by program, why others have none) of a shape; with `both` also without the compiled kernels.

    `programs`: only these.
    """
    shape.quick = quick

    def measure(name):
        with environment("ULOGD_TW_KERNELS", "off") if name == FALLBACK else nullcontext():
            return shape.measure(shape.programs[OURS if name == FALLBACK else name])

    try:
        return in_turn([*(programs or shape.programs), *([FALLBACK] if both else [])], measure, runs)
    finally:
        shape.close()


@contextmanager
def environment(name, value):
    """A variable that the programs see which are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def run(names, runs, quick, both):
    """Print the rows of these shapes, and which programs could not be measured."""
    print(machine())
    print(f"{runs} runs of each program, in turn: median (lowest to highest); lost: peer / {OURS}, at most in a run")
    print(f"a ratio above 1: {OURS} needs less\n\n{line(HEAD)}\n{line(['---'] * len(HEAD))}", flush=True)
    left_out = {}
    for name in names:
        shape = shapes()[name]
        found, missing = measured(shape, runs, quick, both)
        left_out |= {f"{name}, {program}": reason for program, reason in missing.items()}
        for cells in rows(shape, found) if OURS in found else ():
            print(line(cells), flush=True)
    for which, reason in left_out.items():
        print(f"left out: {which}: {reason}")
