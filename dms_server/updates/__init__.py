"""The device door's hot path: check, metadata, payloads, reports."""
