"""Worker processes of a COLLECTOR: they decode, filter and add up; the service merges what they give.

Input: the sockets of an address, one for each worker, and the text of the configuration. Output: batches and parts of
intervals for the instances of the service, and the counters of the workers added up.
"""

from ulogd_tw.collecting.workers.plan import Plan, wants_of
from ulogd_tw.collecting.workers.pool import Pool
from ulogd_tw.collecting.workers.sockets import SharedSockets

__all__ = ["Plan", "Pool", "SharedSockets", "wants_of"]
