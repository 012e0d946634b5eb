"""The product build: the pinned Buildroot makes kernel, boot loader and root file system; the rest is `scripts.image`'s."""
