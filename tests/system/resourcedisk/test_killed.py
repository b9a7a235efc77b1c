"""Killed in the middle, and hanging in the middle (§14.7, §14.8)."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.resourcedisk.loops import GPT_RESERVED, LoopDisk, sh, tool
from waagent import Plan, Step
from waagent.agent import Agent
from waagent.commands import Completed
from waagent.service.boot import BootStage
from waagent_resourcedisk import engine as engines
from waagent_resourcedisk import formatting, swapfile

pytestmark = pytest.mark.system


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def boot_in_child(disk: LoopDisk, *, forced: bool = False) -> int:
    """Do what a start of the service does in a process that can be killed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            disk.boot(forced=forced)
        finally:
            os._exit(0)
    return pid


def without_sfdisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formatting, "installed", lambda program: program != "sfdisk" and shutil.which(program))


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("half_made", [False, True])
@pytest.mark.parametrize(
    ("partitioner", "table"), [("sfdisk", "label: dos\nstart=2048, type=7\n"), ("parted", GPT_RESERVED)]
)
def test_killed_in_the_middle_of_mkfs(
    make_disk: Callable[..., LoopDisk],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    half_made: bool,
    partitioner: str,
    table: str,
) -> None:
    disk = make_disk(400)
    disk.configure(Filesystem=kind)
    disk.ntfs(table=table, part=2 if table is GPT_RESERVED else 1)
    if partitioner == "parted":
        without_sfdisk(monkeypatch)
    began = tmp_path / "began"
    # A file system that looks like one and cannot be mounted: its superblock alone.
    real = f"/usr/sbin/mkfs.{kind}"
    spoil = f'for last; do :; done; {real} "$@" && dd if=/dev/zero of=$last bs=1M seek=1 count=200 conv=notrunc'
    work = spoil if half_made else "true"
    program = tool(tmp_path, monkeypatch, f"mkfs.{kind}", f"{work}; echo $$ > {began}; exec sleep 600")
    pid = boot_in_child(disk)
    until(lambda: began.exists() and began.read_text().strip())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.kill(int(began.read_text()), signal.SIGKILL)
    program.unlink()
    disk.boot()
    assert disk.mounted() == f"{disk.part} {kind}", "\n".join(disk.lines)
    (disk.point / "works").write_text("yes")


WRITERS = ("sfdisk --quiet", "wipefs", "mkfs.ext4", "mount -t ext4", "mkswap", "swapon")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", [*WRITERS, "parted"])
def test_killed_beside_any_command_that_writes(
    make_disk: Callable[..., LoopDisk], monkeypatch: pytest.MonkeyPatch, command: str, when: str
) -> None:
    """The next run comes to the same end, whatever was done already."""
    disk = make_disk(400)
    disk.configure(EnableSwap="y", SwapSizeMB=64)
    disk.ntfs(table=GPT_RESERVED, part=2)
    if command == "parted":
        without_sfdisk(monkeypatch)
    really = Agent.run

    def run(agent: Agent, argv: Sequence[str], **more: Any) -> Completed:
        hit = " ".join(argv).startswith(command) and "resourcedisk-look" not in argv[-1]
        if hit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = really(agent, argv, **more)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Agent, "run", run)
        _, status = os.waitpid(boot_in_child(disk), 0)
    assert os.WIFSIGNALED(status), f"{command} was never run"
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4", "\n".join(disk.lines)
    assert (disk.point / "swapfile").stat().st_size == 64 << 20
    assert Path("/proc/swaps").read_text().count(str(disk.point)) == 1
    assert not (disk.point / "swapfile.new").exists()


def kill_in_mkfs(disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    """Kill a start of the service while ``mkfs.ext4`` does *work*, and let that come to its end."""
    began, ended = tmp_path / "began", tmp_path / "ended"
    script = f"echo 1 > {began}; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done; {work}; echo 1 > {ended}"
    program = tool(tmp_path, monkeypatch, "mkfs.ext4", script)
    pid = boot_in_child(disk)
    until(began.exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(ended.exists)
    program.unlink()


def test_what_was_mounted_after_all_is_never_made_anew(
    disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mkfs outlived the agent, so the disk was complete, and used. One day it cannot be mounted any more."""
    disk.ntfs()
    kill_in_mkfs(disk, tmp_path, monkeypatch, '/usr/sbin/mkfs.ext4 "$@" >/dev/null 2>&1')
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4"
    (disk.point / "precious").write_text("x")
    disk.unmount()
    sh("dd", "if=/dev/urandom", f"of={disk.part}", "bs=1024", "seek=2", "count=2", "conv=notrunc")
    before = disk.content_digest()
    disk.boot()
    assert disk.content_digest() == before
    assert disk.host.told[-1][0] == "failed"


def test_a_partition_that_somebody_added_to_an_unfinished_disk(
    disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.ntfs()
    kill_in_mkfs(disk, tmp_path, monkeypatch, "true")
    identifier = disk.type_of(disk.device, "PTUUID")
    sh("sfdisk", "--quiet", "-N", "1", disk.device, text="1MiB,64MiB\n")
    sh("sfdisk", "--quiet", "--append", disk.device, text=",\n")
    assert disk.type_of(disk.device, "PTUUID") == identifier
    disk.read_table()
    sh("mkfs.ext4", "-q", f"{disk.device}p2")
    before = disk.content_digest()
    disk.boot()
    assert disk.content_digest() == before
    assert "2 partitions" in "\n".join(disk.lines)


def test_killed_while_swap_is_written(make_disk: Callable[..., LoopDisk], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = make_disk(600)
    disk.configure(EnableSwap="y", SwapSizeMB=64)
    draft = disk.point / "swapfile.new"

    def slowly(agent: object, descriptor: int, path: str, size: int) -> None:
        os.write(descriptor, bytes(1 << 20))
        signal.pause()

    monkeypatch.setitem(swapfile._FILLERS, "allocate", slowly)
    pid = boot_in_child(disk)
    until(lambda: draft.exists() and draft.stat().st_size)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    monkeypatch.undo()
    disk.boot()
    assert (disk.point / "swapfile").stat().st_size == 64 << 20
    assert str(disk.point) in Path("/proc/swaps").read_text()
    assert not draft.exists()


def test_a_hanging_mkfs_does_not_keep_the_machine_from_being_ready(
    disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.ntfs()
    go = tmp_path / "go"
    waiting = f'while [ ! -e {go} ]; do sleep 0.05; done; exec /usr/sbin/mkfs.ext4 "$@"'
    tool(tmp_path, monkeypatch, "mkfs.ext4", waiting)
    monkeypatch.setattr(engines, "BUDGET", 2.0)
    monkeypatch.setattr(engines, "_LEAST", 2.0)
    agent = disk.agent()
    engine = engines.Engine(agent)
    ready = threading.Event()

    def provision() -> Plan:
        step = Step("report ready", "tell the platform that the machine is ready", ready.set)
        return Plan("provisioning", dict, lambda facts: [] if ready.is_set() else [step], phase="provision")

    plans = [("resourcedisk", engine.disk_plan()), ("resourcedisk", engine.background_plan())]
    disk.host.on_boot = lambda agent: [*plans, ("provisioning", provision())]  # type: ignore[attr-defined]
    read, write = os.pipe()
    stage = threading.Thread(target=BootStage(agent, write).run, daemon=True)
    began = time.monotonic()
    stage.start()
    assert ready.wait(1.5), "it waited for the disk"
    assert os.read(read, 1), "the stage never said that its work is done"
    assert time.monotonic() - began < 15
    os.close(read)
    assert not disk.mounted().startswith(disk.device)
    until(lambda: disk.telemetry)
    assert [(event.operation, event.success) for event in disk.telemetry] == [("ActivateResourceDisk", False)]
    assert "not ready within" in disk.telemetry[0].message
    go.write_text("")
    stage.join(60)
    assert not stage.is_alive()
    assert disk.mounted() == f"{disk.part} ext4"
    assert [word for word, *_ in disk.host.told] == ["ready"]


def test_the_command(disk: LoopDisk, capfd: pytest.CaptureFixture[str]) -> None:
    import json
    from argparse import Namespace

    from waagent_resourcedisk import command

    disk.ntfs()
    assert command.run(disk.agent(), Namespace(json=True, apply=False)) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["decision"]["action"] == "format"
    assert document["disk"]["candidate"]["trust"] == "proven"
    assert document["disk"]["partitions"][0]["contents"] == []
    assert len(document["steps"]) == 4
    sh("mkfs.ext4", "-q", "-F", disk.part)
    assert command.run(disk.agent(), Namespace(json=False, apply=False)) == 0
    text = capfd.readouterr().out
    assert "mount (row: mountable)" in text
    assert f"1. mount {disk.root}{disk.part} (ext4)" in text
    assert command.run(disk.agent(), Namespace(json=False, apply=True)) == 1, "another root has no disks to change"


def test_a_person_may_try_as_often_as_needed(disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.ntfs()
    program = tool(tmp_path, monkeypatch, "mkfs.ext4", f"echo >> {tmp_path}/tries; exit 1")
    for _ in range(5):
        os.waitpid(boot_in_child(disk, forced=True), 0)
    assert len((tmp_path / "tries").read_text()) == 5
    program.unlink()
    disk.boot(forced=True)
    assert disk.mounted() == f"{disk.part} ext4"
