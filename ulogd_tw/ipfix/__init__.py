"""IPFIX (RFC 7011), NetFlow and sFlow: octets to batches and back.

The decoding half of a Collecting Process and the encoding half of an Exporting Process. `decoder` takes the Messages of
any number of Transport Sessions (`session`) and gives batches, a column for each Information Element. `limits` bounds
the memory used by peers, and `events` reports changes of their templates and sequences. `record_encoder` makes Data
Records and templates of batches, `builder` puts them into Messages. No socket and no clock: octets and the time come in
as arguments. Import the modules themselves: outputs need the one half, inputs the other.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
