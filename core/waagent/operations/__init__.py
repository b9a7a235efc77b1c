"""Every operation on the machine that features ask of the distribution (spec/distro.md §3).

``agent.distro.set_hostname("web1")`` asks the plugins one after the other: third parties, then those of the
distribution's ``ID``, then those of its ``ID_LIKE`` words, then the base (``linux``, ``posix``). The first answer
counts.

For an implementation this holds throughout:

* ``None`` means "not mine", and the next plugin is asked; every other value is an answer, ``False`` and ``0`` too. An
  operation that only does something answers ``True``.
* An exception means "I could not": it is logged and the next plugin is asked. When nobody answers, the caller gets
  :class:`waagent.NoAnswer` with the name of each plugin that failed.
* Every operation can be called again: what is so already is left so, and answered ``True``.
* Paths of the system go through ``agent.paths.at(…)``, and commands through ``agent.run(…)``.
* **Changing** operations are only answered on the real root. Under ``--root`` the caller gets
  :class:`waagent.NotOnThisRoot`, unless a plugin with the attribute ``waagent_any_root = True`` answers.
"""

from __future__ import annotations

from waagent.operations import accounts, network, storage, system

GROUPS = (system, network, accounts, storage)
"""The modules that hold the specs, in the order of the reference page."""
