"""The manhole without a network: its options, its key files, and what one command gives."""

import json
import os
from pathlib import Path

from twisted.conch.ssh import keys
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config
from ulogd_tw.core.errors import StartError
from ulogd_tw.operating import manhole, ssh_keys

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKabp6AoqV6glFoK75YFdv6v8PUeEfnaJV1N5THiPjJg admin"
"""Made with ssh-keygen -t ed25519 (OpenSSH 9.2p1), and only the public half kept."""


class OptionsTests(SynchronousTestCase):
    """The section [manhole]."""

    def listen(self, text):
        return next(o for o in manhole.OPTIONS if o.name == "listen").read(text)

    def test_listen(self):
        """tcp:HOST:PORT, IPv6 in brackets; without a host it is loopback."""
        self.assertEqual(("127.0.0.1", 5022), self.listen("tcp:127.0.0.1:5022"))
        self.assertEqual(("::1", 22), self.listen("tcp:[::1]:22"))
        self.assertEqual(("127.0.0.1", 22), self.listen("tcp:22"))
        self.assertEqual(("127.0.0.1", 22), self.listen("22"))
        for wrong in ("", "tcp:", "tcp:host", "tcp:host:port", "tcp:host:70000"):
            self.assertRaises(ValueError, self.listen, wrong)

    def test_section(self):
        """The section must name the authorised keys; by default only loopback is listened on."""
        found = config.parse("[manhole]\nlisten=tcp:22\n", "f")
        options, mistakes = found.read("manhole", manhole.OPTIONS, "[manhole]")
        self.assertIn("authorized_keys must be given", str(mistakes[0]))
        self.assertEqual(("127.0.0.1", 22), options.listen)
        options, mistakes = config.parse("[manhole]\nauthorized_keys=x\n", "f").read("manhole", manhole.OPTIONS)
        self.assertEqual([], mistakes)
        self.assertEqual("127.0.0.1", options.listen[0])


class KeyTests(SynchronousTestCase):
    """Host key and authorised keys."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def write(self, text, mode):
        self.path.write_text(text)
        self.path.chmod(mode)

    def test_host_key_is_made(self):
        """The first start makes a private key that only its owner reads, whatever the umask; later ones read it."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        made = ssh_keys.load_host_key(str(self.path))
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assertEqual(("Ed25519", False), (made.type(), made.isPublic()))
        self.assertEqual(made, ssh_keys.load_host_key(str(self.path)))

    def test_host_key_refused(self):
        """A host key that others can reach, that is no key, or that cannot be made is refused with the remedy."""
        ssh_keys.load_host_key(str(self.path))
        self.path.chmod(0o640)
        error = self.assertRaises(StartError, ssh_keys.load_host_key, str(self.path))
        self.assertIn("chmod 600", str(error))
        self.write("no key\n", 0o600)
        self.assertIn("no private key", str(self.assertRaises(StartError, ssh_keys.load_host_key, str(self.path))))
        error = self.assertRaises(StartError, ssh_keys.load_host_key, str(self.path / "below"))
        self.assertIn("manhole: host_key", str(error))
        error = self.assertRaises(StartError, ssh_keys.load_host_key, str(self.path) + "-missing/key")
        self.assertIn("host_key=", error.remedy)

    def refused(self, text=None, mode=0o600):
        if text is not None:
            self.write(text, mode)
        return str(self.assertRaises(StartError, ssh_keys.check_authorized_keys, str(self.path)))

    def test_authorized_keys(self):
        """No file, no key in it, or a file that others can write: refused, with what to do."""
        self.assertIn("No such file", self.refused())
        self.assertIn("it contains no key", self.refused("# none\n\n"))
        self.assertIn("it contains no key", self.refused("ssh-ed25519 AAAA\nssh-rsa !!\nx\n"))
        self.assertIn("chmod go-w", self.refused(PUBLIC, 0o622))
        self.assertIn("chmod go-w", self.refused(PUBLIC, 0o620))
        self.flushLoggedErrors()
        self.write(f"# admin\n{PUBLIC}\n", 0o644)
        ssh_keys.check_authorized_keys(str(self.path))

    def test_restricted_keys_let_nobody_in(self):
        """A line with restrictions, which are not obeyed here, is left out; so is a private key."""
        private = keys.Key.fromFile(self.made())
        self.write(f'command="date" {PUBLIC}\n{private.toString("openssh").decode()}', 0o600)
        self.assertIn("it contains no key", self.refused())

    def made(self):
        path = self.mktemp()
        ssh_keys.load_host_key(path)
        return path


class EvaluateTests(SynchronousTestCase):
    """One command."""

    def evaluated(self, source, **namespace):
        return self.successResultOf(manhole.evaluate(source, namespace))

    def test_values(self):
        """Lists and dicts come as JSON, text as it is, None as nothing, anything else as its repr."""
        self.assertEqual({"a": [1, 2]}, json.loads(self.evaluated("{'a': [1, 2]}")[0]))
        self.assertEqual(("two\nlines\n", 0), self.evaluated("'two\\nlines'"))
        self.assertEqual(("", 0), self.evaluated("None"))
        self.assertEqual(("3.5\n", 0), self.evaluated("7 / 2"))
        self.assertEqual([repr(object)], json.loads(self.evaluated("[object]")[0]))
        self.assertIn("(1, 2)", self.evaluated("{(1, 2): 3}")[0])

    def test_statements(self):
        """Statements give what they print, and keep their names for the next command."""
        namespace = {}
        self.assertEqual(("1\n2\n", 0), self.successResultOf(manhole.evaluate("for i in 1, 2: print(i)", namespace)))
        self.assertEqual(("2\n", 0), self.successResultOf(manhole.evaluate("i", namespace)))

    def test_errors(self):
        """Whatever is wrong is named, without a traceback, with status 1; exit() is an end like any other."""
        for source in ("1/0", "(", "nobody", "raise KeyError(1)", "\0", "def f(:\n"):
            text, status = self.evaluated(source)
            self.assertEqual(1, status, source)
            self.assertIn("Error", text)
            self.assertNotIn("Traceback", text)
        self.assertEqual(0, self.evaluated("raise SystemExit")[1])

    def test_deferred(self):
        """The result of a Deferred is waited for."""
        waiting = defer.Deferred()
        done = manhole.evaluate("waiting", {"waiting": waiting})
        self.assertNoResult(done)
        waiting.callback([1])
        self.assertEqual(("[\n 1\n]\n", 0), self.successResultOf(done))

    def test_cancel(self):
        """Cancelling cancels what is waited for."""
        cancelled = []
        done = manhole.evaluate("waiting", {"waiting": defer.Deferred(cancelled.append)})
        done.cancel()
        self.assertEqual(1, len(cancelled))
        self.assertEqual(("", 1), self.successResultOf(done))
