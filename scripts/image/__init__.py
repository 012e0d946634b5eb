"""Builds everything the virtual board boots from: ROM, kernel, root file system, signed FIT, disk."""
