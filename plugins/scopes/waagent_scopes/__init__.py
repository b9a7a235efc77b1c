"""Starts each command of a handler in a unit of its own on systemd, with the limits that its manifest asks for."""
