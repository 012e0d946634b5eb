"""The bundle tool: keys, `.zb` files, TUF metadata, checks of ELF files, publishing. Run `scripts/bundle --help`."""
