"""Commands that ask the running service: what they print, as text and as JSON, and their exit status."""

import io
import json
import select
import socket
import subprocess
import tempfile
import threading
import time

from twisted.internet import defer, reactor, task
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.operating.commands.served import ServedCase
from ulogd_tw.operating import taps
from ulogd_tw.operating.api import answers
from ulogd_tw.operating.commands import control, errors, service, status, text, tree, who_had


class ListTests(ServedCase):
    """`stacks`, `counters`, `graph`, `exporters`, `templates`."""

    @defer.inlineCallbacks
    def test_stacks(self):
        """Each stack with its place and its state."""
        code, out, _ = yield self.run_command("stacks")
        self.assertEqual(0, code)
        self.assertIn("ok     x.conf:1  in1:PORTS,odd1:ODD,out1:SINK", out)
        _, out, _ = yield self.run_command("stacks", "--json")
        self.assertEqual(list(self.STACKS), [stack["text"] for stack in json.loads(out)])

    @defer.inlineCallbacks
    def test_counters(self):
        """The rows of each instance; of one all counters; status 1 for one that is not there."""
        self.give(1, 2, 3)
        code, out, _ = yield self.run_command("counters")
        line = next(line.split() for line in out.splitlines() if line.startswith("odd1"))
        # received, emitted, filtered, merged, written, waiting, dropped, lost, errors
        self.assertEqual(["odd1", "ODD", "3", "2", "1", "0", "0", "0", "0", "0", "0"], line)
        code, out, _ = yield self.run_command("counters", "out1")
        self.assertRegex(out, r"(?m)^rows_written +2$")
        code, out, _ = yield self.run_command("counters", "--json", "out1")
        self.assertEqual((0, 2), (code, json.loads(out)["out1"]["rows_written"]))
        code, out, said = yield self.run_command("counters", "out9")
        self.assertEqual((1, ""), (code, out))
        self.assertIn("there is no instance out9", said)

    @defer.inlineCallbacks
    def test_graph(self):
        """The tree with the rows that went over each way."""
        self.give(1, 2, 3)
        code, out, _ = yield self.run_command("graph")
        self.assertEqual("in1:PORTS  3 rows\n├─ odd1:ODD  3 rows\n│  └─ out1:SINK  2 rows\n└─ out2:SINK  3 rows\n", out)
        self.assertEqual(0, code)
        _, out, _ = yield self.run_command("graph", "--dot")
        self.assertIn('"in1" -> "odd1" [label="3"];', out)
        _, out, _ = yield self.run_command("graph", "--json")
        self.assertEqual(4, len(json.loads(out)["nodes"]))

    @defer.inlineCallbacks
    def test_exporters(self):
        """None is the answer no; those that there are have a line each."""
        code, out, said = yield self.run_command("exporters")
        self.assertEqual((1, "", True), (code, out, "no exporter has been heard" in said))
        heard = {"exporter": "192.0.2.1", "port": 9, "domain": 5, "version": 10, "messages": 7, "records": 70,
                 "templates": 2, "lost": 3, "malformed": 0, "last_received": time.time() - 90}  # fmt: skip
        self.patch(answers, "KEPT_SECONDS", -1.0)
        self.running.graph.inputs[0].plugin.each_exporter = lambda: iter([heard])
        code, out, _ = yield self.run_command("exporters")
        self.assertEqual(0, code)
        self.assertRegex(out.splitlines()[1], r"^in1 +192\.0\.2\.1 +9 +5 +10 +7 +70 +2 +3 +0 +1 min 30 s ago$")
        code, out, _ = yield self.run_command("exporters", "--json")
        self.assertEqual("192.0.2.1", json.loads(out)[0]["exporter"])
        other = heard | {"domain": 6}
        heard |= {"records_per_second": 1234.567, "octets_per_second": 0.1}
        self.running.graph.inputs[0].plugin.each_exporter = lambda: iter([heard, other])
        code, out, _ = yield self.run_command("exporters")
        self.assertRegex(out.splitlines()[0], r" malformed +records/s +octets/s +heard$")
        self.assertRegex(out.splitlines()[1], r" 0 +1\.235k +0\.1 +1 min 30 s ago$")
        self.assertRegex(out.splitlines()[2], r" 0 +- +- +1 min 30 s ago$")

    @defer.inlineCallbacks
    def test_empty_query(self):
        """It is said to be empty."""
        for sql in ("", " \n"):
            code, out, said = yield self.run_command("query", sql)
            self.assertEqual((2, "", True), (code, out, "the SQL is empty" in said), said)

    @defer.inlineCallbacks
    def test_templates(self):
        """Fields with their octets; 65535 is a variable length (RFC 7011 section 7); one exporter if it is named."""
        code, _, said = yield self.run_command("templates")
        self.assertEqual((1, True), (code, "there is no template" in said))
        self.patch(answers, "KEPT_SECONDS", -1.0)
        code, _, said = yield self.run_command("templates", "nope")
        self.assertEqual((1, True), (code, "no exporter nope has been heard, and no other one" in said), said)
        self.running.graph.inputs[0].plugin.each_exporter = lambda: iter(
            [{"exporter": f"192.0.2.{n}"} for n in range(9)]
        )
        for name, words in (("nope", "there are 192.0.2.0, 192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4 and 4 more"),
                            ("192.0.2.8", "no template of 192.0.2.8;"), ("192.0.3.1", "did you mean")):  # fmt: skip
            code, _, said = yield self.run_command("templates", name)
            self.assertEqual((1, True), (code, words in said), said)
        asked = []
        sent = {"exporter": "192.0.2.1", "domain": 5, "template": 256,
                "fields": [["octetDeltaCount", 8], ["interfaceName", 65535]]}  # fmt: skip
        self.running.graph.inputs[0].plugin.each_template = lambda e: asked.append(e) or iter([sent])
        code, out, _ = yield self.run_command("templates", "192.0.2.1")
        self.assertEqual((0, ["192.0.2.1"]), (code, asked))
        self.assertRegex(out.splitlines()[1], r"256 +octetDeltaCount\(8\), interfaceName\(variable\)$")


class StatusTests(ServedCase):
    """`status`."""

    @defer.inlineCallbacks
    def test_status(self):
        """A line for each stack; JSON is the answer of the API."""
        code, out, _ = yield self.run_command("status", "-i", "0.1")
        self.assertEqual(0, code)
        self.assertRegex(out.splitlines()[0], r"^ulogd_tw .*, pid \d+, for .*, ulogd\.conf$")
        self.assertTrue(out.splitlines()[3].startswith("in1:PORTS,odd1:ODD,out1:SINK  ok"))
        _, out, _ = yield self.run_command("status", "--json")
        self.assertEqual({"in1:PORTS,odd1:ODD,out1:SINK", "in1:PORTS,out2:SINK"},
                         {stack["text"] for stack in json.loads(out)["stacks"]})  # fmt: skip

    @defer.inlineCallbacks
    def test_left_out(self):
        """A stack that could not start is shown, and the status is 1."""
        self.running.left_out = [{"text": "a:B,c:D", "where": "x.conf:3", "reason": "no socket"}]
        code, out, _ = yield self.run_command("status", "-i", "0.1")
        self.assertEqual(1, code)
        self.assertRegex(out, r"(?m)^a:B,c:D +down .* left out: no socket$")
        _, out, _ = yield self.run_command("stacks")
        self.assertRegex(out, r"(?m)^left out +x\.conf:3 +a:B,c:D +no socket$")


def look(now, *stacks, **more):
    """A status at a time."""
    return {"version": "1", "pid": 1, "since": now, "now": now, "config": "c", "state_dir": "", "left_out": [],
            "stacks": list(stacks)} | more  # fmt: skip


def stack_of(text_="a:A,b:B", state="ok", **figures):
    """A stack in a status."""
    found = {"text": text_, "where": "c:1", "state": state, "reasons": []}
    names = ("rows_received", "rows_written", "rows_waiting", "oldest_seconds", "dropped", "lost", "errors")
    return found | {name: figures.get(name, 0) for name in names}


class PageTests(SynchronousTestCase):
    """What two looks make."""

    def lines(self, before, after):
        return [line.split() for line in status.page(before, after).splitlines()]

    def test_rates(self):
        """Rows a second between the looks, whatever the answer's age; the lag is the age of the oldest row."""
        before = look(100.0, stack_of(rows_received=1000, rows_written=500, dropped=5, lost=1))
        after = look(102.0, stack_of(rows_received=3000, rows_written=900, dropped=9, lost=3, rows_waiting=9))
        after["stacks"][0]["oldest_seconds"] = 5
        row = self.lines(before, after)[-1]
        self.assertEqual(["a:A,b:B", "ok", "1k", "200", "3", "9", "3", "9", "5", "s"], row)

    def test_no_lag(self):
        """Without waiting rows."""
        row = self.lines(look(1.0, stack_of()), look(2.0, stack_of(state="down") | {"reasons": ["no connection"]}))[-1]
        self.assertEqual(["0", "-", "no", "connection"], row[-4:])

    def test_restarted_between(self):
        """Counters that began anew give no negative rates, and a new stack has none."""
        before = look(1.0, stack_of(rows_received=1000))
        after = look(2.0, stack_of(rows_received=10), stack_of("n:N,b:B", rows_received=5))
        self.assertEqual(["0", "0"], [row[2] for row in self.lines(before, after)[-2:]])

    def test_one_screen(self):
        """Of many stacks the bad ones are there, and the screen is not exceeded."""
        for module in (status, text):
            self.patch(module, "screen", lambda: (60, 12))
        many = [stack_of(f"a{n}:A,b{n}:B") for n in range(40)] + [stack_of("x:X,y:Y", "down")]
        lines = status.page(look(1.0, *many), look(2.0, *many)).splitlines()
        self.assertLessEqual(len(lines), 11)
        self.assertTrue(any(line.split()[:2] == ["x:X,y:Y", "down"] for line in lines))
        self.assertIn("more; ulogd-tw stacks lists all", lines[-1])
        self.assertLessEqual(max(map(len, lines)), 60)

    def test_kept(self):
        """The state directory with what is in it."""
        kept = {"col1": {"templates": "/var/lib/u/col1/templates", "exporters": 3}, "agg1": {"groups": 7}}
        page = status.page(look(1.0), look(2.0, state_dir="/var/lib/u", kept=kept))
        self.assertIn("kept in /var/lib/u: col1: templates col1/templates, exporters 3; agg1: groups 7\n", page)
        left = [{"instance": "db1", "kind": "rows", "rows": 5, "files": list("abcde")}]
        page = status.page(look(1.0), look(2.0, state_dir="/s", kept={}, state_fault="no room", left_behind=left))
        self.assertIn("\nstate is not kept: no room\nleft behind: 5 rows of db1, which is in no stack", page)
        self.assertIn(" in a, b, c and 2 more files\n", page)
        self.assertIn("nothing so far", status.page(look(1.0), look(2.0, state_dir="/var/lib/u", kept={})))


class TapTests(ServedCase):
    """`tap`."""

    @defer.inlineCallbacks
    def tapped(self, *words, give=range(1, 40)):
        """A tap while rows come."""
        feed = task.LoopingCall(lambda: self.give(*give))
        feed.start(0.02, now=False)
        try:
            found = yield self.run_command("tap", *words)
        finally:
            feed.stop()
        return found

    @defer.inlineCallbacks
    def test_rows(self):
        """As many rows as asked for, then the graph is as before."""
        before = [list(node.children) for node in self.running.graph.nodes]
        code, out, said = yield self.tapped("odd1", "-n", "3")
        self.assertEqual((0, ""), (code, said))
        self.assertEqual([f"sourceTransportPort={n}  protocolIdentifier=6" for n in (1, 3, 5)], out.splitlines())
        yield task.deferLater(reactor, 0.05)
        self.assertEqual(before, [list(node.children) for node in self.running.graph.nodes])

    @defer.inlineCallbacks
    def test_expressions_that_cannot_be(self):
        """The reason is that of MATCH, with the place where it can be shown; the service is not asked."""
        for expression, words in (
            ("(" * 10_000 + "proto tcp" + ")" * 10_000, "nested deeper than 100"),
            ("not " * 10_000 + "proto tcp", "nested deeper than 100"),
            ("proto tcp and", "\nproto tcp and\n"),
            (" or ".join(["src net 2001:db8::/32"] * 900), "too many for one request"),
        ):
            code, out, said = yield self.run_command("tap", "in1", expression)
            self.assertEqual((2, ""), (code, out))
            self.assertIn(words, said)
            self.assertLess(len(said), 1000)

    @defer.inlineCallbacks
    def test_expression(self):
        """Its words stand behind the instance, options before or behind them."""
        for words in (("in1", "src", "port", "7", "-n", "1"), ("-n", "1", "in1", "src port 7"),
                      ("in1", "-n", "1", "src", "port", "7")):  # fmt: skip
            code, out, _ = yield self.tapped(*words, "--json")
            self.assertEqual((0, 7), (code, json.loads(out)["sourceTransportPort"]))

    @defer.inlineCallbacks
    def test_refused(self):
        """An instance that is not there is the answer no, an expression that is none an error with its place."""
        code, _, said = yield self.run_command("tap", "odd2")
        self.assertEqual((1, True), (code, "did you mean odd1?" in said))
        code, _, said = yield self.run_command("tap", "odd1", "src", "prt", "5")
        self.assertEqual(2, code)
        self.assertIn("src prt 5\n    ^", said)

    @defer.inlineCallbacks
    def until_tapped(self):
        """Fires once something taps, however busy this machine is."""
        before = [list(node.children) for node in type(self.running)(*self.STACKS).graph.nodes]
        while [len(node.children) for node in self.running.graph.nodes] == [len(children) for children in before]:
            yield task.deferLater(reactor, 0.02)

    @defer.inlineCallbacks
    def test_gone(self):
        """An instance that a reload removes ends the tap, with status 3: it may not be all."""
        asked = self.run_command("tap", "odd1")
        yield self.until_tapped()
        self.running.graph = type(self.running)("in1:PORTS,out1:SINK").graph
        code, out, said = yield asked
        self.assertEqual((3, "", "ulogd-tw tap: there is no odd1 any more\n"), (code, out, said))

    @defer.inlineCallbacks
    def test_service_gone(self):
        """A service that stops ends the tap, with status 3."""
        asked = self.run_command("tap", "odd1")
        yield self.until_tapped()
        self.give(1)
        yield self.door.stopService()
        code, out, said = yield asked
        self.assertEqual((3, "sourceTransportPort=1  protocolIdentifier=6\n", True), (code, out, "has stopped" in said))

    @defer.inlineCallbacks
    def test_client_gone(self):
        """A client that goes leaves nothing behind, and one too many is refused."""
        before = [list(node.children) for node in self.running.graph.nodes]
        clients = []
        for _ in range(9):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
            client.sendall(b"GET /api/v1/tap?instance=odd1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            clients.append(client)
            for _ in range(1000):  # the machine may be busy
                if select.select([client], [], [], 0)[0]:
                    break
                yield task.deferLater(reactor, 0.01)
        heads = []
        for client in clients:
            client.setblocking(False)
            heads.append(client.recv(4096).split()[1])
            client.close()
        self.assertEqual([b"200"] * 8 + [b"503"], heads)
        yield task.deferLater(reactor, 0.05)
        self.assertEqual(before, [list(node.children) for node in self.running.graph.nodes])

    @defer.inlineCallbacks
    def test_slow_client(self):
        """A client that reads nothing costs the stack nothing: rows go on, and little is kept for it."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(self.path)
        client.sendall(b"GET /api/v1/tap?instance=out2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.patch(taps, "ROWS_A_SECOND", 10**9)
        self.patch(taps, "SHARE", 1.0)
        yield task.deferLater(reactor, 0.05)
        for _ in range(60):
            self.give(*range(1000))
            yield task.deferLater(reactor, 0)
        self.assertEqual(60_000, self.running.graph.instances["out2"].counters.rows_written)
        (page,) = [child for child in self.pages() if getattr(child, "path", "") == "/api/v1/tap"]
        (stream,) = page.taps
        self.assertTrue(stream.tap.paused)
        self.assertGreater(stream.tap.skipped, 10_000)
        stream.give_up()
        self.assertEqual((set(), 1), (page.taps, self.door.door.refused["slow"]))
        self.assertFalse(
            any(not hasattr(child, "plugin") for node in self.running.graph.nodes for child in node.children)
        )

    def pages(self):
        site = self.door.door.resource
        return site.children[b"api"].children[b"v1"].children.values()


class ControlTests(ServedCase):
    """`reload` and `restart`."""

    @defer.inlineCallbacks
    def test_reload(self):
        """Changes are printed; without any that is said."""
        for changes, expected in ((["agg1 is replaced"], "agg1 is replaced\n"), ([], "nothing has changed\n")):
            self.running.reload = lambda changes=changes: defer.succeed(changes)
            self.assertEqual((0, expected, ""), (yield self.run_command("reload")))
        code, out, _ = yield self.run_command("reload", "--json")
        self.assertEqual((0, {"changes": []}), (code, json.loads(out)))

    @defer.inlineCallbacks
    def test_mistakes(self):
        """Mistakes are printed, with status 1; the service goes on."""

        class Wrong(Exception):
            mistakes = ("x.conf:3: key must be given", "x.conf:4: no such plugin")

        self.running.reload = lambda: defer.fail(Wrong("the configuration has mistakes"))
        code, out, said = yield self.run_command("reload")
        self.assertEqual((1, ""), (code, out))
        self.assertEqual([*Wrong.mistakes, "ulogd-tw reload: nothing is changed; the service goes on with its old "
                          "configuration"], said.splitlines())  # fmt: skip

    @defer.inlineCallbacks
    def test_restart(self):
        """The command ends when another process answers."""
        self.patch(answers, "KEPT_SECONDS", -1.0)

        def restart():
            reactor.callLater(0.2, setattr, self.view, "since", self.view.since + 1)

        self.running.restart = restart
        code, out, said = yield self.run_command("restart")
        self.assertEqual((0, ""), (code, said))
        self.assertRegex(out, r"^restarted: pid \d+, 2 stacks\n$")

    @defer.inlineCallbacks
    def test_restart_with_mistakes(self):
        """Where no service could start the old process goes on; the mistakes are printed, with status 1."""

        class Wrong(Exception):
            mistakes = ("x.conf: cannot be read",)

        self.running.restart = lambda: defer.fail(Wrong("the configuration has mistakes"))
        code, out, said = yield self.run_command("restart", "-w", "0.1")
        self.assertEqual((1, ""), (code, out))
        self.assertEqual([*Wrong.mistakes, "ulogd-tw restart: nothing is restarted, since no process could start so"],
                         said.splitlines())  # fmt: skip

    @defer.inlineCallbacks
    def test_systemd(self):
        """Under systemd root asks systemctl; others are told what to type."""
        self.patch(answers, "KEPT_SECONDS", -1.0)
        asked = []

        def run(words, **_):
            asked.append(words)
            self.view.since += 1
            return subprocess.CompletedProcess(words, 0, "", "")

        self.patch(control.subprocess, "run", run)
        self.running.restart = lambda: {"restarting": False, "unit": "ulogd-tw@x.service"}
        self.patch(control.os, "geteuid", lambda: 0)
        code, out, said = yield self.run_command("restart")
        self.assertEqual((0, "", [["systemctl", "restart", "ulogd-tw@x.service"]]), (code, said, asked))
        self.patch(control.os, "geteuid", lambda: 1000)
        code, out, said = yield self.run_command("restart")
        self.assertEqual((2, 1), (code, len(asked)))
        self.assertIn("as root: systemctl restart ulogd-tw@x.service", said)

    @defer.inlineCallbacks
    def test_no_restart(self):
        """Where the old process goes on answering, the status is 2."""
        self.running.restart = lambda: None
        code, _, said = yield self.run_command("restart", "-w", "0.3")
        self.assertEqual(2, code)
        self.assertIn("no new process within 0.3 s", said)


class ConnectionTests(SynchronousTestCase):
    """Sockets behind which there is no service."""

    def listening(self, answer):
        """A socket on which somebody answers so."""
        path = tempfile.mktemp(prefix="utw-")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        self.addCleanup(server.close)

        def serve():
            client, _ = server.accept()
            client.recv(4096)
            client.sendall(answer)
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        return path

    def test_nobody(self):
        """No socket: what to look at."""
        failure = self.assertRaises(errors.AskError, service.Service("/nonexistent").get, "status")
        self.assertEqual("/nonexistent: No such file or directory; does the service run, as this user or root?",
                         str(failure))  # fmt: skip

    def test_something_else(self):
        """What is no HTTP, an answer that is cut, an error without JSON."""
        for answer, expected in ((b"hello\r\n", "something else listens"), (b"", "something else listens"),
                                 (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "something else listens"),
                                 (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad", "bad")):  # fmt: skip
            failure = self.assertRaises(errors.AskError, service.Service(self.listening(answer)).get, "status")
            self.assertIn(expected, str(failure))

    def test_no_socket_configured(self):
        """A configuration without a control socket."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("[global]\nstack=a:DEMO,b:GPRINT\n")
        failure = self.assertRaises(errors.AskError, service.socket_of, path)
        self.assertIn("has no control_socket= in [global]; set it, or give the socket with -s", str(failure))
        for name in ("control_socket", "query_socket"):
            with open(path, "w") as file:
                file.write(f"[global]\n{name}=/run/x\n")
            self.assertEqual("/run/x", service.socket_of(path))

    def test_broken_pipe(self):
        """Nothing is said where the reader has gone."""

        class Gone(io.StringIO):
            def write(self, _):
                raise BrokenPipeError

        given = tree.parse(["plugins"])
        self.patch(tree.sys, "stderr", io.StringIO())
        self.assertEqual(0, tree.run(given, Gone()))


class WhoHadTests(ServedCase):
    """`who-had` and the files of the stores."""

    @defer.inlineCallbacks
    def test_refused(self):
        """What the service refuses, such as a question that it cannot log, is not answered from the files."""
        read = []
        self.patch(who_had, "of_directories", lambda *words: read.append(words))
        self.patch(who_had, "_configured", lambda *words: {})
        code, _, said = yield self.run_command("who-had", "192.0.2.1", "--at", "-1m")
        self.assertEqual((2, []), (code, read))
        self.assertIn("PARQUET below NFCT or COLLECTOR makes one", said)
