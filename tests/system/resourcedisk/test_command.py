"""``waagent resourcedisk`` as a person runs it: on the real root, with a /sys of its own in a mount namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.system.resourcedisk.loops import GEN2, LoopDisk

pytestmark = pytest.mark.system

SCRIPT = """
set -e
place=$1 name=$2; shift 2
mkdir -p "$place" /var/lib/waagent /run/waagent /mnt
mount -t tmpfs none "$place"
for part in block class dev devices; do mkdir "$place/$part"; mount --rbind "/sys/$part" "$place/$part"; done
bus=$place/bus/vmbus/devices/vmbus_1
mkdir -p "$bus/host1/target1:0:0/1:0:0:1/block/$name"
echo "{$guid}" > "$bus/device_id"
mount --rbind "$place" /sys
for part in /var/lib/waagent /run/waagent /mnt; do mount -t tmpfs none $part; done
exec "$@"
"""
SESSION = """
import json, os, subprocess, sys
calls = []
for words in json.loads(sys.argv[1]):
    done = subprocess.run(words, capture_output=True, text=True)
    calls.append([done.returncode, done.stdout, done.stderr])
print(json.dumps(calls))
"""


def session(disk: LoopDisk, conf: str, *commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Run commands one after the other on a machine whose resource disk is *disk*; the agent's are single words."""
    path = disk.root / "waagent.conf"
    path.write_text(f"Logs.File={disk.root}/log\n{conf}")
    agent = [sys.executable, "-m", "waagent", f"-configuration-path:{path}", "resourcedisk"]
    calls = [[*agent, *words] if not words or words[0].startswith("--") else list(words) for words in commands]
    script = SCRIPT.replace("$guid", GEN2)
    start = ["unshare", "--mount", "sh", "-c", script, "sh", str(disk.root / "newsys"), disk.name]
    done = subprocess.run(
        [*start, sys.executable, "-c", SESSION, json.dumps(calls)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return [tuple(call) for call in json.loads(done.stdout)]


def test_look_then_do_then_look_again(disk: LoopDisk) -> None:
    disk.ntfs()
    look, apply, again, names, document = session(
        disk, "", (), ("--apply",), ("--apply",), ("ls", "-A", "/mnt/resource"), ("--json",)
    )
    assert (look[0], apply[0], again[0]) == (0, 0, 0), (look, apply, again)
    assert "format (row: pristine)" in look[1]
    assert "2. make ext4 on it\n  3. mount it at /mnt/resource\n" in look[1]
    assert f"mounted: {disk.part} at /mnt/resource (ext4)" in apply[1]
    assert "activate: done" in apply[1]
    assert "activate" not in again[1]
    assert sorted(names[1].split()) == ["DATALOSS_WARNING_README.txt", "lost+found"]
    found = json.loads(document[1])
    assert (found["decision"]["action"], found["steps"]) == ("adopt", ["write the warning file in /mnt/resource"])
    assert disk.type_of(disk.part, "LABEL") == "azure-resource"


def test_what_is_refused(disk: LoopDisk) -> None:
    disk.ntfs("payroll.xls")
    before = disk.content_digest()
    look, apply = session(disk, "", (), ("--apply",))
    assert (look[0], apply[0]) == (3, 1)
    assert "payroll.xls" in look[1]
    assert "to change that: move the files elsewhere" in look[1]
    assert disk.content_digest() == before


def test_swap_on_request(make_disk: Callable[..., LoopDisk]) -> None:
    disk = make_disk(500)
    disk.ntfs()
    conf = "ResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=64\n"
    look, apply, swaps, off = session(
        disk, conf, (), ("--apply",), ("cat", "/proc/swaps"), ("swapoff", "/mnt/resource/swapfile")
    )
    assert "5. make 64 MiB of swap in /mnt/resource" in look[1]
    assert apply[0] == 0, apply
    assert "swap: done" in apply[1]
    assert "/mnt/resource/swapfile" in swaps[1]
    assert off[0] == 0
