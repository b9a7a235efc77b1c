"""Lets extensions wait for what they would fail without: cloud-init's end, the package manager's lock."""
