"""What the agent asks of the operating system (spec/distro.md): ``linux`` and ``posix``, what distributions do
differently, and the tools that run the network.

Each module named in the group ``waagent.distros`` is a plugin of its own; none inherits from another. The steps that
several of them need are functions in :mod:`waagent_distro.steps`, imported when an operation is asked for.
"""
