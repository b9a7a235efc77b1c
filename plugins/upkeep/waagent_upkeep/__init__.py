"""What keeps a machine in order while it runs: host name, network, disks' timeouts, just-in-time accounts, consoles.

Each part is a plugin of its own (entry points ``upkeep``, ``hostname``, ``network``, ``jit``, ``scvmm``, ``rdma`` and
``serialconsole``), so that an image can do without one of them.
"""
