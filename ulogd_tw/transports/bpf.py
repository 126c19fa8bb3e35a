"""Filters of packets that the kernel runs: texts as tcpdump takes them, compiled by libpcap where there is one."""

from __future__ import annotations

import ctypes
import socket
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from ulogd_tw.core.errors import StartError

_SO_ATTACH_FILTER, DETACH_FILTER = 26, 27
"""SO_ATTACH_FILTER and SO_DETACH_FILTER (asm-generic/socket.h)."""
_RETURN = struct.pack("=HBBI", 0x06, 0, 0, 0)[:4]
"""BPF_RET | BPF_K: so many octets of the packet are taken."""
ETHERNET, RAW = 1, 12
"""DLT numbers of libpcap, for Ethernet and for IP without a link's header (on Linux)."""
_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")

_DECLARATIONS = """
    struct bpf_program { unsigned bf_len; char *bf_insns; };
    void *pcap_open_dead(int, int);
    int pcap_compile(void *, struct bpf_program *, const char *, int, unsigned);
    char *pcap_geterr(void *);
    void pcap_freecode(struct bpf_program *);
    void pcap_close(void *);
"""


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions of classic BPF, 8 octets each; what they return is how much of a packet is taken."""

    instructions: bytes

    def attach(self, sock: socket.socket) -> None:
        """Let only packets into the socket that pass. Raises OSError."""
        held = ctypes.create_string_buffer(self.instructions)
        # struct sock_fprog: how many instructions, and where they are.
        program = struct.pack("@HP", len(self.instructions) // 8, ctypes.addressof(held))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


NOTHING = Program(_RETURN + struct.pack("=I", 0))
"""No packet passes."""


@cache
def _ffi() -> Any:
    import cffi  # at need: it and what it reads declarations with take 20 ms

    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    return ffi


@cache
def _libpcap() -> Any:
    for name in _LIBRARIES:
        try:
            return _ffi().dlopen(name)
        except OSError:
            continue
    return None


def compiled(text: str, link: int, snaplen: int) -> Program:
    """The program of a filter for this type of link (DLT). An empty text takes every packet. Raises `StartError`."""
    if not text:
        return Program(_RETURN + struct.pack("=I", snaplen))
    pcap = _libpcap()
    if pcap is None:
        raise StartError("a filter needs libpcap", "apt-get install libpcap0.8")
    ffi = _ffi()
    handle, program = pcap.pcap_open_dead(link, snaplen), ffi.new("struct bpf_program *")
    try:
        if pcap.pcap_compile(handle, program, text.encode(), 1, 0xFFFFFFFF):
            why = ffi.string(pcap.pcap_geterr(handle)).decode(errors="replace")
            raise StartError(f"filter {text!r}: {why}", "man pcap-filter describes the language")
        instructions = bytes(ffi.buffer(program.bf_insns, 8 * program.bf_len))
        pcap.pcap_freecode(program)
    finally:
        pcap.pcap_close(handle)
    return Program(instructions)
