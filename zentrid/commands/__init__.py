"""The command language: one module for each group of commands; each command declares itself once."""
