"""The product's version: one place, three parts; the wire and ``-version`` show four."""

__version__ = "3.0.0"

NAME = "WALinuxAgent"
"""The product word towards platform and tools: the platform checks for it and tools parse it."""

WIRE_VERSION = ".".join((__version__.split(".") + ["0"] * 4)[:4])
"""The version in four parts, as the platform and ``waagent -version`` show it."""
