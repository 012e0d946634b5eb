"""Pure code about bundles: manifest, hash tree, patch stream. Shared by the device, the DMS and the host tools."""
