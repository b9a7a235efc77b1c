"""Deprovisioning: a machine becomes an image without secrets and identity of its own (cli §5, provisioning §18)."""
