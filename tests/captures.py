"""Capture files with many packets of many flows, made quickly."""

import numpy as np

SECONDS = 300
"""How long the capture is."""
_LENGTHS = np.array([40, 52, 80, 120, 200])
"""Octets of IP packets."""


def write(path, packets, flows, seed=1):
    """A pcap file of whole frames: each flow lasts up to 15 s, two thirds are TCP from SYN to FIN, the others UDP."""
    random = np.random.default_rng(seed)
    flow = np.concatenate([np.arange(flows), random.integers(0, flows, packets - flows)])
    begins = random.random(flows) * (SECONDS - 20)
    times = np.round((begins[flow] + random.random(packets) * 15) * 1e6).astype(np.int64)
    order = np.argsort(times, kind="stable")
    flow, times = flow[order], times[order] + 1_700_000_000 * 1_000_000
    first, last = np.zeros(packets, bool), np.zeros(packets, bool)
    first[np.unique(flow, return_index=True)[1]] = True
    last[packets - 1 - np.unique(flow[::-1], return_index=True)[1]] = True
    tcp = flow % 3 > 0
    lengths = np.maximum(random.choice(_LENGTHS, packets), 40)
    starts = np.cumsum(16 + 14 + lengths) - (16 + 14 + lengths)
    octets = np.zeros(int(starts[-1]) + 30 + int(lengths[-1]), np.uint8)
    _put(octets, starts, "<u4", times // 1_000_000, times % 1_000_000, lengths + 14, lengths + 14)
    _put(octets, starts + 16, "u1", 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0)
    at = starts + 30
    _put(octets, at, "u1", 0x45, 0)
    _put(octets, at + 2, ">u2", lengths)
    _put(octets, at + 8, "u1", 64, np.where(tcp, 6, 17))
    source, destination = random.integers(0x0A000000, 0x0B000000, (2, flows))
    _put(octets, at + 12, ">u4", source[flow], destination[flow])
    _put(octets, at + 20, ">u2", 1024 + flow % 60000, np.where(tcp, 443, 53))
    _put(octets, at + 32, "u1", np.where(tcp, 0x50, 0), np.where(tcp, 16 | first * 2 | last, 0))
    udp = ~tcp
    _put(octets, at[udp] + 24, ">u2", lengths[udp] - 20)
    header = np.array([0xA1B2C3D4, 2 | 4 << 16, 0, 0, 65535, 1], "<u4")
    with open(path, "wb") as file:
        file.write(header.tobytes() + octets.tobytes())


def _put(octets, places, form, *values):
    """Numbers, or columns of them, one after another from each of the places."""
    dtype = np.dtype(form)
    for value in values:
        column = np.broadcast_to(np.asarray(value).astype(dtype), len(places))
        for place in range(dtype.itemsize):
            octets[places + place] = np.ascontiguousarray(column).view(np.uint8).reshape(-1, dtype.itemsize)[:, place]
        places = places + dtype.itemsize
