"""Updating: the supervisor's side (manager) and the unprivileged worker that meets the outside world."""
