"""Places of connections: who makes room for whom."""

import resource

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.collecting.places import Places, places_by_descriptors
from ulogd_tw.ipfix.session import Session


class PlacesTests(SynchronousTestCase):
    """Connections are words here."""

    def enter(self, places, host, name, last=0.0, given=False):
        """A connection takes a place, as COLLECTOR does it; the one that went for it, or why there is none."""
        room = places.room_for(host)
        if isinstance(room, str) and room.startswith("limit"):
            return room
        if room is not None:
            places.leave(room)
        session = Session(host, 1, reliable=True)
        session.proven, session.last_received = given, last
        places.take(name, host, session)
        return room

    def test_one_host_cannot_take_all(self):
        """Whoever has most connections without records makes room, be it the one that comes."""
        places = Places(4, 4)
        for number in range(4):
            self.assertIsNone(self.enter(places, "192.0.2.66", f"flood{number}"))
        self.assertEqual("flood0", self.enter(places, "192.0.2.1", "good", given=True))
        self.assertEqual("flood1", self.enter(places, "192.0.2.66", "flood4"))
        self.assertEqual("flood2", self.enter(places, "192.0.2.2", "other"))
        self.assertEqual(4, len(places))

    def test_all_have_given(self):
        """Of the host with most connections the longest silent one goes, as long as it has more than the newcomer."""
        places = Places(4, 4)
        for number in range(3):
            self.enter(places, "192.0.2.66", f"flood{number}", last=10.0 - number, given=True)
        self.enter(places, "192.0.2.1", "good", given=True)
        self.assertEqual("flood2", self.enter(places, "192.0.2.2", "other", given=True))
        self.assertEqual("limit_sessions", self.enter(places, "192.0.2.1", "second"))
        self.assertEqual("limit_sessions", self.enter(places, "192.0.2.66", "flood9"))

    def test_address(self):
        """An address has its own limit, whose connections without records make room for its further ones."""
        places = Places(10, 2)
        self.enter(places, "192.0.2.1", "a", given=True)
        self.enter(places, "192.0.2.1", "b")
        self.assertEqual("b", self.enter(places, "192.0.2.1", "c", given=True))
        self.assertEqual("limit_sessions_of_address", self.enter(places, "192.0.2.1", "d"))
        self.assertIsNone(self.enter(places, "192.0.2.2", "e"))

    def test_descriptors(self):
        """Never more connections than file descriptors; the soft limit grows as far as it may."""
        limits = [64, 1024]
        self.patch(resource, "getrlimit", lambda which: tuple(limits))
        self.patch(resource, "setrlimit", lambda which, values: limits.__setitem__(slice(2), values))
        self.assertEqual((10, 266), (places_by_descriptors(10, 1), limits[0]))
        self.assertEqual((384, 1024), (places_by_descriptors(10_000, 2), limits[0]))
        limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
        self.assertEqual(10_000, places_by_descriptors(10_000, 3))
