"""Find the agent and load it as the module ``waagent``, in the order that handlers have used since agent 2.0.

The copy in the package comes first, then the installed command, then every entry of ``PYTHONPATH``.
"""

import importlib.machinery
import importlib.util
import os


def load(first=None):
    """Return the module, and one line for each place that had one which did not want to be loaded.

    Args:
        first: a file to try before all others.
    """
    places = [first] if first else []
    places += [os.path.join(os.getcwd(), "waagent"), "/usr/sbin/waagent"]
    places += [os.path.join(entry, "waagent") for entry in os.environ.get("PYTHONPATH", "").split(":") if entry]
    refusals = []
    for place in places:
        if not os.path.isfile(place):
            continue
        try:
            return _load(place), refusals
        except Exception as problem:  # an agent without this interface says so with ImportError
            refusals.append("%s: %s: %s" % (place, type(problem).__name__, problem))
    raise ImportError("no agent can be loaded as a module: %s" % "; ".join(refusals))


def _load(path):
    loader = importlib.machinery.SourceFileLoader("waagent", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("waagent", loader))
    loader.exec_module(module)
    return module
