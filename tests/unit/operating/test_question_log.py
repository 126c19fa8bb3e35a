"""The log of questions about stored flows."""

import errno
import json
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating import question_log
from ulogd_tw.operating.question_log import NotLogged, append, asker_of


class AppendTests(SynchronousTestCase):
    """A line for each question."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def test_lines(self):
        """Time, asker, question and number of answers; earlier lines stay, and only the owner reads them."""
        append([str(self.path)], 0.25, {"uid": 7}, {"address": "192.0.2.1"}, 2)
        append([str(self.path)], 60, {"uid": 8}, {"address": "192.0.2.2"}, 0)
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        first = {
            "time": "1970-01-01T00:00:00.250Z",
            "asker": {"uid": 7},
            "question": {"address": "192.0.2.1"},
            "answers": 2,
        }
        self.assertEqual((first, 0), (lines[0], lines[1]["answers"]))
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))

    def test_of_another_program(self):
        """A file that is there keeps its lines and its mode."""
        self.path.write_text("before\n")
        self.path.chmod(0o640)
        append([str(self.path)], 0, {}, {}, 0)
        self.assertEqual((0o640, "before"), (self.path.stat().st_mode & 0o777, self.path.read_text().split("\n")[0]))

    def test_line_breaks(self):
        """No question makes two lines."""
        append([str(self.path)], 0, {"user": "a\nb"}, {"stores": ["x\n{}"]}, 0)
        self.assertEqual(1, len(self.path.read_text().splitlines()))

    def test_not_written(self):
        """A log in a directory that is gone, a link in its place, and a full disk are errors with the path."""
        link = Path(self.mktemp())
        link.symlink_to(self.path)
        for path in (str(self.path / "none" / "log"), str(link)):
            error = self.assertRaises(NotLogged, append, [path], 0, {}, {}, 0)
            self.assertIn(path, str(error))
        real = os.write
        self.patch(question_log.os, "write", lambda fd, octets: real(fd, octets[:5]))
        self.assertRaises(NotLogged, append, [str(self.path)], 0, {}, {}, 0)


class FaultTests(SynchronousTestCase):
    """A log that cannot be written is known before the first question."""

    def test_begun(self):
        """Trying begins the file with mode 0600; looking does not."""
        path = Path(self.mktemp())
        self.assertEqual(("", False), (question_log.obstacle(str(path)), path.exists()))
        self.assertEqual(("", 0o600), (question_log.fault(str(path)), path.stat().st_mode & 0o777))

    def test_links_and_pipes(self):
        """What the log would refuse to open is named; nobody waits for the reader of a pipe."""
        place = Path(self.mktemp())
        place.mkdir()
        (place / "link").symlink_to("/dev/null")
        os.mkfifo(place / "pipe")
        for name, expected in (("link", "is a link"), ("pipe", "is no regular file")):
            for look in (question_log.obstacle, question_log.fault):
                self.assertIn(f"{place}/{name} {expected}; name a regular file", look(str(place / name)))

    def test_refused(self):
        """The reason of the system is told with its remedy."""

        def refuses(path, flags, mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        self.patch(question_log.os, "open", refuses)
        path = self.mktemp()
        self.assertEqual(
            f"{path}: Permission denied; make it writable for the user of the service", question_log.fault(path)
        )


class AskerTests(SynchronousTestCase):
    """Who asks."""

    def request(self, handle=None, host="192.0.2.7", **more):
        """A request through a socket, or from an address."""
        transport = SimpleNamespace(getPeer=lambda: SimpleNamespace(host=host))
        if handle is not None:
            transport.getHandle = lambda: handle
        return SimpleNamespace(channel=SimpleNamespace(transport=transport), door=SimpleNamespace(), **more)

    def test_unix_socket(self):
        """The kernel says whose process it is."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        found = asker_of(self.request(ours))
        self.assertEqual((os.getuid(), os.getpid()), (found["uid"], found["pid"]))

    def test_http(self):
        """The address, and the user if a proxy names one."""
        self.assertEqual({"address": "192.0.2.7", "known": True}, asker_of(self.request(known=True)))
        request = self.request()
        request.door.remote_user = lambda request: "alice"
        self.assertEqual({"address": "192.0.2.7", "user": "alice"}, asker_of(request))
