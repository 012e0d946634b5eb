"""Products: codes, titles, states, one-time claim tokens."""
