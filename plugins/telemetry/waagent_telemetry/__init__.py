"""Tells the platform what happened: events of the agent and of extensions (wireserver §19, extensions §14)."""
