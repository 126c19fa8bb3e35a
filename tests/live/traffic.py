"""Real traffic between two network namespaces: TCP, refused TCP, UDP, ICMP, over IPv4 and IPv6."""

import sys

SERVER = """
import selectors, socket, sys
select = selectors.DefaultSelector()
for family, host in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    listener = socket.socket(family); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, 5000)); listener.listen(512)
    udp = socket.socket(family, socket.SOCK_DGRAM); udp.bind((host, 5001))
    select.register(listener, 1, "tcp"); select.register(udp, 1, "udp")
print("ready", flush=True)
while True:
    for key, _ in select.select():
        if key.data == "udp":
            data, peer = key.fileobj.recvfrom(2000); key.fileobj.sendto(data[: len(data) // 2], peer)
        else:
            connection, _ = key.fileobj.accept(); connection.settimeout(5)
            connection.sendall(connection.recv(65536) * 2); connection.close()
"""

CLIENT = """
import socket, sys
ipv4, ipv6, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
for i in range(n):
    for family, host in ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6)):
        with socket.socket(family) as tcp:
            tcp.settimeout(5); tcp.connect((host, 5000)); tcp.sendall(b"x" * (100 + i % 900))
            while tcp.recv(65536): pass
        with socket.socket(family, socket.SOCK_DGRAM) as udp:
            udp.bind(("", 20000 + i % 10000)); udp.settimeout(5)
            udp.sendto(b"y" * (50 + i % 500), (host, 5001)); udp.recv(2000)
for family, host in ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6)):
    try:
        socket.create_connection((host, 5999), 2)
    except ConnectionRefusedError:
        pass
"""


def server_argv(spaces):
    """The server, for side b."""
    return spaces.argv("b", [sys.executable, "-c", SERVER, spaces.ipv4["b"], spaces.ipv6["b"]])


def run_client(spaces, n):
    """n rounds from side a: 4 connections each, and two refused ones; then pings.

    UDP has ports of its own: two sockets after another on one port would be one connection of the kernel.
    """
    spaces.run("a", [sys.executable, "-c", CLIENT, spaces.ipv4["b"], spaces.ipv6["b"], str(n)], timeout=120)
    spaces.run("a", ["ping", "-c", "2", "-i", "0.2", spaces.ipv4["b"]])
    spaces.run("a", ["ping", "-c", "2", "-i", "0.2", spaces.ipv6["b"]])
