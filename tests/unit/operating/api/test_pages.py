"""What each address of the API answers."""

import json
from types import SimpleNamespace

from twisted.internet import defer
from twisted.trial.unittest import TestCase

from tests.unit.operating.api.client import asked, door_of
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.core.states import State
from ulogd_tw.left_behind import Left
from ulogd_tw.operating import metrics
from ulogd_tw.operating.api.pages import PAGES
from ulogd_tw.operating.events import Events

JSON = {"Content_Type": "application/json"}


class PagesCase(AggregateCase, TestCase):
    """A door to the stacks of a test: two stacks with one input, AGGREGATE and an output."""

    timeout = 120

    def door(self, **members):
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": n % 3, "octetDeltaCount": n} for n in range(9)]))
        return door_of(self.graph, **members)


class StatusTests(PagesCase):
    """What runs."""

    @defer.inlineCallbacks
    def test_status(self):
        """Version and process, and each stack with its place and its rows."""
        status, headers, found = yield asked(self.door(), "GET", "/api/v1/status")
        self.assertEqual((200, "application/json"), (status, headers["content-type"]))
        (stack,) = found["stacks"]
        spec = self.graph.stacks[0].spec
        self.assertEqual((spec.text, spec.where, 0), (stack["text"], stack["where"], stack["rows_written"]))
        members = {"version", "pid", "since", "now", "config", "state_dir", "stacks", "left_out", "mistakes", "kept"}
        self.assertEqual(members, set(found))

    @defer.inlineCallbacks
    def test_present_graph(self):
        """A reload replaces the graph: the API shows the one that is there at the question."""
        door = self.door()
        view = door.resource.children[b"metrics"].view
        view.ulogd.graph = type(self.graph)()
        _, _, found = yield asked(door, "GET", "/api/v1/status")
        self.assertEqual([], found["stacks"])

    @defer.inlineCallbacks
    def test_graph(self):
        """Every instance with kind, stacks and counters; rows on the edges; both name the same nodes."""
        _, _, found = yield asked(self.door(), "GET", "/api/v1/graph")
        nodes = {node["node"]: node for node in found["nodes"]}
        self.assertEqual(list(self.graph.instances), list(nodes))
        self.assertEqual(["input", "aggregator", "output"], [node["kind"] for node in found["nodes"]])
        self.assertEqual(9, nodes["agg"]["counters"]["rows_merged"])
        self.assertEqual([[0]] * 3, [node["stacks"] for node in found["nodes"]])
        ways = [(edge["from"], edge["to"]) for edge in found["edges"]]
        first, _, last = nodes
        self.assertEqual([(first, "agg"), ("agg", last)], ways)

    @defer.inlineCallbacks
    def test_counters(self):
        """As stats_file has them; or those of one instance."""
        door = self.door()
        _, _, found = yield asked(door, "GET", "/api/v1/counters")
        self.assertEqual(json.loads(json.dumps(metrics.snapshot(self.graph))), found)
        _, _, found = yield asked(door, "GET", "/api/v1/counters?instance=agg")
        self.assertEqual(["agg"], list(found["instances"]))
        status, _, found = yield asked(door, "GET", "/api/v1/counters?instance=none")
        self.assertEqual((404, True), (status, "there are" in found["error"]))

    @defer.inlineCallbacks
    def test_instances(self):
        """Those of the graph, with options; or one."""
        door = self.door()
        _, _, graph = yield asked(door, "GET", "/api/v1/graph")
        _, _, found = yield asked(door, "GET", "/api/v1/instances")
        options = [instance.pop("options") for instance in found["instances"]]
        self.assertEqual(graph["nodes"], found["instances"])
        self.assertTrue(all(isinstance(texts, list) for each in options for texts in each.values()))
        _, _, found = yield asked(door, "GET", "/api/v1/instances?instance=agg")
        self.assertEqual(["agg"], [instance["node"] for instance in found["instances"]])
        status, _, found = yield asked(door, "GET", "/api/v1/instances?instance=none")
        self.assertEqual((404, True), (status, "there are" in found["error"]))

    @defer.inlineCallbacks
    def test_tables(self):
        """Each AGGREGATE with its columns and its number of groups."""
        _, _, found = yield asked(self.door(), "GET", "/api/v1/tables")
        (table,) = found["tables"]
        self.assertEqual(("agg", 3, "sum"), (table["id"], table["groups"], table["together"]["octets"]))
        self.assertIn("octets", table["columns"])

    @defer.inlineCallbacks
    def test_kept_for_a_second(self):
        """Questions within a second share an answer, also while it is being made."""
        door = self.door()
        page = door.resource.children[b"api"].children[b"v1"].children[b"status"]
        made = []
        self.patch(page.view, "status", lambda: made.append(1) or {"n": len(made)})
        answers = yield defer.gatherResults([asked(door, "GET", "/api/v1/status") for _ in range(3)])
        self.assertEqual([{"n": 1}] * 3, [answer[2] for answer in answers])
        later = page.view.clock.seconds() + 1.1
        self.patch(page.view, "clock", type("Later", (), {"seconds": lambda self: later})())
        _, _, found = yield asked(door, "GET", "/api/v1/status")
        self.assertEqual({"n": 2}, found)


class HealthTests(PagesCase):
    """What a load balancer asks."""

    @defer.inlineCallbacks
    def test_livez(self):
        status, _, found = yield asked(self.door(), "GET", "/livez")
        self.assertEqual((200, {"alive": True}), (status, found))

    @defer.inlineCallbacks
    def ready(self, state, **members):
        """Status and answer of /readyz where the output is in this state."""
        door = self.door(**members)
        output = self.graph.stacks[0].path[-1].plugin
        self.patch(output, "state", lambda: state)
        output.counters.rows_waiting = 7
        status, _, found = yield asked(door, "GET", "/readyz")
        return status, found["ready"], found["stacks"]

    @defer.inlineCallbacks
    def test_states(self):
        """A stack that is down makes the service not ready; one that spools does not."""
        status, ready, (stack,) = yield self.ready(State())
        self.assertEqual((200, True, "ok", []), (status, ready, stack["state"], stack["reasons"]))
        status, ready, (stack,) = yield self.ready(State("spooling", ("udp:x is away",)))
        self.assertEqual((200, True, "spooling"), (status, ready, stack["state"]))
        status, ready, (stack,) = yield self.ready(State("down", ("db is away",)))
        self.assertEqual((503, False, "down"), (status, ready, stack["state"]))
        self.assertEqual([True, True], ["db is away" in stack["reasons"][0], "7 of at most" in stack["reasons"][1]])

    @defer.inlineCallbacks
    def test_fault(self):
        """A plugin that cannot tell its state is counted as down, and its fault is reported."""
        door = self.door()
        output = self.graph.stacks[0].path[-1].plugin
        faults = []
        output.fault, output.state = faults.append, lambda: 1 / 0
        status, _, found = yield asked(door, "GET", "/readyz")
        self.assertEqual((503, 1), (status, len(faults)))
        self.assertIn("ZeroDivisionError", found["stacks"][0]["reasons"][0])

    @defer.inlineCallbacks
    def test_beside_the_stacks(self):
        """State that is not kept, and rows of instances that are gone, are told; stacks are ready all the same."""
        left = SimpleNamespace(found=[Left("db1", "rows", 7, ["/spool/x"])])
        door = self.door(state_fault="state_dir /s cannot be written: no room", left=left)
        _, _, found = yield asked(door, "GET", "/readyz")
        self.assertEqual((True, ["state_dir /s cannot be written: no room"]), (found["ready"], found["reasons"]))
        _, _, found = yield asked(door, "GET", "/api/v1/status")
        self.assertIn("no room", found["state_fault"])
        self.assertEqual([{"instance": "db1", "kind": "rows", "rows": 7, "files": ["/spool/x"]}], found["left_behind"])
        _, _, text = yield asked(door, "GET", "/metrics")
        self.assertIn('ulogd_left_behind_rows{instance="db1",kind="rows"} 7.0', text.decode())

    @defer.inlineCallbacks
    def test_left_out(self):
        """A stack that could not start is down, with its reason."""
        gone = {"text": "ct1:NFCT,j:JSON", "where": "f:3", "reason": "ct1:NFCT: not permitted"}
        status, ready, stacks = yield self.ready(State(), left_out=[gone])
        self.assertEqual((503, False), (status, ready))
        self.assertEqual(("down", ["ct1:NFCT: not permitted"]), (stacks[1]["state"], stacks[1]["reasons"]))


class EventsTests(PagesCase):
    """What happened."""

    @defer.inlineCallbacks
    def test_since(self):
        """All, or those after a number."""
        events = Events(lambda: 5.0)
        events.add("exporter_new", "192.0.2.1 is new", exporter="192.0.2.1")
        events.add("reload", "nothing changed")
        door = self.door(events=events)
        _, _, found = yield asked(door, "GET", "/api/v1/events")
        self.assertEqual([1, 2], [event["n"] for event in found["events"]])
        self.assertEqual({"n": 1, "time": 5.0, "kind": "exporter_new", "text": "192.0.2.1 is new",
                          "exporter": "192.0.2.1"}, found["events"][0])  # fmt: skip
        _, _, found = yield asked(door, "GET", "/api/v1/events?since=1")
        self.assertEqual(["reload"], [event["kind"] for event in found["events"]])
        status, _, _ = yield asked(door, "GET", "/api/v1/events?since=x")
        self.assertEqual(400, status)


class QueryTests(PagesCase):
    """SQL."""

    def door(self, *words, **members):
        """The same; its processes end with the test."""
        found = super().door(*words, **members)
        self.addCleanup(found.resource.children[b"api"].children[b"v1"].children[b"query"].view.database.stop)
        return found

    @defer.inlineCallbacks
    def test_query(self):
        door = self.door()
        body = b'{"sql": "select flows, sum(octets) o from agg group by 1"}'
        status, _, found = yield asked(door, "POST", "/api/v1/query", body, **JSON)
        self.assertEqual((200, {"columns": ["flows", "o"], "rows": [[3, 36]], "more": False}), (status, found))
        _, _, found = yield asked(door, "POST", "/api/v1/query", b'{"sql": "select flows from agg"}', **JSON)
        self.assertEqual([[3]] * 3, found["rows"])

    @defer.inlineCallbacks
    def test_refused(self):
        """A body that is none, and SQL that is none, with the reason; the door counts them."""
        door = self.door()
        for body, headers, expected, said in (
            (b'{"sql": "selec x from agg"}', JSON, 400, "selec"),
            (b'{"sql": "select 1 from ag"}', JSON, 404, "did you mean agg?"),
            (b'{"sql": 7}', JSON, 400, '"sql"'),
            (b"", JSON, 400, '"sql"'),
            (b"[]", JSON, 400, "JSON object"),
            (b"{" * 60_000, JSON, 400, "JSON object"),
            (b'{"a":' * 10_000, JSON, 400, "JSON object"),
            (b"sql=x", {"Content_Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
            (b'{"sql": "x"}', {}, 415, "application/json"),
        ):
            status, _, found = yield asked(door, "POST", "/api/v1/query", body, **headers)
            self.assertEqual((expected, True), (status, said in found["error"]), (body[:40], found))
        self.assertEqual({"query": 2, "body": 5, "content_type": 2}, dict(door.refused))


class CommandTests(PagesCase):
    """Reload and restart."""

    @defer.inlineCallbacks
    def test_not_there(self):
        for command in ("reload", "restart"):
            status, _, found = yield asked(self.door(), "POST", f"/api/v1/{command}")
            self.assertEqual((501, True), (status, command in found["error"]))

    @defer.inlineCallbacks
    def test_reload(self):
        """The changes, or 409 with the mistakes."""
        door = self.door(reload=lambda: defer.succeed(["agg1 is replaced"]), restart=lambda: None)
        status, _, found = yield asked(door, "POST", "/api/v1/reload")
        self.assertEqual((200, {"changes": ["agg1 is replaced"]}), (status, found))
        status, _, found = yield asked(door, "POST", "/api/v1/restart")
        self.assertEqual((200, {"restarting": True}), (status, found))
        fault = ValueError("no")
        fault.mistakes = ["f:3: error: [a] b"]
        door = self.door(reload=lambda: defer.fail(fault))
        status, _, found = yield asked(door, "POST", "/api/v1/reload")
        self.assertEqual((409, ["f:3: error: [a] b"]), (status, found["mistakes"]))


class AddressTests(PagesCase):
    """Methods, parameters, and addresses that are none."""

    @defer.inlineCallbacks
    def test_methods(self):
        door = self.door()
        for page in PAGES:
            other = "POST" if page.get else "GET"
            status, headers, found = yield asked(door, other, page.path)
            self.assertEqual((405, "GET, HEAD" if page.get else "POST"), (status, headers["allow"]), page.path)
            status, _, found = yield asked(door, "GET" if page.get else "POST", page.path + "?nothing=1")
            self.assertEqual((400, True), (status, "nothing is no parameter" in found["error"]), page.path)
        status, headers, found = yield asked(door, "HEAD", "/api/v1/status")
        self.assertEqual(200, status)

    @defer.inlineCallbacks
    def test_nowhere(self):
        """What is no address leads nowhere, however it is written."""
        door = self.door()
        for path in ("/api", "/api/v1/x", "/api/v2/status", "/../etc/passwd", "/api/v1/../../etc/passwd",
                     "/api/v1/status/x", "/api/v1/%2e%2e/%2e%2e/etc/passwd", "/%00", "/%2f"):  # fmt: skip
            status, headers, found = yield asked(door, "GET", path)
            self.assertEqual((404, "ulogd-tw"), (status, headers["server"]), path)
            self.assertIn("error", found)
        status, _, _ = yield asked(door, "GET", "/api/v1/status/")
        self.assertEqual(200, status)

    @defer.inlineCallbacks
    def test_fault(self):
        """A fault of ours is a 500 without its details, which the log has; the door goes on."""
        door = self.door()
        view = door.resource.children[b"metrics"].view
        self.patch(view, "status", lambda: 1 / 0)
        status, _, found = yield asked(door, "GET", "/api/v1/status")
        self.assertEqual((500, False), (status, "division" in found["error"]))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        status, _, _ = yield asked(door, "GET", "/api/v1/tables")
        self.assertEqual(200, status)
