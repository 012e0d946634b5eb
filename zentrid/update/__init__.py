"""Updating: the supervisor's side (manager) and the unprivileged worker that meets the outside world."""

from zentrid import dataclasscode

dataclasscode.use()  # here, because a program of this package imports the rest at its top
