"""Work without a clock: the calls of functions, of Python and of C, that something makes."""

import sys


def calls(function, *arguments):
    """How many calls are made while this runs."""
    count = 0

    def seen(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count
