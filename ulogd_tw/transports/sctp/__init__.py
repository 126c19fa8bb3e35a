"""SCTP for Twisted: `listenSCTP` and `connectSCTP`, on the kernel's SCTP or on usrsctp in this process.

Protocols are `SCTPProtocol`s: whole messages on streams. Without SCTP in the kernel the packets go within UDP
(RFC 6951), or straight in IP, for which CAP_NET_RAW is needed.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import defer

from ulogd_tw.transports import names
from ulogd_tw.transports.errors import SctpUnavailable
from ulogd_tw.transports.sctp import kernel, user
from ulogd_tw.transports.sctp.association import ENCAPSULATION_PORT, Association, Options, SCTPAddress, SCTPProtocol
from ulogd_tw.transports.sctp.carriers import Carrier, carrier_kind, remedy
from ulogd_tw.transports.sctp.stack import the_stack

__all__ = ["Association", "Options", "SCTPAddress", "SCTPProtocol", "SctpUnavailable", "connectSCTP", "listenSCTP",
           "uses_kernel"]  # fmt: skip

_DEFAULTS = Options()


def uses_kernel(options: Options) -> bool:
    """Whether the kernel's SCTP is used. Raises `SctpUnavailable` where what is asked for cannot be had."""
    has, encapsulation = kernel.has_sctp(), options.encapsulation_port
    if options.stack == "kernel" or (options.stack == "auto" and has and not encapsulation):
        if not has:
            raise SctpUnavailable("this kernel has no SCTP: modprobe sctp, or sctp_stack=user")
        if encapsulation:
            raise SctpUnavailable(
                "the kernel's SCTP cannot be carried over UDP: encapsulation_port needs sctp_stack=user"
            )
        return True
    if options.addresses:
        raise SctpUnavailable("sctp_addresses (multi-homing) needs SCTP in the kernel (modprobe sctp)")
    if has and encapsulation == 0:
        raise SctpUnavailable("this kernel has SCTP of its own: set sctp_stack=kernel, or an encapsulation_port")
    the_stack()
    return False


def _encapsulation(options: Options) -> int:
    return ENCAPSULATION_PORT if options.encapsulation_port is None else options.encapsulation_port


def _unusable(fault: OSError, port: int) -> SctpUnavailable:
    return SctpUnavailable(remedy(fault, port))


def listenSCTP(port: int, factory: Any, interface: str = "", options: Options = _DEFAULTS, reactor: Any = None,
               begin: bool = True) -> user.Listener | kernel.KernelListener:  # fmt: skip
    """Listen; `factory.buildProtocol` gives an `SCTPProtocol`, or None to refuse. No interface: IPv4 and IPv6.

    Without `begin` nothing is taken before the `begin` of what is given. Raises OSError and `SctpUnavailable`.
    """
    reactor = _reactor(reactor)
    if uses_kernel(options):
        made: Any = kernel.KernelListener(interface, port, options, reactor, factory.buildProtocol)
    else:
        carriers = _bind(interface, _encapsulation(options), reactor)
        try:
            made = user.Listener(the_stack(), carriers, port, options, reactor, factory.buildProtocol)
        except OSError:
            for carrier in carriers:
                carrier.close()
            raise
    if begin:
        made.begin()
    return made


def _bind(interface: str, encapsulation: int, reactor: Any) -> list[Carrier]:
    """Carriers on one address, or on all of IPv4 and of IPv6. Raises OSError."""
    kind, carriers = carrier_kind(encapsulation), []
    try:
        for host in [interface] if interface else ["0.0.0.0", "::"]:
            try:
                carriers.append(kind.bind(host, encapsulation, reactor, the_stack().take))
            except OSError as fault:
                if not carriers or fault.errno not in _NO_IPV6:
                    raise
    except OSError as fault:
        for carrier in carriers:
            carrier.close()
        raise _unusable(fault, encapsulation) from None
    return carriers


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def connectSCTP(
    host: str, port: int, factory: Any, options: Options = _DEFAULTS, reactor: Any = None
) -> defer.Deferred[Any]:
    """Connect; fires with the protocol that `factory.buildProtocol` gave, or fails. Cancelling gives it up."""
    reactor = _reactor(reactor)
    found = names.numeric(host, port, socket.SOCK_DGRAM)
    if found is not None:
        return _connect(found[1][0], port, factory, options, reactor)
    looked = names.lookup(reactor, host, port, socket.SOCK_DGRAM).addCallback(lambda found: found[0][1][0])
    return looked.addCallback(_connect, port, factory, options, reactor)


def _connect(host: str, port: int, factory: Any, options: Options, reactor: Any) -> defer.Deferred[Any]:
    done: defer.Deferred[Any] = defer.Deferred(lambda _: made.abortConnection())

    def built(address: SCTPAddress) -> Any:
        protocol = factory.buildProtocol(address)
        if protocol is not None:
            reactor.callLater(0, lambda: None if done.called else done.callback(protocol))
        return protocol

    try:
        if uses_kernel(options):
            made: Any = kernel.connect(host, port, options, reactor, built, done.errback)
        else:
            made = _connect_user(host, port, options, reactor, built, done.errback)
    except (OSError, SctpUnavailable) as fault:
        return defer.fail(fault)
    return done


def _connect_user(host: str, port: int, options: Options, reactor: Any, built: Any, failed: Any) -> user.Connecting:
    encapsulation, stack = _encapsulation(options), the_stack()
    try:
        carrier = carrier_kind(encapsulation).connect(host, encapsulation, reactor, stack.take)
    except OSError as fault:
        raise _unusable(fault, encapsulation) from None
    try:
        return user.connect(stack, carrier, (host, encapsulation, b""), port, options, reactor, built, failed)
    except OSError:
        carrier.close()
        raise


def _reactor(given: Any) -> Any:
    if given is not None:
        return given
    from twisted.internet import reactor

    return reactor
