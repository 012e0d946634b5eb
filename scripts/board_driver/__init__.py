"""The board driver: the virtual board in QEMU, with its plug, button, lamp and console, for people and for tests."""
