"""The HTTP door: a process without rights that speaks HTTP outside and the command language inside."""
