"""The supervisor daemon of a Zentri device, and the pure code that its servers and tools share."""

ZENTRI_VERSION = "1.0.0"
