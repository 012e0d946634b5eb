"""Provisioning: the fleet's keys and certificates, delegation of products, identities of devices."""
