"""Seeds with changes: octets replaced, cut out, doubled or put in, and two seeds joined."""

import struct

from hypothesis import strategies as st

_ODD = (b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\0\2", b"\0\3", b"\x01\0", b"\x7f\xff", struct.pack("!I", 1 << 31))


def changed(seeds):
    """A strategy: a seed with up to eight changes, or any octets."""
    change = st.tuples(
        st.sampled_from(("replace", "insert", "cut", "double", "end")), st.integers(0, 1 << 16), st.integers(1, 64),
        st.one_of(st.sampled_from(_ODD), st.binary(min_size=1, max_size=6)),
    )  # fmt: skip
    one = st.builds(_apply, st.sampled_from(seeds), st.lists(change, max_size=8))
    return st.one_of(one, one, st.builds(bytes.__add__, one, st.sampled_from(seeds)), st.binary(max_size=200))


def _apply(seed, changes):
    octets = bytearray(seed)
    for kind, place, size, new in changes:
        at = place % (len(octets) + 1)
        if kind == "replace":
            octets[at : at + len(new)] = new
        elif kind == "insert":
            octets[at:at] = new
        elif kind == "cut":
            del octets[at : at + size]
        elif kind == "double":
            octets[at:at] = octets[at : at + size]
        else:
            del octets[at:]
    return bytes(octets[:40_000])
