"""TABBED: chosen keys of each row, separated by tabs. A template of an output to a file."""

from ulogd_tw.core.lines import Lines
from ulogd_tw.core.options import Option, words
from ulogd_tw.core.phrases import value
from ulogd_tw.core.plugin import FLOW, PACKET
from ulogd_tw.writing import TextOutput
from ulogd_tw.writing.text import SYNC, file_option


class TABBED(TextOutput):
    """Writes the values of some keys, a line for each row, to a file.

    TextOutput does the rest: a full disk, a rotated file and a stop lose no row. An output without it has a method
    write(batch), which may return a Deferred; until it fires, further batches wait in the queue before the output.
    """

    name = "TABBED"
    itype = PACKET | FLOW
    options = (
        file_option("/var/log/ulogd_tabbed.log"),
        SYNC,
        Option("keys", words, None, "Keys to write, such as sourceAddress octetDeltaCount.", mandatory=True),
    )

    def requests(self, wanted):
        """All keys in `keys` are mandatory: a key that no plugin above gives is a mistake of the stack."""
        return dict.fromkeys(self.config.keys, True)

    def texts(self, batch):
        """The lines of a batch as octets, with the number of rows in each piece."""
        fields = []
        for name in self.config.keys:
            found = self.find(batch, name)
            if found is not None:
                fields.append(value(found))
        return Lines(b"\n", b"\t", b"").render(fields, batch.n)
