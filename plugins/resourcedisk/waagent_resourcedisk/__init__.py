"""The resource disk: find the temporary disk of a machine, make it usable, put swap on it (spec/resourcedisk.md)."""
