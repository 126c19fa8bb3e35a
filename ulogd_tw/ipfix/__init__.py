"""IPFIX (RFC 7011), NetFlow and sFlow: octets to batches and back.

The decoding half of a Collecting Process and the encoding half of an Exporting Process. `Decoder` takes the Messages of
any number of Transport Sessions (`Session`) and gives batches, a column for each Information Element. `Limits` bounds
the memory used by peers, and `Event` reports changes of their templates and sequences. `RecordEncoder` makes Data
Records and templates of batches, `MessageBuilder` puts them into Messages. No socket and no clock: octets and the time
come in as arguments.
"""

from ulogd_tw.ipfix.builder import MessageBuilder
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.events import Event
from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.message import Framer
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.session import Session
from ulogd_tw.ipfix.template import Field, Template

__all__ = [
    "Decoder",
    "Event",
    "Field",
    "FileReader",
    "Framer",
    "Kept",
    "Limits",
    "MessageBuilder",
    "RecordEncoder",
    "Session",
    "Template",
]
