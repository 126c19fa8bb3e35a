"""The arguments of the commands: each function declares those of one command, or some that several have."""

from __future__ import annotations

import argparse

from ulogd_tw.core.options import seconds

_NONE = argparse.SUPPRESS
"""No value where the switch is not given: that before the command counts then."""
LEVELS = [*"12345678", "debug", "info", "notice", "error", "fatal"]


def configuration(parser: argparse.ArgumentParser) -> None:
    """The file of the configuration."""
    parser.add_argument(
        "-c", "--config", "--configfile", dest="configfile", metavar="FILE", default=_NONE,
        help="configuration file (/etc/ulogd-tw.conf, else /etc/ulogd.conf)",
    )  # fmt: skip


def service(parser: argparse.ArgumentParser) -> None:
    """The switches of the service, which are those of ulogd2."""
    add = parser.add_argument
    whole = parser.prog == "ulogd-tw"
    add(
        "-c", "--configfile", metavar="FILE", default=None if whole else _NONE,
        help="configuration file (/etc/ulogd-tw.conf, else /etc/ulogd.conf)",
    )  # fmt: skip
    add("-d", "--daemon", action="store_true", default=False if whole else _NONE, help="run in the background")
    add("-p", "--pidfile", default="" if whole else _NONE, metavar="FILE", help="file for the process id")
    add(
        "-u", "--uid", metavar="USER", default=None if whole else _NONE,
        help="change to this user once all sockets are open",
    )  # fmt: skip
    add(
        "-l", "--loglevel", metavar="LEVEL", choices=LEVELS, default=None if whole else _NONE,
        help="lowest severity logged: 1 debug, 3 info, 5 notice, 7 error, 8 fatal; overrides loglevel= of [global]",
    )  # fmt: skip
    add(
        "-v", "--verbose", action="store_true", default=False if whole else _NONE,
        help="no effect: without -d the log goes to standard output anyway",
    )  # fmt: skip


def questions(parser: argparse.ArgumentParser) -> None:
    """The switches of ulogd2 that run no service."""
    parser.add_argument("-i", "--info", metavar="PLUGIN", help="describe a plugin and exit")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--list-plugins", action="store_true", help="list the plugins and exit")


def as_json(parser: argparse.ArgumentParser) -> None:
    """The form for other programs."""
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def asking(parser: argparse.ArgumentParser) -> None:
    """The way to the running service."""
    parser.add_argument("-s", "--socket", metavar="PATH", help="control_socket of the service")
    configuration(parser)


def plugin(parser: argparse.ArgumentParser) -> None:
    """A plugin."""
    parser.add_argument("plugin", metavar="PLUGIN", help="name of a plugin, such as COLLECTOR")


def keys(parser: argparse.ArgumentParser) -> None:
    """The keys to look for."""
    parser.add_argument("word", nargs="?", default="", metavar="WORD", help="a part of a key's name, such as octet")
    parser.add_argument("-p", "--plugin", metavar="PLUGIN", help="only keys that this plugin gives")


def instance(parser: argparse.ArgumentParser) -> None:
    """An instance, or none."""
    parser.add_argument("instance", nargs="?", metavar="INSTANCE", help="id of an instance, such as col1")


def exporter(parser: argparse.ArgumentParser) -> None:
    """An exporter, or none."""
    parser.add_argument("exporter", nargs="?", metavar="EXPORTER", help="address of an exporter, such as 192.0.2.1")


def drawing(parser: argparse.ArgumentParser) -> None:
    """The graph and its form."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a configuration to draw, without asking a service")
    parser.add_argument("--dot", action="store_true", help="print it in the language DOT of Graphviz")


def two_looks(parser: argparse.ArgumentParser) -> None:
    """The time between two looks."""
    parser.add_argument(
        "-i", "--interval", type=pause, default=1.0, metavar="SECONDS", help="seconds between two looks (1)"
    )


def tap(parser: argparse.ArgumentParser) -> None:
    """The instance, the rows, and how many of them."""
    parser.add_argument("instance", metavar="INSTANCE", help="id of an instance, such as col1")
    parser.add_argument(
        "expression", nargs="*", metavar="EXPRESSION",
        help="rows to show, in the language of MATCH: dst port 443 and octets > 1k",
    )  # fmt: skip
    parser.add_argument("-n", "--rows", type=rows, metavar="N", help="end after this number of rows")


def top(parser: argparse.ArgumentParser) -> None:
    """The table, its ranking and its refreshing."""
    parser.add_argument(
        "table", nargs="?", metavar="TABLE", help="id of an AGGREGATE; may be left out where there is only one"
    )
    parser.add_argument("-b", "--by", default="octets", metavar="COLUMN", help="column to rank by (octets)")
    parser.add_argument("-n", "--rows", type=rows, default=20, metavar="N", help="number of rows (20)")
    parser.add_argument(
        "-i", "--interval", type=pause, default=2.0, metavar="SECONDS", help="seconds between two refreshes (2)"
    )
    parser.add_argument("--once", action="store_true", help="print once and exit")


def query(parser: argparse.ArgumentParser) -> None:
    """The SQL and the form of its answer."""
    parser.add_argument(
        "sql",
        help="such as: select sourceAddress, sum(octets) from agg1 group by 1 order by 2 desc",
    )  # fmt: skip
    parser.add_argument(
        "-f", "--format", choices=("table", "csv", "json"), default="table", help="form of the answer (table)"
    )


def who_had(parser: argparse.ArgumentParser) -> None:
    """The address, the time, and where to look."""
    add = parser.add_argument
    add("address", metavar="ADDRESS[:PORT]", help="outside address, with or without a port; IPv6 with a port: [::1]:80")
    add(
        "--at", required=True, metavar="TIME",
        help="the time: 2026-11-30T14:32:15Z, without a zone in local time, or -2h",
    )  # fmt: skip
    add("--within", default="5s", metavar="TIME", help="how far the clock of the one who asks may be off (5s)")
    add(
        "--longest",
        default="1d",
        metavar="TIME",
        help="length of the longest sessions: records missing so long after the time, and before it where a store has "
        "events, make the answer incomplete (1d)",
    )
    add(
        "--store",
        action="append",
        default=[],
        metavar="NAME|DIR",
        help="section [store:NAME] or id of a PARQUET of the service, or a directory of PARQUET, which is read without "
        "the service; may be repeated (all that have addresses after NAT)",
    )


def flows(parser: argparse.ArgumentParser) -> None:
    """The question, and the form of its answer."""
    add = parser.add_argument
    add(
        "expression", nargs="*", metavar="EXPRESSION",
        help="directories of stores, then the flows, in the language of MATCH: /var/lib/flows src net 192.0.2.0/24",
    )  # fmt: skip
    add(
        "--from",
        dest="begin",
        metavar="TIME",
        help="begin of the range: 2026-11-30T14:00:00Z, without a zone in local time, or -2h; flows that overlap the "
        "range are taken",
    )
    add("--to", dest="end", metavar="TIME", help="end of the range, which is not in it")
    add(
        "--ended",
        action="store_true",
        help="take the flows with their end in the range, instead of all overlapping ones",
    )
    add("-b", "--by", metavar="KEYS", help="sum by these keys, such as srcip,dstport or sourceAddress/24:48")
    add("-n", "--top", type=rows, metavar="N", help="the N largest groups")
    add("--rest", action="store_true", help="one more group, of all that are not among these")
    add("--sum", metavar="SUMS", help="what is summed: octets, packets, flows, reply_octets, reply_packets")
    add("--every", metavar="TIME", help="a sum for each such time, 5m or 1h, by the end of each flow")
    add("--spread", action="store_true", help="divide octets and packets over the duration of each flow")
    add("-O", "--order", metavar="COLUMN", help="column to order by, +COLUMN from the smallest (first sum; newest)")
    add("-l", "--limit", type=rows, metavar="N", help="maximum number of rows (1000)")
    add("--columns", metavar="KEYS", help="columns of a list of flows")
    add("-f", "--format", choices=("table", "csv", "json", "arrow"), default="table", help="form of the answer (table)")
    add("--store", metavar="NAME", help="section [store:NAME], or id of a PARQUET; may be left out if there is one")


def waiting(parser: argparse.ArgumentParser) -> None:
    """How long the new process is waited for."""
    parser.add_argument(
        "-w", "--wait", type=pause, default=60.0, metavar="SECONDS",
        help="longest time to wait until the service answers again (60)",
    )  # fmt: skip


def examples(parser: argparse.ArgumentParser) -> None:
    """The example, and the place for it."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="example to print")
    parser.add_argument("file", nargs="?", metavar="FILE", help="file to write it to; an existing one is kept")
    parser.add_argument("--all", metavar="DIR", help="write all examples into this directory")


def shell(parser: argparse.ArgumentParser) -> None:
    """A shell."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


# forms of values


def rows(text: str) -> int:
    """A number of rows, from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows, such as 20")
    return int(text)


def pause(text: str) -> float:
    """A time from 0.1 s."""
    try:
        value = seconds(text)
    except ValueError:
        value = 0
    if value < 0.1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of at least 0.1 s, such as 2")
    return value
