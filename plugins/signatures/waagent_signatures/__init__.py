"""Signatures of extension packages: who made what is about to run as root (extensions §16)."""
