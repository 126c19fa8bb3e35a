"""Tests of ulogd_tw.cli: ulogd2's switches as a twistd command line."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import tap
from ulogd_tw.cli import twistd_arguments


class CliTests(SynchronousTestCase):
    """What each switch becomes."""

    def test_debians_unit(self):
        """``ulogd --daemon --uid ulog --pidfile /run/ulog/ulogd.pid`` as Debian starts it."""
        self.assertEqual(
            twistd_arguments(["--daemon", "--uid", "ulog", "--pidfile", "/run/ulog/ulogd.pid"]),
            ["twistd", "--pidfile=/run/ulog/ulogd.pid", "--uid=ulog", "ulogd", "--config", "/etc/ulogd.conf"],
        )

    def test_foreground(self):
        """No pid file unless one is asked for, since twistd would put it into the working directory."""
        arguments = twistd_arguments(["-c", "x.conf", "-v", "-l", "3"])
        self.assertEqual(
            arguments, ["twistd", "--pidfile=", "--nodaemon", "ulogd", "--config", "x.conf", "--loglevel", "3"]
        )
        options = tap.Options()
        options.parseOptions(arguments[4:])
        self.assertEqual((options["config"], options["loglevel"]), ("x.conf", 3))

    def test_info_of_a_shared_object(self):
        """ulogd2 took a path there."""
        arguments = twistd_arguments(["-i", "/usr/lib/x86_64-linux-gnu/ulogd/ulogd_output_SQLITE3.so"])
        self.assertEqual(arguments[-2:], ["--info", "SQLITE3"])
