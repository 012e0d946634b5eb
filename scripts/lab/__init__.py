"""A whole small world on one machine: fleet, DMS, releases, a board. `make run`, `make demo` and the board tests use it."""
