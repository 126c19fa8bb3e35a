"""The ssh manhole: a Python prompt in the running service for administrators, and single expressions from scripts.

The section ``[manhole]`` opens it, on loopback unless `listen` is set. A user with a key in `authorized_keys` has all
rights of the service. There are no passwords, and user names have no effect.

    ssh -p 5022 127.0.0.1                       a prompt (help() says what there is)
    ssh -p 5022 127.0.0.1 'counters()'          one expression or statement, its value as JSON or text
"""

from __future__ import annotations

import errno
import json
import socket
import traceback
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.application import service
from twisted.conch import interfaces as conch
from twisted.conch import manhole, manhole_ssh
from twisted.conch.checkers import SSHPublicKeyChecker
from twisted.conch.insults import insults
from twisted.conch.ssh import connection, keys, transport, userauth
from twisted.cred import portal
from twisted.internet import defer, error, reactor
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw import __version__
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, text
from ulogd_tw.operating.logins import Logins
from ulogd_tw.operating.ssh_keys import AuthorizedKeys, check_authorized_keys, load_host_key
from ulogd_tw.transports.stream_listener import bind_socket

MOST_CONNECTIONS = 16
"""Maximum number of authenticated connections, and of others; half of these for one address."""
LOGIN_SECONDS = 30
LOGIN_ATTEMPTS = 6
_DEFAULT_PORT = 5022


def _listen(given: str) -> tuple[str, int]:
    """(host, port) of ``tcp:HOST:PORT``, ``tcp:PORT`` or either without ``tcp:``; loopback without a host."""
    host, _, port = given.strip().removeprefix("tcp:").rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{given!r} is not tcp:HOST:PORT, such as tcp:127.0.0.1:5022")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


OPTIONS: tuple[Option, ...] = (
    Option("listen", _listen, ("127.0.0.1", _DEFAULT_PORT), "Address of the ssh server, tcp:HOST:PORT."),
    Option("authorized_keys", text, None, "File with the public keys of the users who may log in, one a line as "
           "ssh-keygen writes them. It is read at each login. A line with restrictions (command=, from=) admits "
           "nobody.", True),
    Option("host_key", text, "/var/lib/ulogd/manhole_host_key", "File with the private key of the ssh server. It is "
           "made at the first start, readable by its owner only."),
)  # fmt: skip


def manhole_service(options: Any, namespace: dict[str, Any]) -> service.IService:
    """The service with the ssh server; `options` are values of `OPTIONS`."""
    return Manhole(options, namespace)


def _port_of_address_to_come(host: str, port: int, factory: Any) -> Any:
    """A listening port of an address that no interface has yet."""
    with bind_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, host, port) as bound:
        bound.listen(50)
        return reactor.adoptStreamPort(bound.fileno(), bound.family, factory)


class Manhole(service.Service):
    """The ssh server. `port` is the listening port while it runs."""

    log = Logger()

    def __init__(self, options: Any, namespace: dict[str, Any]) -> None:
        self.listen: tuple[str, int] = options.listen
        self.authorized_keys: str = options.authorized_keys
        self.host_key: str = options.host_key
        self.namespace = namespace
        self.port: Any = None

    def startService(self) -> None:
        """Listen; on failure log the reason once, and the stacks run without a manhole."""
        super().startService()
        try:
            self._listen()
        except StartError as failure:
            self.log.error("{failure}", failure=failure)

    def _listen(self) -> None:
        """Check the keys and listen. Raises `StartError`."""
        key = load_host_key(self.host_key)
        check_authorized_keys(self.authorized_keys)
        host, port = self.listen
        factory = _Factory(self._portal(), key)
        try:
            self.port = reactor.listenTCP(port, factory, interface=host)
        except error.CannotListenError as failure:
            if failure.socketError.errno != errno.EADDRNOTAVAIL:
                raise StartError(f"manhole: {failure}", "choose another listen= in [manhole]") from None
            self.port = _port_of_address_to_come(host, port, factory)
        self.log.info("manhole: ssh -p {port} {host}", host=host, port=self.port.getHost().port)

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        if self.port is not None:
            port, self.port = self.port, None
            yield port.stopListening()
            port.factory.close()

    def _portal(self) -> portal.Portal:
        return portal.Portal(_Realm(self.namespace), [SSHPublicKeyChecker(AuthorizedKeys(self.authorized_keys))])


# the server


class _UserAuth(userauth.SSHUserAuthServer):
    attemptsBeforeDisconnect = LOGIN_ATTEMPTS
    loginTimeout = LOGIN_SECONDS


class _Transport(transport.SSHServerTransport):
    """One connection; its factory counts them."""

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self.factory.logins.add(self, getattr(self.transport.getPeer(), "host", ""))
        super().connectionMade()

    def receiveError(self, code: int, description: bytes) -> None:
        """The client has said why it ends the connection; a user who leaves is no error."""
        if code != transport.DISCONNECT_BY_APPLICATION:
            super().receiveError(code, description)

    def setService(self, service: Any) -> None:
        """The second service is there once the user has authenticated."""
        if not isinstance(service, _UserAuth):
            self.factory.logins.settled(self)
            self.factory.users.add(self)
        super().setService(service)

    def connectionLost(self, reason: Failure) -> None:
        self.factory.connections.discard(self)
        self.factory.users.discard(self)
        self.factory.logins.settled(self)
        super().connectionLost(reason)


class _Factory(manhole_ssh.ConchFactory):
    """Bounds the connections, and can end them all."""

    protocol = _Transport
    services = {b"ssh-userauth": _UserAuth, b"ssh-connection": connection.SSHConnection}
    noisy = False

    def __init__(self, portal_: portal.Portal, host_key: keys.Key) -> None:
        super().__init__(portal_)
        algorithm = host_key.sshType()
        self.publicKeys = {algorithm: host_key.public()}
        self.privateKeys = {algorithm: host_key}
        self.connections: set[_Transport] = set()
        self.users: set[_Transport] = set()
        """Those that have authenticated. One that had to go is in `connections` until the reactor turns."""
        self.logins = Logins(
            reactor, MOST_CONNECTIONS, MOST_CONNECTIONS // 2, LOGIN_SECONDS,
            lambda waiting: not waiting.gotVersion, lambda waiting: waiting.transport.abortConnection(),
        )  # fmt: skip

    def buildProtocol(self, address: Any) -> Any:
        if len(self.users) >= MOST_CONNECTIONS:
            return None  # which closes it
        return super().buildProtocol(address)

    def close(self) -> None:
        """End every connection."""
        for protocol in list(self.connections):
            protocol.transport.abortConnection()


class _Realm(manhole_ssh.TerminalRealm):
    """Gives every session the same namespace: a name defined in one session is visible in the next."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__()
        self.sessionFactory = lambda original: _Session(original, namespace)
        self.chainedProtocolFactory = lambda: insults.ServerProtocol(_Prompt, namespace)


class _Prompt(manhole.ColoredManhole):
    """The interactive prompt."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__()
        self.namespace = namespace

    def connectionMade(self) -> None:
        super().connectionMade()
        self.interpreter.runcode = self._guarded(self.interpreter.runcode)

    def initializeScreen(self) -> None:
        """The first lines: the name of the service, and the main commands."""
        self.terminal.reset()
        self.terminal.write(f"ulogd_tw {__version__}: a Python prompt in the running service; see help()")
        self.terminal.nextLine()
        self.setInsertMode()
        self.drawInputLine()

    def connectionLost(self, reason: Any) -> None:
        """Cancel a pending Deferred: a tap without a reader removes itself."""
        super().connectionLost(reason)
        self.interpreter.write = lambda *_: None
        for _, waited in list(getattr(self.interpreter, "_pendingDeferreds", {}).values()):
            waited.addErrback(lambda _: None)
            waited.cancel()

    def _guarded(self, runcode: Any) -> Any:
        """exit() ends the session: Twisted would only log the SystemExit and drop the connection."""

        def run(code: Any) -> None:
            try:
                runcode(code)
            except SystemExit:
                self.terminal.loseConnection()

        return run


class _Session(manhole_ssh.TerminalSession):
    """One channel: a prompt on a terminal, or one command."""

    width, height = 0, 0
    _has_terminal = False
    _running: defer.Deferred[Any] | None = None
    _terminal: Any = None

    def __init__(self, original: Any, namespace: dict[str, Any]) -> None:
        super().__init__(original)
        self.namespace = namespace

    def getPty(self, term: bytes, windowSize: Any, attrs: Any) -> None:
        self._has_terminal = True
        self._size(windowSize)

    def _size(self, size: Any) -> None:
        """Rows and columns of the client's terminal; ssh -tt without a terminal gives 0 and 0."""
        self.height, self.width = size[0] or 24, size[1] or 80

    def openShell(self, proto: Any) -> None:
        if not self._has_terminal:
            proto.makeConnection(_NoInput(proto))
            self._end(proto, "this is a prompt for a terminal: use ssh -t, or give an expression\n", 1)
            return
        self._terminal = self.chainedProtocolFactory()
        self.transportFactory(proto, self._terminal, conch.IConchUser(self.original), self.width, self.height)

    def execCommand(self, proto: Any, cmd: bytes) -> None:
        """Run one expression or statement; a Deferred is waited for, and cancelled when the client goes."""
        proto.makeConnection(_NoInput(proto))
        self._running = evaluate(cmd.decode("utf-8", "replace"), self.namespace)
        self._running.addCallback(lambda result: self._end(proto, *result))

    def _end(self, proto: Any, output: str, status: int) -> None:
        self._running = None
        write = proto.errReceived if status else proto.outReceived
        if output:
            write(output.encode("utf-8", "backslashreplace"))
        reason = error.ProcessTerminated(status) if status else error.ProcessDone(0)
        # Behind the answer to the request itself, which the channel sends when this returns.
        reactor.callLater(0, proto.processEnded, Failure(reason))

    def windowChanged(self, newWindowSize: Any) -> None:
        self._size(newWindowSize)
        if self._terminal is not None:
            self._terminal.terminalProtocol.terminalSize(self.width, self.height)

    def eofReceived(self) -> None:
        """The client's standard input has ended: a prompt ends too, a command may go on."""
        if self._terminal is not None:
            self._terminal.loseConnection()

    def closed(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.addErrback(lambda _: None)
            running.cancel()


class _NoInput:
    """Stands for the process of a command: it reads nothing."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto

    def write(self, data: bytes) -> None:
        pass

    def loseConnection(self) -> None:
        pass


# one command


def evaluate(source: str, namespace: dict[str, Any]) -> defer.Deferred[tuple[str, int]]:
    """(text to print, exit status) of one expression or statement; 1 with the exception if it raises.

    For an expression its value, as `shown`; for statements their output. A Deferred is waited for.
    """
    printed = StringIO()

    def run() -> Any:
        with redirect_stdout(printed):
            try:
                code = compile(source, "<ssh>", "eval")
            except SyntaxError:
                exec(compile(source, "<ssh>", "exec"), namespace)  # noqa: S102 - what a manhole is for
                return None
            return eval(code, namespace)  # noqa: S307

    def done(value: Any) -> tuple[str, int]:
        return printed.getvalue() + shown(value), 0

    def failed(failure: Failure) -> tuple[str, int]:
        if failure.check(defer.CancelledError):
            return "", 1
        if failure.check(SystemExit):
            return printed.getvalue(), 0
        lines = traceback.format_exception_only(failure.type, failure.value)
        return printed.getvalue() + "".join(lines), 1

    try:
        running = defer.maybeDeferred(run)
    except SystemExit:
        running = defer.succeed(None)
    return running.addCallback(done).addErrback(failed)


def shown(value: Any) -> str:
    """A value as text for scripts: text unchanged, lists and dicts as JSON, nothing for None, else its repr."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.endswith("\n") or not value else value + "\n"
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        try:
            return json.dumps(value, indent=1, default=_plain) + "\n"
        except (TypeError, ValueError):
            pass
    return repr(value) + "\n"


def _plain(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else repr(value)
