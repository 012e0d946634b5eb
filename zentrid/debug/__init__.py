"""What helps to find out why something ended: frames, symbol files, backtraces."""
