"""Bundles: upload, checks, signed metadata, payload files, tags."""
