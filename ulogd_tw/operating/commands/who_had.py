"""``ulogd-tw who-had``: who had an outside address and port at a time, of the running service or of directories."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ulogd_tw.flows import times
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.nat_rows import Question
from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import INCOMPLETE, Unreachable
from ulogd_tw.operating.commands.text import printable, write_table

_CONFIGURATION: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
_COLUMNS = ("inside", "port", "protocol", "start", "end", "outside", "peer", "exporter", "remark")


def who_had(given: argparse.Namespace, out: TextIO) -> int:
    """Print who had the address; the status is that of the answer."""
    question = question_of(given, time.time())
    found = _found(given, question)
    if given.json:
        print(json.dumps(found, indent=1), file=out)
    else:
        write(found, out)
    return found["status"]


def question_of(given: argparse.Namespace, now: float) -> Question:
    """The question of a command line. Raises `QuestionError`."""
    from ulogd_tw.flows.nat_answers import endpoint

    try:
        address, port = endpoint(given.address)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    at, within = times.moment(given.at, now), 0 if given.within in ("0", "0s") else times.span(given.within)
    if at - within > now * 1000:
        raise QuestionError(f"--at {given.at} is in the future: {times.rfc3339(at)}")
    return Question(address, port, at, within, times.span(given.longest))


def _found(given: argparse.Namespace, question: Question) -> dict[str, Any]:
    directories = [Path(name) for name in given.store if _is_directory(name)]
    names = [name for name in given.store if not _is_directory(name)]
    if directories and names:
        raise QuestionError(
            f"--store {names[0]} is of the service, {directories[0]} is a directory; ask for each alone"
        )
    if directories:
        return of_directories({str(path): path for path in directories}, question)
    try:
        return service.of(given).post("stores/who-had", _body(question, names))
    except Unreachable as error:  # what a service refuses, such as a log that it cannot write, stays refused
        found = of_directories(_configured(given, names, error), question)
        found["notes"].insert(0, str(error))
        return found | {"status": INCOMPLETE}


def _is_directory(name: str) -> bool:
    return name.startswith(("/", "./", "../")) or os.path.isfile(os.path.join(name, "store.json"))


def _body(question: Question, stores: Sequence[str]) -> dict[str, Any]:
    from ulogd_tw.flows.nat_answers import shown

    return {
        "address": shown(question.address), "port": question.port, "at": question.at, "within": question.within,
        "longest": question.longest, "stores": list(stores),
    }  # fmt: skip


def of_directories(places: Mapping[str, Path], question: Question) -> dict[str, Any]:
    """The answer of directories, read in this process. Raises `QuestionError`."""
    for place in places.values():
        if not place.is_dir():
            raise QuestionError(f"{place}: there is no such directory")
    try:
        import duckdb
    except ImportError:
        raise QuestionError("the package duckdb is not installed; pip install ulogd_tw[store]") from None
    from ulogd_tw.flows.nat_answers import ask
    from ulogd_tw.flows.nat_store import NatStore

    with duckdb.connect(config=_CONFIGURATION) as database:
        database.execute("SET enable_progress_bar = false")
        store = NatStore(lambda text: database.execute(text).fetchall())
        try:
            return ask(store, places, question, int(time.time() * 1000)).as_dict()
        except OSError as error:
            raise QuestionError(f"{error.filename}: {error.strerror}") from None
        except duckdb.Error as error:
            raise QuestionError(str(error).partition("\n")[0]) from None


# what is printed


def write(found: Mapping[str, Any], out: TextIO, errors: TextIO | None = None) -> None:
    """A table of the answers, and to standard error what may be missing."""
    errors = errors or sys.stderr
    port = "" if found["port"] is None else f" port {found['port']}"
    at = times.rfc3339(found["at"])
    within = f", give or take {found['within'] / 1000:g} s" if found["within"] else ""
    if found["answers"]:
        print(f"{found['address']}{port} at {at}{within}:", file=out)
        write_table(_COLUMNS, [_line(answer) for answer in found["answers"]], out)
    elif found["status"] == INCOMPLETE:
        print(f"no record of who had {found['address']}{port} at {at}{within}", file=out)
    else:
        print(f"nobody had {found['address']}{port} at {at}{within}", file=out)
    if found["more"]:
        print("there are more; ask for a port, or a shorter --within", file=errors)
    for note in found["notes"]:
        print(f"ulogd-tw who-had: {printable(note)}", file=errors)
    for gap in found["incomplete"]:
        since, until = times.rfc3339(gap["since"]), times.rfc3339(gap["until"])
        print(f"ulogd-tw who-had: incomplete between {since} and {until}: {printable(gap['reason'])}", file=errors)


def _line(answer: Mapping[str, Any]) -> list[Any]:
    ports = answer["inside_port"]
    if answer["first"] is not None:
        ports = f"{answer['first']}-{answer['last'] or answer['first']}"
    remark = [answer["state"]] if answer["state"] != "ended" else []
    if answer["nat"] != "source":
        remark.append({"destination": "destination NAT", "none": "not translated"}[answer["nat"]])
    return [
        answer["inside"], ports, answer["protocol"], _time(answer["start"]), _time(answer["end"]),
        _place(answer["outside"], answer["outside_port"]), _place(answer["peer"], answer["peer_port"]),
        answer["exporter"], ", ".join(remark) or None,
    ]  # fmt: skip


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else times.rfc3339(milliseconds)


def _place(address: str | None, port: int | None) -> str | None:
    if address is None or port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# stores without the service


def _configured(given: argparse.Namespace, names: Sequence[str], error: Unreachable) -> dict[str, Path]:
    """The directories of the PARQUETs in the configuration. Raises the error where there are none."""
    from ulogd_tw import config as configuration

    try:
        config = configuration.load(getattr(given, "configfile", None) or configuration.default_path())
    except Exception:
        raise error from None
    found = {}
    for ident in config.instances():
        if config.plugins_of(ident) == {"PARQUET"}:
            texts = dict(config.texts(ident))
            if texts.get("directory"):
                found[ident] = Path(str(texts["directory"]))
    chosen = {ident: path for ident, path in found.items() if not names or ident in names}
    if not chosen:
        raise error
    return chosen
