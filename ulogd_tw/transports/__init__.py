"""Sockets and what stands in for them: octets to and from peers, never what the octets mean.

In come octets and addresses of peers; out go the same, as slabs of datagrams, runs of a stream, or messages. A
`Listener` waits for peers, a `Sender` goes to one. `ulogd_tw.peers` joins them to URLs.
"""

from ulogd_tw.transports.protocols import DatagramSender, Listener, Sender, StreamSender
from ulogd_tw.transports.url import Url

__all__ = ["DatagramSender", "Listener", "Sender", "StreamSender", "Url"]
