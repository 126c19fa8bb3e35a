"""The ways to a peer that reads lines of text: streams or datagrams; each is imported when an output takes it."""

from __future__ import annotations

import socket

from ulogd_tw.writing.text import Sink, TextOutput


def service_port(name: str, kind: str) -> int:
    """A port of tcp or udp, by its number or the name of its service. ValueError for other texts."""
    try:
        port = int(name) if name.isdecimal() else socket.getservbyname(name, kind)
    except (OSError, ValueError):
        port = 0
    if not 0 < port < 65536:
        raise ValueError(f"{name!r} is neither a port (1 to 65535) nor a known service")
    return port


def unix_sink(output: TextOutput, path: str) -> Sink:
    """A sink to a Unix socket of streams."""
    from ulogd_tw.writing.streams import unix

    return unix(output, path)


def sink_for(output: TextOutput, kind: str, host: str, port: int) -> Sink:
    """A sink to a peer by tcp or udp."""
    peer = f"{kind}:[{host}]:{port}" if ":" in host else f"{kind}:{host}:{port}"
    if kind == "udp":
        from ulogd_tw.writing.datagrams import Datagrams

        return Datagrams(output, peer, host, port, output.clock)
    from ulogd_tw.writing.streams import tcp

    return tcp(output, peer, host, port)
