"""Makes what a crashed program has left readable, with the symbol files of the image's build."""
