"""Alerts: rules over the rows that AGGREGATE emits and over the service itself; who is told when one fires and ends.

In: batches of an AGGREGATE at the end of each interval, counters, exporters, events. `conditions` reads ``when=``,
`grouping` adds up columns by key, `evaluation` gives the keys beyond a limit, `states` makes alerts of them (pending,
firing, resolved), `receivers` bring them out. `watch` puts them together in the running service.
"""

__all__ = ["conditions", "evaluation", "faults", "grouping", "memory", "receivers", "rules", "states", "watch"]
