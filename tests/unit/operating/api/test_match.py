"""What helps to write a filter: keys of a store, and mistakes with their columns."""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

from twisted.internet import defer

from tests.unit.flows import made
from tests.unit.operating.api.client import asked
from tests.unit.operating.api.test_openapi import DOCUMENT, faults
from tests.unit.operating.api.test_pages import JSON, PagesCase


class Output:
    """The node of a PARQUET."""

    def __init__(self, ident, plugin):
        self.ident, self.plugin = ident, plugin


class MatchTests(PagesCase):
    """A service with a raw store and a roll-up."""

    def setUp(self):
        super().setUp()
        self.place = Path(tempfile.mkdtemp(prefix="utw-match-"))
        self.addCleanup(shutil.rmtree, self.place)
        made.write(self.place / "raw", [made.flow(1, 1)], keys=("exporter", *made.RAW_KEYS))
        described = {"interval": 3600, "by": ["sourceAddress"], "time": "flow", "lateness": 60}
        rolled = made.rolled([made.flow(1, 1)], ("sourceAddress",), made.HOUR)
        made.write(self.place / "rolled", rolled, ("sourceAddress", *made.SUMS), described, "rolled")
        raw, rolled = (self.node(name) for name in ("raw", "rolled"))
        rolled.plugin.makers = (SimpleNamespace(rollup=described),)
        values = SimpleNamespace(outputs=("raw", "rolled"), question_log="")
        self.served = self.door(stores={"flows": values})
        self.served.resource.children[b"metrics"].view.ulogd.graph = SimpleNamespace(nodes=[raw, rolled])

    def node(self, name):
        return Output(name, SimpleNamespace(name="PARQUET", directory=self.place / name))

    @defer.inlineCallbacks
    def ask(self, method, path, **body):
        octets = json.dumps(body).encode() if method == "POST" else b""
        status, _, found = yield asked(self.served, method, path, octets, **JSON)
        operation = DOCUMENT["paths"][path.partition("?")[0]][method.lower()]["responses"]
        response = operation.get(str(status), operation["default"])
        self.assertEqual([], list(faults(found, response["content"]["application/json"]["schema"])))
        return status, found

    @defer.inlineCallbacks
    def test_match(self):
        """A filter is one, or the column of its mistake is told; keys that the store lacks are named."""
        for match, missing in (
            ("", []), ("dst port 443 and src net 10.0.0.0/8", []), ("host 192.0.2.1 or octets > 1k", []),
            ('userName == "x" and tcp', ["userName"]),
        ):  # fmt: skip
            found = yield self.ask("POST", "/api/v1/match", match=match, store="flows")
            self.assertEqual((200, {"ok": True, "missing": missing}), found)
        for match, column in (("dst prot 443", 5), ("src port 80 and", 16), ("tcp and )", 9), ("nothing == 1", 1)):
            status, found = yield self.ask("POST", "/api/v1/match", match=match)
            self.assertEqual((200, False, column), (status, found["ok"], found["column"]), found)
            self.assertTrue(found["error"].startswith(f"column {column}: "), found)
            self.assertNotIn("\n", found["error"])

    @defer.inlineCallbacks
    def test_keys(self):
        """The keys of the raw store with their types and words; a word for either side needs both."""
        status, found = yield self.ask("GET", "/api/v1/keys?store=flows")
        keys = {key["name"]: key for key in found["keys"]}
        self.assertEqual((200, {"exporter", *made.RAW_KEYS}), (status, set(keys)))
        source = {
            "name": "sourceAddress",
            "type": "address",
            "words": ["srcip", "ip"],
            "unit": "",
            "elements": ["8", "27"],
        }
        self.assertEqual(source, keys["sourceAddress"])
        octets = keys["octetDeltaCount"]
        self.assertEqual(([], "octets", ["1"]), (octets["words"], octets["unit"], octets["elements"]))
        self.assertEqual(["dstport", "port"], keys["destinationTransportPort"]["words"])

    @defer.inlineCallbacks
    def test_refused(self):
        """A store that there is not, and a body that is none."""
        status, found = yield self.ask("GET", "/api/v1/keys?store=flow")
        self.assertEqual((404, "there is no store flow; did you mean flows?"), (status, found["error"]))
        status, found = yield self.ask("POST", "/api/v1/match", match="tcp", store="x")
        self.assertEqual(404, status)
        status, found = yield self.ask("POST", "/api/v1/match", match=7)
        self.assertEqual((400, "match must be a text"), (status, found["error"]))
