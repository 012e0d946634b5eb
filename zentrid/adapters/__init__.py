"""Adapters: the only places where zentrid touches disks, devices, sockets and processes."""
