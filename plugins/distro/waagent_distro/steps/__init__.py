"""Steps on the machine, as functions that take the agent. Plugins of this package are made of them."""
