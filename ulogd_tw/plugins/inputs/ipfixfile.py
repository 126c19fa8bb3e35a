"""IPFIXFILE: reads IPFIX files (RFC 5655) into batches."""

from __future__ import annotations

import io
from collections.abc import Iterator

from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.replay import SLICE_OCTETS, Replaying
from ulogd_tw.core.counters import Count, Fault
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.ipfix.session import Session


class IPFIXFILE(Replaying):
    """Reads files of IPFIX Messages, written by the output IPFIXFILE, nfdump or other programs.

    Each file is a Transport Session of its own: its templates hold for this file only. The clock is the Export Time of
    the Messages. An incomplete last Message is left out and counted as cut. After damage, reading goes on at the next
    Message; the damaged places are counted as damaged, and the octets passed over as octets_skipped.
    """

    name = "IPFIXFILE"
    counts = (
        *Replaying.counts,
        Count("octets_skipped", "octets", "Octets passed over to find the next message after damage."),
        Fault("damaged", "occasions", "Places of a file where no message begins."),
        Fault("cut", "files", "Files whose last message is cut."),
    )
    options = (*Replaying.reading_options, *Collecting.decoding_options)

    def __init__(self, instance: str, config=None) -> None:
        super().__init__(instance, config)
        self._session: Session | None = None

    def read(self, path: str, file: io.BufferedIOBase) -> Iterator[float | None]:
        reader, session = FileReader(), Session(path, 0, reliable=True)
        self._session = session
        while octets := file.read1(SLICE_OCTETS):
            self._feed(session, reader.feed(octets))
            yield None
        self._feed(session, reader.finish())
        counters = self.counters
        counters.figures["octets_skipped"] += reader.skipped
        if reader.damages:
            counters.errors["damaged"] += reader.damages
            self.log.warn("{instance}: {path} is damaged in {places}; {octets} skipped",
                          instance=self.instance, path=path, places=plural(reader.damages, "place"),
                          octets=plural(reader.skipped, "octet was", "octets were"))  # fmt: skip
        if reader.waiting:
            counters.errors["cut"] += 1
            self.log.warn("{instance}: the last message of {path} is incomplete and left out ({octets})",
                          instance=self.instance, path=path, octets=plural(reader.waiting, "octet"))  # fmt: skip

    def end_file(self) -> None:
        if self._session is not None:
            self._hand_on()
            self._decoder.forget(self._session)
            self._session = None

    def _feed(self, session: Session, messages: list[bytes]) -> None:
        for message in messages:
            exported = float(int.from_bytes(message[4:8], "big"))
            self.advance(exported)
            self._decoder.feed(session, message, exported)
