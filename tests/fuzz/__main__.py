"""Run fuzz targets: python -m tests.fuzz [TARGET ...] [--seconds N] [--seed N] [--replay FILE] [--with ENGINE]

The engine atheris (pip install atheris) is guided by coverage; without it hypothesis changes the seeds. Without TARGET
all run, each for N seconds. With --seed atheris begins with the seeds alone and goes the same way each time; otherwise
it goes on from what it has found. An input that breaks a promise is kept in a file, and the command that replays it is
printed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

FOUND = Path("_fuzz")
MOST_SECONDS = 5
"""Of the processor, for one input: far more than any needs, so that one that hangs is found."""


def main():
    """Parse the words of the command and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--with", dest="engine", choices=("atheris", "hypothesis"))
    words = parser.parse_args()
    if words.engine != "atheris" or len(words.targets) != 1:
        return run_all(words)
    return with_atheris(words.targets[0], words.seconds, words.seed)


def run_all(words):
    """Each target in turn; the exit status."""
    from tests.fuzz.targets import TARGETS

    if not _all_known(words.targets, TARGETS):
        return 2
    if words.replay:
        if len(words.targets) != 1:
            print("--replay needs the name of the target", file=sys.stderr)
            return 2
        TARGETS[words.targets[0]][0](words.replay.read_bytes())
        return 0
    engine = words.engine or ("atheris" if _has_atheris() else "hypothesis")
    failed = []
    for name in words.targets or TARGETS:
        print(f"{name}: {engine}, {words.seconds} s", flush=True)
        if engine == "atheris":
            known = set(FOUND.glob(f"{name}-*"))
            command = [sys.executable, "-m", "tests.fuzz", name, "--with", "atheris", "--seconds", str(words.seconds)]
            command += [] if words.seed is None else ["--seed", str(words.seed)]
            done = subprocess.run(command, check=False).returncode == 0
            for path in set(FOUND.glob(f"{name}-*")) - known:
                print(_how_to_replay(name, path), file=sys.stderr)
        else:
            done = with_hypothesis(name, words.seconds)
        failed += [] if done else [name]
    print(f"{len(words.targets or TARGETS) - len(failed)} targets passed" + (f", failed: {failed}" if failed else ""))
    return 1 if failed else 0


def _all_known(names, targets):
    unknown = set(names) - set(targets)
    if unknown:
        print(f"there is no target {', '.join(sorted(unknown))}; there are: {', '.join(targets)}", file=sys.stderr)
    return not unknown


def _how_to_replay(name, path):
    return f"replay: {sys.executable} -m tests.fuzz {name} --replay {path}"


def _has_atheris():
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def with_atheris(name, seconds, seed):
    """Hand the target to libFuzzer, which ends this process."""
    import atheris

    with atheris.instrument_imports(include=["ulogd_tw"]):
        from tests.fuzz.targets import TARGETS
    if not _all_known([name], TARGETS):
        return 2
    target, seeds = TARGETS[name]
    corpus = FOUND / ("corpus" if seed is None else f"corpus-{seed}") / name
    if seed is not None:
        shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(octets)
    arguments = [f"-seed={seed or 0}", f"-max_total_time={seconds}", f"-timeout={MOST_SECONDS}", "-rss_limit_mb=2048",
                 "-max_len=16384", "-verbosity=0", f"-artifact_prefix={FOUND}/{name}-", str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], lambda data: target(bytes(data)))
    atheris.Fuzz()


def with_hypothesis(name, seconds):
    """Change the seeds for so long; whether every promise was kept."""
    import hypothesis

    from tests.fuzz.changes import changed
    from tests.fuzz.targets import TARGETS

    target, seeds = TARGETS[name]
    until = time.monotonic() + seconds
    failing = None

    @hypothesis.settings(
        max_examples=1000, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(changed(list(seeds())))
    def once(data):
        nonlocal failing
        if failing is None and time.monotonic() >= until:
            return
        try:
            began = time.process_time()
            target(data)
            assert time.process_time() - began < MOST_SECONDS, "it takes too long"
        except Exception:
            failing = data  # the last one is the smallest that was found
            raise

    try:
        while time.monotonic() < until:
            once()
    except Exception:
        traceback.print_exc()
        FOUND.mkdir(exist_ok=True)
        path = FOUND / f"{name}-{os.getpid()}"
        path.write_bytes(failing or b"")
        print(_how_to_replay(name, path), file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
