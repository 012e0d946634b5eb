"""Crashes made readable: program counters and build-ids out of a core, functions and lines out of a symbol file. Pure."""
