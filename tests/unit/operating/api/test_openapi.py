"""The OpenAPI file: it has the addresses, methods and parameters of the resources, and their answers fit it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

from twisted.internet import defer

from tests.unit.operating.api.client import asked
from tests.unit.operating.api.test_pages import JSON, PagesCase
from ulogd_tw.flows.nat_answers import Found
from ulogd_tw.flows.nat_rows import NatRow, Question
from ulogd_tw.flows.who_had import answers
from ulogd_tw.operating import api
from ulogd_tw.operating.api.pages import PAGES
from ulogd_tw.operating.events import Events
from ulogd_tw.storing.coverage import Gap

DOCUMENT = json.loads((Path(api.__file__).parent / "openapi.json").read_text("utf-8"))
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
}


def faults(value, schema, where="answer"):
    """What of a value does not fit a schema: the part of JSON Schema that the file uses."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[kind]) and (kind == "boolean" or value is not True) for kind in kinds):
        yield f"{where} is no {kinds}: {value!r}"
    if value not in schema.get("enum", [value]):
        yield f"{where} is none of {schema['enum']}: {value!r}"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (f"{where} lacks {name}" for name in set(schema.get("required", ())) - set(value))
        for name, member in value.items():
            more = known.get(name, schema.get("additionalProperties", True))
            if more is False:
                yield f"{where} has {name}, which is not described"
            elif more is not True:
                yield from faults(member, more, f"{where}.{name}")
    if isinstance(value, list):
        for member in value:
            yield from faults(member, schema.get("items", {}), f"{where}[]")


class DocumentTests(PagesCase):
    """The file against the resources."""

    def test_addresses(self):
        """The same addresses, methods, parameters and kinds of answers; private ones are marked."""
        self.assertEqual({page.path for page in PAGES}, set(DOCUMENT["paths"]))
        for page in PAGES:
            described = DOCUMENT["paths"][page.path]
            self.assertEqual({"get"} if page.get else {"post"}, set(described), page.path)
            (operation,) = described.values()
            names = [parameter["name"] for parameter in operation.get("parameters", ())]
            self.assertEqual(list(page.parameters), names, page.path)
            self.assertEqual(page.private, "security" in operation, page.path)
            good = operation["responses"][str(page.status)]
            if page.status == 200:
                self.assertIn(page.kind.partition(";")[0], good["content"], page.path)

    def test_references(self):
        """Each reference leads somewhere, and each schema is used."""
        used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
        self.assertEqual(set(DOCUMENT["components"]["schemas"]), used)

    def test_faults(self):
        """The look at answers sees what does not fit."""
        status = {"$ref": "#/components/schemas/Alive"}
        self.assertEqual([], list(faults({"alive": True}, status)))
        for wrong in ({}, {"alive": 1}, {"alive": True, "more": 1}, [], {"alive": None}):
            self.assertTrue(list(faults(wrong, status)), wrong)

    @defer.inlineCallbacks
    def test_answers(self):
        """The answer of each address fits its description, also an error."""
        events = Events()
        events.add("reload", "nothing changed")
        door = self.door(events=events, reload=lambda: ["x"], restart=lambda: {"restarting": True})
        self.addCleanup(door.resource.children[b"metrics"].view.database.stop)
        door.resource.children[b"metrics"].view._who_had = SimpleNamespace(answer=self.holders)
        bodies = {"/api/v1/query": b'{"sql": "select octets from agg"}'}
        for page in PAGES:
            if page.path in ("/login", "/api/v1/tap", "/api/v1/now", "/api/v1/stores/flows", "/metrics"):
                continue
            method = "GET" if page.get else "POST"
            status, _, found = yield asked(door, method, page.path, bodies.get(page.path, b""), **JSON)
            operation = DOCUMENT["paths"][page.path][method.lower()]
            schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
            self.assertEqual([], list(faults(found, schema, page.path)))
            _, _, found = yield asked(door, method, page.path + "?nothing=1")
            schema = operation["responses"]["default"]["content"]["application/json"]["schema"]
            self.assertEqual([], list(faults(found, schema, page.path)))

    @staticmethod
    def holders(body, asker):
        """An answer to who had an address, with a gap."""
        question = Question(1, 2, 3)
        begun = NatRow("b", "source", 1, None, None, 7, 1, None, 6, 1, 2, None, None, 1, 9, 9, None, None)
        gaps = [Gap(1, 2, "the service did not run")]
        return defer.succeed(Found(question, answers([begun], question), gaps, ["and more"]).as_dict())

    def test_documented(self):
        """docs/api.md names each address with its parameters."""
        text = (Path(__file__).parents[4] / "docs" / "api.md").read_text("utf-8")
        for page in PAGES:
            self.assertRegex(text, rf"`(GET|POST) {re.escape(page.path)}[?`]", page.path)
            for name in page.parameters:
                self.assertIn(f"{name}=", text)
