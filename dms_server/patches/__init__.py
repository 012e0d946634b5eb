"""Patches between payloads: made in processes of their own, kept in a cache, given to devices that have the base."""
