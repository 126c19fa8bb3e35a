"""What an operator sees and asks: queries, manhole, doctor, reference, counters."""
