"""With which options a disk is mounted: nobody is locked out of file systems that have no owners."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from waagent.commands import Completed
from waagent.log import Log, Sinks
from waagent_resourcedisk import formatting


def mounts(place: Path, filesystem: str, options: str | None, *, refused: str = "") -> list[str]:
    """Mount, and return the options of every try; those that hold *refused* fail."""
    tried: list[str] = []

    def run(argv: tuple[str, ...], **_: Any) -> Completed:
        if argv[0] != "mount":
            return Completed(argv, 0, "", "")
        tried.append(argv[argv.index("-o") + 1] if "-o" in argv else "")
        return Completed(argv, 32 if refused and refused in tried[-1] else 0, "", "bad option")

    agent = SimpleNamespace(run=run, log=Log(Sinks(), "Test"))
    system = SimpleNamespace(mounted_at=lambda _: SimpleNamespace(numbers=("8:1",)), number_of=lambda _: "8:1")
    formatting.mount(agent, system, "/dev/sda1", filesystem, str(place / "point"), options)  # type: ignore[arg-type]
    return tried


@pytest.mark.parametrize(
    ("filesystem", "options", "expected"),
    [
        ("ext4", None, ""),
        ("ext4", "noatime", "noatime"),
        ("vfat", None, "umask=022"),
        ("exfat", "uid=1000", "umask=022,uid=1000"),
        ("ntfs", "umask=077", "umask=022,umask=077"),  # the last counts
    ],
)
def test_options(tmp_path: Path, filesystem: str, options: str | None, expected: str) -> None:
    assert mounts(tmp_path, filesystem, options) == [expected]


def test_without_bad_options_it_is_open_all_the_same(tmp_path: Path) -> None:
    assert mounts(tmp_path, "vfat", "nonsense", refused="nonsense")[-1] == "umask=022"
