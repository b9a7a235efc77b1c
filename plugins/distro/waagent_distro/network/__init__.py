"""One plugin per tool that may run the network; at run time the one answers that runs the interface (§5.1)."""
