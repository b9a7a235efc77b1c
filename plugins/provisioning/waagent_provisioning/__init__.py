"""Provisioning: a generic image becomes the machine that the owner asked for (spec/provisioning.md).

Everything is a plan: :mod:`~waagent_provisioning.flow` looks at the machine, the pure functions of
:mod:`~waagent_provisioning.planner` say which steps are missing, and each step can be done again.
"""
