"""The captures of shared/corpus/ipfix: every record equal to what the reference decoder gives, value by value."""

import csv
import json
from collections import Counter, defaultdict

from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.ipfix.wire import CONTEXT_NAMES, as_people_write, check, without_our_times
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.ipfix.decoder import Decoder, Limits
from ulogd_tw.ipfix.packet_sections import MADE, SECTIONS
from ulogd_tw.ipfix.session import Session

RENAMED = {"e5951.httpContentType": "httpContentType"}
"""Names that the reference gives to an enterprise element although IANA uses them too (DESIGN section 9.4)."""
REASONS = {
    "message length 1384 over the datagram (1316)": "length",
    "message length 118 over the datagram (116)": "length",
    "set beyond the end of the message": "set_length",
}
"""How we call what the reference says of a malformed Message."""


def oracle_name(name):
    """The reference's name of a key, which knows no context: there observationDomainId#2 is the only one."""
    bare, _, occurrence = name.partition("#")
    if bare in CONTEXT_NAMES:
        return bare if occurrence == "2" else f"{bare}#{int(occurrence) - 1}"
    return RENAMED.get(name, name)


def canonical_rows(batch):
    """(domain, template id, kind, fields) of each row; paddingOctets left out, lists as texts of JSON."""
    names = [n for n in batch.schema if n not in CONTEXT_NAMES]
    while SECTIONS.keys() & set(names) and names[-1] in MADE:  # of packets inside records, which the reference leaves
        del names[-1]
    columns = [canonical_list(batch.columns[n], batch.schema[n], batch.missing.get(n)) for n in names]
    context = [
        canonical_list(batch.columns[n], batch.schema[n]) for n in ("observationDomainId", "templateId", "record_kind")
    ]
    called = [oracle_name(n) for n in names]
    for row, *values in zip(zip(*context, strict=True), *columns, strict=True):
        yield (*row, tuple(zip(called, values, strict=True)))


def reference(oracle):
    """(index of the Message, (domain, template id, kind, fields)) of each record of the reference."""
    for record in oracle["records"]:
        fields = tuple(
            (
                name,
                json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else as_people_write(name, value),
            )
            for name, value in record["fields"].items()
            if not name.startswith("paddingOctets")
        )
        yield record["msg"], (record["domain"], record["tid"], record["kind"], fields)


class Replay:
    """A case of the corpus, decoded."""

    def __init__(self, case, at_once):
        lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
        self.counters = Counters("test")
        self.decoder = Decoder(ALL, self.counters, Limits(parked_time=0))
        self.rows = defaultdict(Counter)
        sessions = {}
        for index, line in enumerate(map(json.loads, lines)):
            peer = line["src"], line["sport"]
            session = sessions.get(peer)
            if session is None:
                session = sessions[peer] = Session(*peer, reliable=line["transport"] == "file")
            self.decoder.feed(session, bytes.fromhex(line["hex"]), float(index))
            if not at_once:
                self._drain(index)
        self._drain(None)

    def _drain(self, index):
        for batch in self.decoder.drain(1.0):
            check(batch)
            self.rows[index].update(canonical_rows(batch))


class CorpusTests(SynchronousTestCase):
    """Every IPFIX case, message by message and all messages at once."""

    def compare(self, oracle, at_once):
        case = oracle["case"]
        found = Replay(case, at_once)
        expected = defaultdict(Counter)
        for index, row in reference(oracle):
            expected[None if at_once else index][row] += 1
        for place in sorted(set(expected) | set(found.rows), key=str):
            rows = without_our_times(found.rows[place], expected[place])
            surplus, lack = rows - expected[place], expected[place] - rows
            self.assertEqual((Counter(), Counter()), (surplus, lack), (case, place))
        self.assertEqual(oracle["record_count"], found.counters.rows_received, case)
        errors = found.counters.errors
        self.assertEqual(
            Counter(REASONS[m["error"]] for m in oracle["malformed_messages"]),
            +Counter({reason: errors[reason] for reason in set(REASONS.values())}),
            case,
        )
        wrong = Counter(s["why"] for s in oracle["undecodable_sets"])
        self.assertEqual(
            wrong, +Counter({"no template": errors["no_template"], "reserved set id": errors["set_id"]}), case
        )
        ignored = sum(not w["obeyed"] for w in oracle["withdrawals"])
        self.assertEqual(ignored, errors["withdrawal_ignored"], case)
        return oracle["record_count"]

    def test_cases(self):
        """All IPFIX cases of the manifest with all their records."""
        cases = records = 0
        for path in sorted(shared_path("corpus", "ipfix", "oracle").glob("*.json")):
            oracle = json.loads(path.read_text())
            if oracle["protocol"] == "ipfix":
                cases += 1
                records += self.compare(oracle, at_once=False)
                self.compare(oracle, at_once=True)
        with shared_path("corpus", "ipfix", "manifest.csv").open() as file:
            manifest = [int(line["records"]) for line in csv.DictReader(file) if line["protocol"] == "ipfix"]
        self.assertEqual((len(manifest), sum(manifest)), (cases, records))
