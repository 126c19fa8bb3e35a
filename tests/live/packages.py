"""The packages of what is committed here, made once a run, and roots to install them in."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from tests.live.service import temporary
from tests.support import TOP, require_program, require_root

KEPT = TOP / "build" / "package"
"""Where `make package` keeps wheels and the root of the image for the next time."""
UNREACHABLE = ("Could not find a version", "No matching distribution", "Temporary failure", "Failed to fetch")
"""What pip and mmdebstrap say where nothing is in reach; any other word is our fault."""


@functools.cache
def made(what, *programs):
    """The directory with the packages: `what` is python, deb or image, each made from the one before."""
    before = {"python": None, "deb": "python", "image": "deb"}[what]
    require_program(*programs)
    if what == "image":
        require_root()
    folder = made(before, *programs) if before else temporary("packages")
    source = folder / "source"
    if before is None:
        subprocess.run(["git", "clone", "--quiet", TOP, source], check=True, timeout=60)
    run = subprocess.run(
        [source / "release/make-packages", folder / "out", what],
        capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PACKAGE_CACHE": str(KEPT), "MANUAL_PYTHON": sys.executable},
    )  # fmt: skip
    if run.returncode:
        if any(words in run.stderr for words in UNREACHABLE):
            raise SkipTest(f"no package index is in reach: {run.stderr[-300:]}")
        raise AssertionError(run.stdout + run.stderr)
    return folder


def out(what):
    """The directory of `made` with the finished files."""
    needed = {"python": (), "deb": ("dh_virtualenv", "dpkg-buildpackage"), "image": ("buildah", "mmdebstrap")}
    programs = needed["deb"] * (what != "python") + needed[what] * (what == "image")
    return made(what, *programs) / "out"


def debian_package():
    """The .deb."""
    (found,) = out("deb").glob("*.deb")
    return found


def newer(package, folder):
    """The same package with the next revision, without compression."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True, timeout=120)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    control.write_text(text.replace("-1\n", "-2\n", 1))
    made_here = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, made_here], check=True, timeout=120,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    shutil.rmtree(tree)
    return made_here


class Overlay:
    """A writable view of this machine's root, there while the `with` lasts; what is changed lies in `upper`."""

    def __init__(self, lower="/"):
        self.lower = lower
        self.folder = Path(temporary("overlay"))
        self.upper, self.root = self.folder / "upper", self.folder / "root"

    def __enter__(self):
        disk = self.folder / "disk"
        for path in (disk, self.root):
            path.mkdir()
        # the root itself may be an overlay, which cannot be the upper layer of another one
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", disk], check=True, timeout=20)
        atexit.register(self.__exit__)
        self.upper = disk / "upper"
        for path in (self.upper, disk / "work"):
            path.mkdir()
        options = f"lowerdir={self.lower},upperdir={self.upper},workdir={disk}/work"
        mounted = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.root], capture_output=True,
                                 text=True, timeout=20, check=False)  # fmt: skip
        if mounted.returncode:
            self.__exit__()
            raise SkipTest(f"an overlay cannot be mounted here: {mounted.stderr}")
        return self

    def __exit__(self, *_):
        for path in (self.root, self.folder / "disk"):
            if os.path.ismount(path):
                subprocess.run(["umount", "--lazy", path], check=False, timeout=20)
