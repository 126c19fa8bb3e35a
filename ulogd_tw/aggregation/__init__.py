"""An Intermediate Aggregation Process (RFC 7015): interval distribution, then key and value aggregation.

Batches of flow records or packets come in. Each row is assigned to an interval, by its arrival, by the end of its flow
or spread over its time, and added to the group of its key: octets, packets, flows, first and last time, and the
functions asked for. At the end of an interval batches with a row for each group go out. Open intervals may be kept in a
state file over a restart.
"""

from ulogd_tw.aggregation.adding import AddingProcess, divided, of_worker
from ulogd_tw.aggregation.checkpoints import Checkpoints
from ulogd_tw.aggregation.functions import Function, FunctionSpec
from ulogd_tw.aggregation.process import AggregationProcess
from ulogd_tw.aggregation.settings import Overflow, Settings

__all__ = [
    "AddingProcess",
    "AggregationProcess",
    "Checkpoints",
    "Function",
    "FunctionSpec",
    "Overflow",
    "Settings",
    "divided",
    "of_worker",
]
