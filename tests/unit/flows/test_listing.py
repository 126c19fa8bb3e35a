"""Listings from memory are those of the disk."""

import os
import shutil
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.flows import listing
from ulogd_tw.flows.listing import SETTLED_NS, Listing
from ulogd_tw.storing.parquet.directory import files, hour_directory, name_of

STEP = st.tuples(st.sampled_from(["file", "part", "remove", "hour", "later"]), st.integers(0, 3), st.integers(0, 5))


class ListingTests(SynchronousTestCase):
    """Files come and go."""

    @given(st.lists(STEP, max_size=15))
    def test_as_on_the_disk(self, steps):
        """After each change, and a change within a tick of the clock, the listing is as `files` has it."""
        directory = Path(self.mktemp())
        directory.mkdir()
        now = [10**18]
        listed = Listing(lambda: now[0])
        for what, hour, number in steps:
            place = hour_directory(directory, 500_000 + hour)
            path = place / name_of(1000 + number, 0, 1, "abc", number, 0)
            if what == "later":
                now[0] += 2 * SETTLED_NS
            elif what == "hour":
                shutil.rmtree(place, ignore_errors=True)
            elif what == "remove":
                path.unlink(missing_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                (path if what == "file" else path.with_name(f".{path.name}.part")).touch()
            if place.exists():
                os.utime(place, ns=(now[0], now[0]))
            self.assertEqual(files(directory), listed.files(directory))

    def test_from_memory(self):
        """A directory that has not changed is not read again."""
        directory = Path(self.mktemp())
        place = hour_directory(directory, 500_000)
        place.mkdir(parents=True)
        (place / name_of(1, 0, 1, "abc", 1, 0)).touch()
        os.utime(place, ns=(1, 1))
        listed = Listing()
        read = []
        real = listing.files_of_hour
        self.patch(listing, "files_of_hour", lambda directory, hour: read.append(hour) or real(directory, hour))
        for _ in range(3):
            self.assertEqual(1, len(listed.files(directory)))
        self.assertEqual([500_000], read)
