"""Files of the release before, and the proof that they are read."""
