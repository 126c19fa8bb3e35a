"""A disk that is nearly full."""

import errno
import os


def disk_with(case, room):
    """os.write to a disk with `room` octets left; more room can be put into the list that it returns."""
    real, left = os.write, [room]

    def write(fd, octets):
        count = min(len(octets), left[0])
        if not count:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= count
        return real(fd, octets[:count])

    case.patch(os, "write", write)
    return left
