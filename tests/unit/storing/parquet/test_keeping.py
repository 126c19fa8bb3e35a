"""The reactor's side of the upkeep: one merge after the other, until none is due or the output stops."""

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.storing.parquet import keeping
from ulogd_tw.storing.parquet.keeping import REST_S, Keeping


class Process:
    """Of a merge."""

    killed = False

    def kill(self):
        self.killed = True


class Job:
    """A merge whose process the test ends."""

    def __init__(self):
        self.process = Process()


class World(Clock):
    """A clock with a pool of threads for `keeping`."""

    def getThreadPool(self):
        return None


class KeepingTests(SynchronousTestCase):
    """Jobs of a list, whose results the test gives."""

    def setUp(self):
        self.world, self.jobs, self.finished, self.abandoned, self.failures = World(), [], [], [], []
        self.results = []
        self.patch(keeping.threads, "deferToThreadPool", self.in_pool)
        self.keeping = Keeping(self.world, defer.execute, self.plan, self, self.failures.append)

    def in_pool(self, reactor, pool, call, process):
        self.results.append(defer.Deferred())
        return self.results[-1]

    def plan(self):
        return self.jobs.pop(0) if self.jobs else None

    def finish(self, job, rows):
        self.finished.append((job, rows))

    def abandon(self, job):
        self.abandoned.append(job)

    def test_one_after_the_other(self):
        """A second look begins nothing while a merge goes on; the next merge follows the first."""
        one, two = self.jobs[:] = Job(), Job()
        self.keeping.look()
        self.keeping.look()
        self.assertEqual(len(self.results), 1)
        self.results[0].callback(5)
        self.results[1].callback(6)
        self.assertEqual(self.finished, [(one, 5), (two, 6)])
        self.jobs.append(Job())
        self.keeping.look()
        self.assertEqual(len(self.results), 3)

    def test_failure(self):
        """After a failure the merge is given up, and the next look comes a while later."""
        one, two = self.jobs[:] = Job(), Job()
        self.keeping.look()
        self.results[0].errback(OSError("no"))
        self.assertEqual((self.abandoned, [str(error) for error in self.failures]), ([one], ["no"]))
        self.world.advance(REST_S - 1)
        self.keeping.look()
        self.assertEqual(self.jobs, [two])
        self.world.advance(1)
        self.keeping.look()
        self.assertEqual(self.jobs, [])

    def test_deleted_meanwhile(self):
        """The merge of an hour that was deleted is no failure."""
        one, two = self.jobs[:] = Job(), Job()
        self.keeping.look()
        self.results[0].errback(FileNotFoundError("gone"))
        self.assertEqual((self.abandoned, self.failures, len(self.results)), ([one], [], 2))
        self.assertEqual(self.jobs, [])
        self.assertFalse(two.process.killed)

    def test_stop(self):
        """A stop kills the process, waits for it, and begins nothing more."""
        (one,) = self.jobs[:] = [Job()]
        self.keeping.look()
        stopped = defer.Deferred.fromCoroutine(self.keeping.stop())
        self.assertTrue(one.process.killed)
        self.assertNoResult(stopped)
        self.results[0].errback(OSError("killed"))
        self.successResultOf(stopped)
        self.jobs.append(Job())
        self.keeping.look()
        self.assertEqual((len(self.results), self.failures, self.finished), (1, [], []))

    def test_stop_at_rest(self):
        """Without a merge it ends at once."""
        self.successResultOf(defer.Deferred.fromCoroutine(self.keeping.stop()))
