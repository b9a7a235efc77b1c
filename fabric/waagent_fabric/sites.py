"""Plugins on a path of their own, as pip would have put them there: for agents of tests and demonstrations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping


def install_module(
    site: str | os.PathLike[str],
    module: str | os.PathLike[str],
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    distribution: str = "acme",
    version: str = "1.0",
) -> str:
    """Put a module with its entry points below *site*; return *site*, for ``PYTHONPATH``.

    Nobody but the owner may write what is made, as the agent asks of plugins (whatever the mode of the source is).

    Args:
        site: a directory; made when missing.
        module: the file of the module.
        entry_points: group → name → module.
        distribution: the name of the distribution that it seems to come from.
        version: its version.
    """
    place = os.fspath(site)
    metadata = os.path.join(place, f"{distribution.replace('-', '_')}-{version}.dist-info")
    os.makedirs(metadata, exist_ok=True)
    target = os.path.join(place, os.path.basename(os.fspath(module)))
    shutil.copyfile(module, target)
    lines = []
    for group, names in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
        "entry_points.txt": "\n".join(lines) + "\n",
    }
    for name, text in files.items():
        with open(os.path.join(metadata, name), "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(os.path.join(metadata, name), 0o644)
    os.chmod(target, 0o644)
    for directory in (place, metadata):
        os.chmod(directory, 0o755)
    return place
