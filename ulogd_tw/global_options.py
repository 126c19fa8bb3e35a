"""The options of the section [global]."""

from __future__ import annotations

from typing import Any

from ulogd_tw.core.options import (
    Option,
    boolean,
    number,
    octets,
    one_of,
    positive,
    seconds,
    text,
)
from ulogd_tw.core.paths import new_socket, output_file


class Repeated(Option):
    """An option that may be given several times; its value is the tuple of all values."""

    __slots__ = ()


LEVELS = {"debug": 1, "info": 3, "notice": 5, "error": 7, "fatal": 8}
"""Names of ulogd2's levels."""


def level(text: str) -> int:
    """A level of the log, 1 to 8, by its number or name."""
    word = text.strip().lower()
    try:
        value = LEVELS[word] if word in LEVELS else number(word)
    except ValueError:
        value = 0
    if not 1 <= value <= 8:
        raise ValueError(f"{text!r} is not a level: debug (1), info (3), notice (5), error (7) or fatal (8)")
    return value


def interval(text: str) -> float:
    """Seconds, more than 0."""
    value = seconds(text)
    if value <= 0:
        raise ValueError(f"{text!r} must be more than 0")
    return value


def umask(value: str) -> int:
    """The mask of an octal number."""
    try:
        mask = int(value, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise ValueError(f"{value!r} is not an octal mask; write up to three digits from 0 to 7, such as 022")
    return mask


def file_mode(value: str) -> int:
    """A file mode, from an octal number."""
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{value!r} is not an octal file mode; write up to three digits from 0 to 7, such as 660")
    return mode


GLOBAL_OPTIONS: tuple[Option, ...] = (
    Option(
        "logfile",
        output_file,
        "",
        "Where the log goes: a path, stdout or syslog. Empty: standard output, or syslog for a daemon.",
    ),
    Option(
        "umask",
        umask,
        None,
        "Permissions removed from new files, octal, such as 027. Empty: 022 for a daemon, else that of the process. "
        "Keys, "
        "spools and state have mode 0600 whatever it is, databases 0640.",
    ),
    Option(
        "log_format",
        one_of("text", "json"),
        "text",
        "Lines of the log: text, or json with one object a line (time, level, part, text, fields). As a service of "
        "systemd, text on standard output goes to the journal with its priority and without a time of its own.",
    ),
    Option("loglevel", level, 5, "Lowest severity written to the log: debug 1, info 3, notice 5, error 7, fatal 8."),
    Repeated("plugin", text, (), "Shared object of ulogd2, from an old configuration; has no effect."),
    Repeated(
        "stack",
        text,
        (),
        "One chain of plugins, ID:PLUGIN,ID:PLUGIN,...: an input, then filters, then an "
        "output. Example: ct1:NFCT,exp1:IPFIX",
    ),
    Option(
        "stats_file", output_file, "", "File to which the counters of all instances are written as JSON. Empty: none."
    ),
    Option("stats_interval", interval, 10.0, "Seconds between two writings of stats_file."),
    Option(
        "control_socket",
        new_socket,
        "",
        "Path of the Unix socket through which commands such as ulogd-tw status and ulogd-tw query reach the running "
        "service, such as /run/ulogd/control.sock. Whoever can write to it may ask and change everything. Empty: none.",
    ),
    Option("control_socket_mode", file_mode, 0o600, "File mode of control_socket, octal, such as 660."),
    Option("control_socket_group", text, "", "Group of control_socket, by name. Empty: that of the process."),
    Option("query_socket", new_socket, "", "The former name of control_socket, used if control_socket is empty."),
    Option(
        "state_dir",
        text,
        "",
        "Directory for all state that survives a restart: templates, sequence numbers, open intervals, tables, spools. "
        "Options of single files, such as template_cache, take precedence. Empty: only those files are kept.",
    ),
    Option(
        "state_interval",
        interval,
        1.0,
        "Seconds between two writings of changed state in state_dir; a crash loses at most the changes of this time.",
    ),
    Option(
        "query_memory",
        octets,
        512 << 20,
        "Maximum memory of one query over the tables of the service, with its copy of them; 64M at least. Two can run "
        "at once, each in a process of its own.",
    ),
    Option("query_timeout", interval, 30.0, "Seconds after which a query is ended."),
    Option(
        "exporter_silent",
        seconds,
        300.0,
        "Seconds without data after which an exporter counts as silent: an event of the API (control_socket, "
        "[http]). 0: never.",
    ),
    Option(
        "stop_timeout",
        seconds,
        10.0,
        "Seconds for which a stopping service goes on writing the rows still waiting for outputs.",
    ),
    Option(
        "strict",
        boolean,
        False,
        "1: any mistake in the configuration prevents the start, even a mistake that "
        "ulogd2 tolerated. 0: a stack with a mistake is left out, and the others run.",
    ),
    Option(
        "reload",
        boolean,
        False,
        "1: SIGHUP also reads the configuration again, as ulogd-tw reload does, and carries out what has changed.",
    ),
    Option("queue_rows", positive, 1_000_000, "Default for the option queue_rows of every output."),
    Option("queue_octets", octets, 256 << 20, "Default for the option queue_octets of every output."),
)


def control_socket(settings: Any) -> str:
    """The path of the control socket, under its name or its former one; empty where there is none."""
    return settings.control_socket or settings.query_socket
