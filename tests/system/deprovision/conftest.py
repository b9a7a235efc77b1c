from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.system.deprovision import life
from tests.system.deprovision.overlay import Overlay
from tests.vm import machine as vm

FILES = {
    "/var/lib/dhcp/dhclient.eth0.leases": "lease {}",
    "/var/lib/dhcpcd/eth0.lease": "x",
    "/run/systemd/netif/leases/2": "OPTION_245=a83f8110",
    "/etc/systemd/system/waagent-network-setup.service": "[Service]",
    "/etc/systemd/system/walinuxagent.service.d/12-CPUQuota.conf": "[Service]",
    "/root/.bash_history": "a secret",
}
"""What time leaves on a machine besides what its agent and its owner do in :mod:`tests.system.deprovision.life`."""


@attrs.frozen
class Lived:
    """A machine that was provisioned and used.

    Attributes:
        lower: the image that it was made of.
        kept: what changed since then.
        seen: what the platform and the owner saw.
    """

    lower: Path
    kept: Path
    seen: dict[str, Any]


def mounted(place: Path) -> Path:
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "waagent-test", str(place)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    return place


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Make an image of the distribution's own packages, provision a machine of it, and keep what changed."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in ("mmdebstrap", "unshare", "chroot", "mke2fs", "ssh") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("life")
    lower, seen = folder / "image", folder / "seen.json"
    life.prepare(lower)
    place = mounted(folder / "overlay")
    try:
        overlay = Overlay(place, lower)
        ran = subprocess.run(
            [
                "unshare", "-n", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child",
                sys.executable, life.__file__, str(place), str(lower), str(seen),
            ],
            capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "PYTHONPATH": str(vm.REPOSITORY)},
        )  # fmt: skip
        assert ran.returncode == 0, f"{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}\n{seen.read_text()[-6000:]}"
        files = "; ".join(f"mkdir -p {os.path.dirname(path)}; printf '{text}' >{path}" for path, text in FILES.items())
        overlay.sh(files)
        kept = folder / "kept"
        kept.mkdir()
        overlay.keep(kept)
        yield Lived(lower, kept, json.loads(seen.read_text()))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
        shutil.rmtree(lower, ignore_errors=True)


@pytest.fixture
def machine(lived: Lived, tmp_path: Path) -> Iterator[Overlay]:
    """A machine of the image that nobody provisioned yet."""
    place = mounted(tmp_path / "overlay")
    try:
        yield Overlay(place, lived.lower)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def provisioned(machine: Overlay, lived: Lived) -> Overlay:
    """The machine after its life."""
    machine.restore(lived.kept)
    return machine
