"""The HTTP door: a process without rights that speaks HTTP outside and the command language inside."""

from zentrid import dataclasscode

dataclasscode.use()  # here, because a program of this package imports the rest at its top
