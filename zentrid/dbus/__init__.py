"""The D-Bus door: a process of its own without rights, and a client of the command line's socket like any other."""
