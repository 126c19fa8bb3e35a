"""Tools for the operator: queries, manhole, doctor, reference, counters."""
