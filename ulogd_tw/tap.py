"""The ``ulogd`` command of twistd: options, checks, and the service made of a configuration file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from ulogd_tw import config as configuration
from ulogd_tw import global_options, log_lines, privileges, registry, signals, starting
from ulogd_tw.built import Built, obstacles, place_of
from ulogd_tw.core.errors import ConfigError, Mistake, NotStarted, UlogdError
from ulogd_tw.core.options import Options as Values
from ulogd_tw.core.paths import problem, unreadable
from ulogd_tw.core.stack import Graph, describe
from ulogd_tw.logs import LogFile
from ulogd_tw.pidfile import PidFile


class Options(usage.Options):
    """The options after ``twistd ulogd``."""

    synopsis = "[options]"
    optParameters = [
        ["config", "c", configuration.default_path(), "configuration file"],
        ["loglevel", "l", None, "lowest severity logged: debug 1, info 3, notice 5, error 7; overrides loglevel="],
        ["info", "i", None, "describe a plugin: its types, options and keys; then exit"],
    ]
    optFlags = [
        ["check", None, "check the configuration: print each stack with its keys, or every mistake, and exit"],
        ["list-plugins", None, "list the plugins, and exit"],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles()})

    def postOptions(self) -> None:
        """Handle the options that need no service, and take the pidfile over from twistd.

        twistd takes any running process with the number in that file for another service.
        """
        self.pidfile = ""
        if self.parent is not None and self.parent["pidfile"]:
            self.pidfile = os.path.abspath(self.parent["pidfile"])
            self.parent["pidfile"] = ""
        if self["loglevel"]:
            try:
                self["loglevel"] = global_options.level(self["loglevel"])
            except ValueError as error:
                raise usage.UsageError(f"--loglevel {error}") from None
        if self["list-plugins"] or self["info"] or self["check"]:
            signals.forget()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader of our output may have enough of it
        if self["list-plugins"]:
            print(registry.list_plugins())
            sys.exit(0)
        if self["info"]:
            try:
                print(registry.describe(self["info"]))
            except UlogdError as error:
                sys.exit(str(error))
            sys.exit(0)
        if self["check"]:
            sys.exit(check(self["config"]))


class Checked:
    """A configuration as `--check` sees it: the stacks that can run, and every mistake and warning; nothing is opened.

    Raises `ConfigError` where the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._built = Built(configuration.load(path), prepare=False)
        self.graph, self._seen = looked_at(self._built)
        self.mistakes = sorted(self._built.mistakes + self._seen, key=place_of)
        self.left_out = max(len(self._built.config.stacks()), 1) - len(self.graph.stacks)
        """Number of stacks that cannot run; 1 where there is no stack."""

    @property
    def ok(self) -> bool:
        """Whether all stacks can run, and with ``strict=1`` nothing is wrong at all."""
        return not self.left_out and not self._built.forbidden and all(mistake.tolerated for mistake in self._seen)

    def verdict(self) -> str:
        """The last line of what is printed."""
        if not self._built.config.stacks():
            return f"{self.path}: there is no stack to run"
        if self.left_out:
            stacks = self.left_out + len(self.graph.stacks)
            part = f"{self.left_out} of {stacks} stacks" if stacks > 1 else "the only stack"
            return f"{self.path}: {part} cannot run"
        if not self.ok:
            return f"{self.path}: has mistakes"
        return f"{self.path}: {'all stacks can run, but there are mistakes' if self._built.fatal else 'OK'}"


def check(path: str) -> int:
    """Print every stack that can run with its wanted keys, and every mistake and warning; opens nothing.

    The exit status: 0 where all stacks can run, and with ``strict=1`` nothing is wrong at all.
    """
    try:
        found = Checked(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for mistake in found.mistakes:
        print(f"{mistake.where}: {mistake.kind}: {mistake.text}", file=sys.stderr)
    if found.graph.stacks:
        print(describe(found.graph))
    print(found.verdict(), file=sys.stdout if found.ok else sys.stderr)
    return int(not found.ok)


def looked_at(built: Built) -> tuple[Graph, list[Mistake]]:
    """The stacks without a visible obstacle, and the findings; nothing is opened."""
    seen: list[Mistake] = []
    for option in global_options.GLOBAL_OPTIONS:
        if text := problem(option.read, getattr(built.settings, option.name, None)):
            where = built.settings.places.get(option.name, built.config.file)
            seen.append(Mistake(where, f"[global] {option.name}: {text}", option.name != "logfile"))
    if built.manhole is not None and (text := unreadable(built.manhole.authorized_keys)):
        where = built.manhole.place("authorized_keys") or built.config.file
        seen.append(Mistake(where, f"[manhole] authorized_keys: {text}", True))
    if built.http is not None:
        from ulogd_tw.operating.api import options

        seen += built.said(built.http, options.obstacles(built.http), True)
    for name, values in built.stores.items():
        from ulogd_tw.operating.question_log import obstacle

        if values.question_log and (text := obstacle(values.question_log)):
            where = values.place("question_log") or built.config.file
            seen.append(Mistake(where, f"[store:{name}] question_log: {text}", True))
    found = obstacles(built.graph.nodes)
    seen += [mistake for _, mistake in found]
    broken = {node for node, mistake in found if not mistake.tolerated}
    return built.graph.without(broken)[0] if broken else built.graph, seen


class Process(service.MultiService):
    """All services of the process. If they cannot start, the reason goes to the terminal, for a daemon too.

    twistd ends the parent of a daemon for an Exception only; a SystemExit would leave the parent waiting for ever.
    `umask` None leaves that of the process.
    """

    def __init__(self, log: LogFile, daemon: bool, pidfile: str = "", umask: int | None = None) -> None:
        super().__init__()
        self._log = log
        self._pidfile = PidFile(pidfile) if pidfile else None
        self._umask = umask
        self.capabilities: frozenset[int] = frozenset()
        """Those that it keeps when it changes to another user than root."""
        self._terminal = os.dup(2) if daemon else None
        log.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Also gives twistd the log observer, as a component of the application."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._log.open())
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        if self._umask is not None:
            os.umask(self._umask)
        with self._or_not_started():
            if self._pidfile is not None:
                self._pidfile.take()
            super().privilegedStartService()
            privileges.keep()

    def startService(self) -> None:
        privileges.keep_only(self.capabilities)
        with self._or_not_started():
            super().startService()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def stopService(self) -> defer.Deferred[None]:
        return defer.maybeDeferred(super().stopService).addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        if self._pidfile is not None:
            self._pidfile.give_back()
        return result

    @contextmanager
    def _or_not_started(self) -> Iterator[None]:
        try:
            yield
        except NotStarted as error:
            self._ended(None)
            if self._terminal is not None:
                os.write(self._terminal, f"{error}\n".encode())
            told = self._log.in_journal and error.logged
            sys.excepthook = partial(_end_without_traceback, sys.excepthook, told)
            raise


def _end_without_traceback(
    former: Any, told: bool, kind: type[BaseException], error: BaseException, trace: Any
) -> None:
    """The hook for uncaught exceptions: a service that cannot start prints the reason, unless the journal has it."""
    if not isinstance(error, NotStarted):
        former(kind, error, trace)
        return
    if not told:  # sys.stderr goes to the log, which has it already
        print(log_lines.complaint(str(error), sys.__stderr__), file=sys.__stderr__, flush=True)
    sys.stdout.flush()
    os._exit(error.status)


def _umask(settings: Values, options: Options, daemon: bool) -> int | None:
    """The mask for new files: the option's, twistd's, that of ulogd2 for a daemon, or None for the process's own.

    twistd's default for daemons, 077, would hide logs from everybody else; what is secret has a mode of its own.
    """
    if settings.umask is not None:
        return settings.umask
    return 0o022 if daemon and options.parent["umask"] is None else None


def make_reactor(config: configuration.Config) -> None:
    """The reactor, with steady timers and a resolver of ours. Twisted's TLS is in it for plugins of other packages."""
    starting.install_reactor(tls=not registry.built_in(name for line in config.stacks() for _, name in line.parts))
    from twisted.internet import reactor

    from ulogd_tw import clocks
    from ulogd_tw.transports import names

    clocks.make_steady(reactor)
    signals.stop_once(reactor)
    names.install(reactor)


def _open_doors(ulogd: Any, built: Built, parent: Process) -> None:
    """Add the ways in for commands and programs; what they need is loaded only for them."""
    path = global_options.control_socket(built.settings)
    if not path and built.http is None and built.manhole is None:
        return
    from ulogd_tw.operating.query import Database

    database = Database(ulogd)
    if built.manhole is not None:
        from ulogd_tw.operating import inspection, manhole

        names = inspection.namespace(ulogd, database=database)
        manhole.manhole_service(built.manhole, names).setServiceParent(parent)
    if path or built.http is not None:
        _open_api(ulogd, built, parent, path, database)


def _open_api(ulogd: Any, built: Built, parent: Process, path: str, database: Any) -> None:
    """The control socket at `path`, and the addresses of [http]."""
    from ulogd_tw.console.pages import PAGES as CONSOLE
    from ulogd_tw.operating import exporter_metrics, rates, silence, stalls
    from ulogd_tw.operating.api import control_socket, tree, view

    silence.Silence(ulogd, built.settings.exporter_silent).setServiceParent(parent)
    rates.Rates(ulogd).setServiceParent(parent)
    seen = view.View(ulogd, built.config.file, database=database)
    seen.stalls = stalls.Stalls()
    seen.stalls.setServiceParent(parent)
    if built.http is not None:
        seen.exporter_numbers = exporter_metrics.ExporterNumbers(built.http.exporter_labels)
    root = tree.root(seen, CONSOLE)
    if path:
        mode, group = built.settings.control_socket_mode, built.settings.control_socket_group
        control = control_socket.ControlSocket(root, path, mode, group)
        seen.doors["control_socket"] = control.door
        control.setServiceParent(parent)
    if built.http is not None:
        from ulogd_tw.operating.api import http

        served = http.Http(root, built.http)
        seen.doors |= served.by_name
        served.setServiceParent(parent)


def _refused(text: str) -> SystemExit:
    """The end of a process with a configuration that cannot run."""
    from ulogd_tw.operating import notify

    notify.failed(text)
    return SystemExit(log_lines.complaint(text, sys.stderr))


def makeService(options: Options) -> service.IService:
    """The service of a configuration. Mistakes are printed first; without a stack the process ends."""
    from ulogd_tw import memory

    try:
        config = configuration.load(options["config"])
        make_reactor(config)
        built = Built(config, prepare=True)
    except ConfigError as error:
        raise _refused(str(error)) from None
    if built.fatal and (built.settings.strict or not built.graph.stacks):
        raise _refused("\n".join(map(str, built.mistakes)))
    if not built.graph.stacks:
        raise _refused("\n".join(map(str, built.mistakes)) or f"{options['config']}: there is no stack to run")
    if options["loglevel"]:
        built.settings.loglevel = options["loglevel"]
    memory.keep_freed_memory()
    daemon = options.parent is not None and not options.parent["nodaemon"]
    parent = Process(LogFile(built.settings, daemon), daemon, options.pidfile, _umask(built.settings, options, daemon))
    parent.capabilities = frozenset().union(*(node.plugin.capabilities for node in built.graph.nodes))
    from ulogd_tw.service import Ulogd

    file = os.path.abspath(options["config"])
    ulogd = Ulogd(built.graph, built.settings, built.mistakes, file=file, sections=built.sections, text=config.text)
    ulogd.left_out += built.left_out()
    ulogd.spool_options = built.spools
    ulogd.stores, ulogd.rules = built.stores, built.alerts
    ulogd.setServiceParent(parent)
    _open_doors(ulogd, built, parent)
    return parent
