"""The names of disks under /dev/disk/azure: the packaged rules, read by the real udev over a tree of our own (§2.1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parents[3] / "packaging/udev"
GEN1, GEN2 = "{00000000-000%d-8899-0000-000000000000}", "{f8b3781%s-1e82-4818-a1c3-63d806ec15bb}"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="a tree in place of /sys needs root"),
    pytest.mark.skipif(shutil.which("udevadm") is None, reason="udevadm is not installed"),
    pytest.mark.skipif(not RULES.exists(), reason="this tree carries no packaging"),
]

# udev helpers that ask the hardware are left out: their answers are given. What udev makes in /dev is out of sight.
SCRIPT = """
set -e
mkdir -p /run/udev /dev/disk /dev/block
mount --bind "$1/rules" /usr/lib/udev/rules.d
for place in /run/udev /dev/disk /dev/block /etc/udev; do mount -t tmpfs none $place; done
mount --bind "$1/sys" /sys
SYSTEMD_DEVICE_VERIFY_SYSFS=0 udevadm test --action=add "$2" 2>/dev/null
"""


def device(root: Path, path: str, uevent: str, subsystem: str, **attributes: str) -> None:
    place = root / "sys" / path
    place.mkdir(parents=True)
    (place / "uevent").write_text(uevent)
    for name, value in attributes.items():
        (place / name).write_text(value + "\n")
    target = root / "sys" / subsystem
    target.mkdir(parents=True, exist_ok=True)
    (place / "subsystem").symlink_to(os.path.relpath(target, place))


def links(root: Path, path: str, model: str = "Virtual_Disk") -> list[str]:
    (root / "rules").mkdir()
    for rule in RULES.iterdir():
        shutil.copy(rule, root / "rules")
    (root / "rules/10-answers.rules").write_text(f'ENV{{ID_VENDOR}}="Msft", ENV{{ID_MODEL}}="{model}"\n')
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(root), f"/sys/{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "DEVPATH=" not in done.stdout:
        pytest.skip(f"this udevadm cannot be shown another tree: {done.stderr[-300:]}")
    found = [line.partition("=")[2].split() for line in done.stdout.splitlines() if line.startswith("DEVLINKS=")]
    return sorted(found[0]) if found else []


def disk(root: Path, guid: str, lun: int, partition: bool = False) -> str:
    base = "devices/LNXSYSTM:00/VMBUS:00/vmbus_1"
    device(root, base, "DRIVER=hv_storvsc\n", "bus/vmbus", device_id=guid)
    for below, kind in (("host3", "scsi_host"), ("target3:0:0", "scsi_target"), (f"3:0:0:{lun}", "scsi_device")):
        base += f"/{below}"
        device(root, base, f"DEVTYPE={kind}\n", "bus/scsi")
    base += "/block/sdq"
    device(root, base, "MAJOR=65\nMINOR=0\nDEVNAME=sdq\nDEVTYPE=disk\n", "class/block", dev="65:0")
    if partition:
        base += "/sdq3"
        text = "MAJOR=65\nMINOR=3\nDEVNAME=sdq3\nDEVTYPE=partition\nPARTN=3\n"
        device(root, base, text, "class/block", dev="65:3", partition="3")
    return base


@pytest.mark.parametrize(
    ("guid", "lun", "partition", "wanted"),
    [
        (GEN1 % 0, 0, False, "root"),
        (GEN1 % 1, 0, False, "resource"),
        (GEN1 % 1, 0, True, "resource-part3"),
        (GEN2 % "a", 0, True, "root-part3"),
        (GEN2 % "a", 1, False, "resource"),
        (GEN2 % "a", 2, False, ""),
        (GEN2 % "a", 12, False, "scsi0/lun12"),
        (GEN2 % "b", 0, False, "scsi1/lun0"),
        (GEN2 % "c", 1, True, "scsi2/lun1-part3"),
        (GEN2 % "d", 63, False, "scsi3/lun63"),
        ("{32412632-86cb-44a2-9b5c-50d1417354f5}", 1, False, ""),
    ],
)
def test_names_of_disks(tmp_path: Path, guid: str, lun: int, partition: bool, wanted: str) -> None:
    path = disk(tmp_path, guid, lun, partition)
    assert links(tmp_path, path) == ([f"/dev/disk/azure/{wanted}"] if wanted else [])


def test_disks_of_others_get_no_name(tmp_path: Path) -> None:
    assert links(tmp_path, disk(tmp_path, GEN2 % "a", 1), model="Somebodys_Disk") == []
