"""``ulogd-tw``: the service under ulogd2's switches, for unit files and habits."""

from __future__ import annotations

import argparse
import pwd
import signal
import sys

from ulogd_tw import __version__, signals, starting
from ulogd_tw.config import default_path
from ulogd_tw.core.keys import nearest

COMMANDS = ("doctor", "examples", "query", "top")
_SWITCHES = (
    "--configfile", "--daemon", "--pidfile", "--uid", "--loglevel", "--info", "--version", "--check", "--list-plugins",
)  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ulogd-tw",
        description="Meters, collects, aggregates and stores network flows.",
        epilog="Further commands, each with --help: ulogd-tw doctor checks this machine for a configuration, ulogd-tw "
        "examples lists example configurations, ulogd-tw query and ulogd-tw top ask the running service.",
    )
    parser.add_argument(
        "-c",
        "--configfile",
        default=default_path(),
        metavar="FILE",
        help="configuration file (/etc/ulogd-tw.conf, else /etc/ulogd.conf)",
    )
    parser.add_argument("-d", "--daemon", action="store_true", help="run in the background")
    parser.add_argument("-p", "--pidfile", default="", metavar="FILE", help="file for the process id")
    parser.add_argument("-u", "--uid", metavar="USER", help="change to this user once all sockets are open")
    parser.add_argument(
        "-l",
        "--loglevel",
        metavar="LEVEL",
        choices=[*"12345678", "debug", "info", "notice", "error", "fatal"],
        help="lowest severity logged: 1 debug, 3 info, 5 notice, 7 error, 8 fatal; overrides loglevel= of [global]",
    )
    parser.add_argument("-i", "--info", metavar="PLUGIN", help="describe a plugin and exit")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="no effect: without -d the log goes to standard output anyway"
    )
    parser.add_argument("-V", "--version", action="version", version=f"ulogd-tw {__version__}")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--list-plugins", action="store_true", help="list the plugins and exit")
    return parser


def twistd_arguments(argv: list[str]) -> list[str]:
    """The twistd command line equivalent to these ulogd2 switches."""
    given, unknown = _parser().parse_known_args(argv)
    if unknown:
        _parser().error(_not_known(unknown[0]))
    arguments = ["twistd", f"--pidfile={given.pidfile}"]
    if not given.daemon:
        arguments.append("--nodaemon")
    if given.uid:
        arguments.append(f"--uid={given.uid}")
    arguments += ["ulogd", "--config", given.configfile]
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


def _not_known(word: str) -> str:
    """What is said of a word that is neither a switch nor a command."""
    near = nearest(word, (*COMMANDS, *_SWITCHES))
    hint = f"did you mean {near}?" if near else f"commands are {', '.join(COMMANDS)}; ulogd-tw --help lists switches"
    return f"{word} is neither a switch nor a command; {hint}"


def _check_user(arguments: list[str]) -> None:
    """End with status 2 where the user is not known; twistd would show a traceback."""
    for word in arguments:
        name = word.removeprefix("--uid=")
        if name == word:
            continue
        try:
            pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except (KeyError, OverflowError):
            make = "name one of /etc/passwd" if name.isdigit() else f"make it with: useradd --system {name}"
            _parser().error(f"-u {name}: there is no such user; {make}")


def main() -> None:
    """Run twistd in this process, or another command: ``doctor``, ``examples``, ``query``, ``top``."""
    command = sys.argv[1] if sys.argv[1:] else ""
    if command in ("doctor", "examples", "query"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if command in ("query", "top"):
        from ulogd_tw.operating import ask

        sys.exit(ask.main(sys.argv[1:]))
    if command == "doctor":
        from ulogd_tw.operating import doctor

        sys.exit(doctor.main(sys.argv[2:]))
    if command == "examples":
        from ulogd_tw.operating import examples

        sys.exit(examples.main(sys.argv[2:]))
    sys.argv = twistd_arguments(sys.argv[1:])
    _check_user(sys.argv)
    signals.remember()
    starting.begin()
    from twisted.scripts.twistd import run

    run()
