"""The program of a worker (`collecting.workers`): a COLLECTOR and what stands below it, as far as that is divided.

Input: the sockets, and the plan of the service. Output: rows, parts of intervals and counters, for the service.
"""

from ulogd_tw.worker.program import main

__all__ = ["main"]
