"""fstab, cloud-init, mount points: small roots on paper (§8, §14.6)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.resourcedisk.scratch import Tree
from waagent_resourcedisk import surroundings
from waagent_resourcedisk.records import PROVEN, SCSI, Candidate, Wishes

DISK = Candidate("sdb", "/dev/sdb", SCSI, PROVEN)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def agent(answer: str = "enabled") -> object:
    return SimpleNamespace(run=lambda argv, **more: SimpleNamespace(stdout=answer + "\n"))


def test_lines_of_fstab(tree: Tree) -> None:
    tree.disk("sdb")
    line = "/dev/disk/cloud/azure_resource-part1 /mnt auto defaults,nofail,comment=cloudconfig 0 2\n"
    for text, wanted in (
        ("", ("", False)),
        ("# " + line, ("", False)),
        ("/dev/sda1 / ext4 defaults 0 1\n" + line, ("/dev/disk/cloud/azure_resource-part1 at /mnt", False)),
        ("/dev/sdc1 /mnt/resource xfs comment=azure-ephemeral-disk-setup 0 0\n", ("/dev/sdc1 at /mnt/resource", True)),
        ("/dev/sdba1 /data ext4 defaults 0 1\n", ("", False)),
    ):
        tree.write("etc/fstab", text)
        assert surroundings.fstab_line(tree.system, DISK, "/mnt/resource") == wanted


@pytest.mark.parametrize(
    ("files", "answer", "wanted"),
    [
        ({}, "enabled", ""),
        ({"usr/bin/cloud-init": ""}, "enabled", "running"),
        ({"usr/bin/cloud-init": ""}, "disabled", ""),
        ({"usr/bin/cloud-init": "", "run/cloud-init/result.json": "{}"}, "static", "done"),
        ({"usr/bin/cloud-init": "", "etc/cloud/cloud-init.disabled": ""}, "enabled", ""),
        ({"usr/bin/cloud-init": "", "run/cloud-init/disabled": ""}, "enabled", ""),
        ({"usr/bin/cloud-init": "", "proc/cmdline": "ro cloud-init=disabled\n"}, "enabled", ""),
    ],
)
def test_cloud_init(tree: Tree, files: dict[str, str], answer: str, wanted: str) -> None:
    (tree.root / "run/systemd/system").mkdir(parents=True)
    for name, text in files.items():
        tree.write(name, text)
    enabled = surroundings.cloud_init_is_enabled(agent(answer), tree.system)  # type: ignore[arg-type]
    around = surroundings.look(tree.system, None, Wishes(), cloud_init=enabled, waited=False, gave_up="")
    assert around.cloud_init == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("datasource:\n  Azure:\n    never_destroy_ntfs: true\n", True),
        ("datasource:\n  Azure: {never_destroy_ntfs: True}\n", True),
        ("datasource:\n  Azure:\n    never_destroy_ntfs: false\n", False),
        ("# never_destroy_ntfs: true\n", False),
    ],
)
def test_never_destroy_ntfs(tree: Tree, text: str, wanted: bool) -> None:
    tree.write("etc/cloud/cloud.cfg.d/90-azure.cfg", text)
    assert surroundings.never_destroy_ntfs(tree.system) is wanted


@pytest.mark.parametrize("point", ["", "mnt", "/", "//", "/etc", "/usr/", "/var/lib", "/mnt/../etc", "/link", "/file"])
def test_bad_mount_points(tree: Tree, point: str) -> None:
    (tree.root / "link").symlink_to("/tmp")
    tree.write("file", "")
    assert surroundings.mount_point_problem(tree.system, point)


@pytest.mark.parametrize(("target", "point"), [(".", "/srv/etc"), ("etc/..", "/srv/home/"), ("var", "/srv/lib")])
def test_a_place_that_turns_out_to_be_the_systems(tree: Tree, target: str, point: str) -> None:
    (tree.root / "etc").mkdir()
    (tree.root / "srv").symlink_to(target)
    assert "belongs to the system" in surroundings.mount_point_problem(tree.system, point)


@pytest.mark.parametrize("point", ["/mnt", "/mnt/resource", "/scratch"])
def test_good_mount_points(tree: Tree, point: str) -> None:
    if point == "/mnt/resource":
        (tree.root / "mnt").symlink_to("var/mnt")  # as on systems whose root is read-only
    assert surroundings.mount_point_problem(tree.system, point) == ""
