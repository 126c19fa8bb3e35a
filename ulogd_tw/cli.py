"""``ulogd-tw``: the service under ulogd2's switches, and the commands."""

from __future__ import annotations

import os
import pwd
import signal
import sys
from argparse import Namespace

from ulogd_tw.operating.commands import tree

COMMANDS = tuple(tree.COMMANDS)


def twistd_arguments(argv: list[str]) -> list[str]:
    """The twistd command line equivalent to these ulogd2 switches."""
    return _twistd(tree.parse(argv))


def _twistd(given: Namespace) -> list[str]:
    from ulogd_tw.config import default_path

    arguments = ["twistd", f"--pidfile={given.pidfile}"]
    if not given.daemon:
        arguments.append("--nodaemon")
    if given.uid and not _is_ours(given.uid):  # else a restart has changed to it before
        arguments.append(f"--uid={given.uid}")
    arguments += ["ulogd", "--config", given.configfile or default_path()]
    if given.loglevel:
        arguments += ["--loglevel", given.loglevel]
    if given.info:
        # ulogd2 took the path of a shared object here
        name = given.info.rsplit("/", 1)[-1].removesuffix(".so").rsplit("_", 1)[-1]
        arguments += ["--info", name]
    if given.check:
        arguments.append("--check")
    if given.list_plugins:
        arguments.append("--list-plugins")
    return arguments


def _is_ours(user: str) -> bool:
    """Whether this process runs as that user, who cannot change to anybody."""
    try:
        number = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return False
    return number == os.geteuid() != 0


def _check_user(user: str | None) -> None:
    """End with status 2 where the user is not known; twistd would show a traceback."""
    if user is None:
        return
    try:
        pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        make = "name one of /etc/passwd" if user.isdigit() else f"make it with: useradd --system {user}"
        tree.parser().error(f"-u {user}: there is no such user; {make}")


def _run(given: Namespace) -> int:
    """The status of a command; 2 where its answer cannot be written."""
    try:
        status = tree.run(given)
        sys.stdout.flush()
    except OSError as error:
        print(f"ulogd-tw {given.command}: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer has no place either
        return 2
    return status


def main() -> None:
    """Run twistd in this process, or another command of the tree."""
    given = tree.parse(sys.argv[1:])
    if given.command not in (None, "run"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as starting.begin
        if given.command != "top":
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sys.exit(_run(given))
    sys.argv = _twistd(given)
    _check_user(given.uid)
    from ulogd_tw import signals, starting  # which commands do without

    signals.remember()
    starting.begin()
    from twisted.scripts.twistd import run

    run()
