"""Faults that devices report, and the symbol files that make their backtraces readable."""
