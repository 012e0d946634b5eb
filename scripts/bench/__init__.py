"""Measures updates: pairs of real releases, this engine against others, on the host and on the board."""
