"""Deprovisioning for real: users, files, mounts, SIGKILL at every step (cli §5, provisioning §18, ruling 44)."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

import pytest

from tests.system.deprovision.conftest import FILES
from tests.system.deprovision.overlay import WHITEOUT, Overlay

pytestmark = pytest.mark.system

COMMAND = "-force -deprovision+user"

ALLOWED = {
    # what cli §5.2 lists
    "/etc/hostname": "*",
    "/etc/ssh/ssh_host_*key*": WHITEOUT,
    "/var/lib/dhcp/*": WHITEOUT,
    "/var/lib/dhcpcd/*": WHITEOUT,
    "/var/lib/dhclient/*": WHITEOUT,
    "/var/lib/NetworkManager/dhclient-*.lease": WHITEOUT,
    "/etc/shadow": "*",  # root's line
    "/etc/resolv.conf": WHITEOUT,
    "/root/.bash_history": WHITEOUT,
    "/var/log/waagent.log": WHITEOUT,
    "/etc/dhcp/dhclient.conf": "*",
    # directories that stay, empty
    "/var/lib/waagent": "directory",
    "/var/log/azure": "directory",
    "/var/lib/dhcp": "directory",
    "/var/lib/dhcpcd": "directory",
    "/etc/systemd/system/waagent.service.d": "directory",
    "/etc/sudoers.d": "directory",
    # what the test and the distribution's tools for accounts leave
    "/etc/waagent.conf": "*",
    "/etc/waagent.conf.d": WHITEOUT,
    "/etc/.pwd.lock": "*",
    "/etc/*-": "*",
    "/var/log/lastlog": "*",
    "/var/log/faillog": "*",
    "/var/log/tallylog": "*",
    "/var/log/azure/*": WHITEOUT,
    "/var/lib/waagent/*": WHITEOUT,
}

KILLER = """
import os, signal
from waagent.plan import Executor

steps = [0]
run_step = Executor._run_step

def run(self, running, step):
    if {within} and steps[0] == {number}:
        step.run()
        os.kill(os.getpid(), signal.SIGKILL)
    result = run_step(self, running, step)
    steps[0] += 1
    if not {within} and steps[0] == {number} + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

Executor._run_step = run
from waagent.cli import main
raise SystemExit(main({words!r}.split()))
"""


def surprising(changes: dict[str, str]) -> dict[str, str]:
    """Return the changes that the specification does not allow."""

    def allowed(path: str, kind: str) -> bool:
        return any(fnmatch.fnmatchcase(path, one) and wanted in ("*", kind) for one, wanted in ALLOWED.items())

    return {path: kind for path, kind in changes.items() if not allowed(path, kind)}


def test_the_machine_is_as_before_byte_by_byte(provisioned: Overlay) -> None:
    assert surprising(provisioned.changes()), "provisioning left its traces"
    provisioned.waagent(COMMAND)
    changes = provisioned.changes()
    assert surprising(changes) == {}
    assert changes["/etc/hostname"] == "localhost.localdomain\n"
    assert re.match(r"root:\*LOCK\*:", changes["/etc/shadow"])
    lower = Path("/etc/shadow").read_text().splitlines()
    others = [line for line in changes["/etc/shadow"].splitlines() if not line.startswith("root:")]
    assert others == [line for line in lower if not line.startswith("root:")], "and no other line"
    for path in FILES:
        assert changes.get(path, WHITEOUT) == WHITEOUT
    assert os.listdir(provisioned.place / "run/systemd/netif/leases") == []
    assert os.listdir(provisioned.place / "run/waagent") == []
    secrets = [path for path, content in changes.items() if "a secret" in content or "correct horse" in content]
    assert secrets == []


def test_without_the_word_the_user_stays(provisioned: Overlay) -> None:
    provisioned.waagent("-force -deprovision")
    changes = provisioned.changes()
    assert "/home/ops" in changes
    assert "\nops:" in changes["/etc/passwd"]
    assert "ops ALL=(ALL) ALL" in changes["/etc/sudoers.d/waagent"]
    assert "/var/lib/waagent/provisioned" not in changes


def test_killed_after_every_step_and_within_it(provisioned: Overlay, tmp_path: Path) -> None:
    begin = tmp_path / "begin"
    begin.mkdir()
    provisioned.keep(begin)
    shown = provisioned.waagent("-deprovision+user --dry-run").stdout
    steps = shown.count("\nwould ") + shown.startswith("would ")
    assert steps >= 11
    provisioned.waagent(COMMAND)
    whole = provisioned.changes()
    for within in (False, True):
        for number in range(steps):
            provisioned.restore(begin)
            killed = provisioned.python(KILLER.format(number=number, within=within, words=COMMAND), check=False)
            assert killed.returncode in (-9, 137), killed.stderr
            done = provisioned.waagent(COMMAND, check=False)
            assert done.returncode == 0, f"killed at {number}: {done.stderr}"
            assert without_backups(provisioned.changes()) == without_backups(whole), f"killed at step {number}"
            assert os.listdir(provisioned.place / "run/waagent") == []


def without_backups(changes: dict[str, str]) -> dict[str, str]:
    """Leave out the copies that the tools for accounts make of the file before: a second call makes a second one."""
    return {path: kind for path, kind in changes.items() if not fnmatch.fnmatchcase(path, "/etc/*-")}


def test_what_is_mounted_below_survives(provisioned: Overlay) -> None:
    mounts = """
    set -e
    mkdir -p /srv/data /var/lib/dhcpcd/dev /var/lib/dhcpcd/deep/er /var/lib/waagent/disk /var/lib/waagent/tmpfs
    echo precious >/srv/data/file
    touch /var/lib/waagent/one-file /srv/data/other
    mount --bind /srv/data /var/lib/dhcpcd/deep/er
    mount --bind /srv/data /var/lib/waagent/disk
    mount --bind /srv/data/file /var/lib/waagent/one-file
    mount -t proc proc /var/lib/dhcpcd/dev
    mount -t tmpfs tmpfs /var/lib/waagent/tmpfs
    touch /var/lib/waagent/tmpfs/kept
    ln -s /srv/data /var/lib/waagent/link
    """
    script = f"""{mounts}
    "$1" -m waagent {COMMAND}
    echo "exit $?"
    find /var/lib/waagent /var/lib/dhcpcd -xdev | LC_ALL=C sort
    ls /var/lib/waagent/tmpfs
    cat /srv/data/file
    """
    done = provisioned.sh(script)
    lines = done.stdout.splitlines()
    lines = lines[lines.index("exit 0") + 1 :]
    assert lines == [
        "/var/lib/dhcpcd",
        "/var/lib/dhcpcd/deep",
        "/var/lib/dhcpcd/deep/er",
        *(["/var/lib/dhcpcd/deep/er/file", "/var/lib/dhcpcd/deep/er/other"]),
        "/var/lib/dhcpcd/dev",
        "/var/lib/waagent",
        "/var/lib/waagent/disk",
        *(["/var/lib/waagent/disk/file", "/var/lib/waagent/disk/other"]),
        "/var/lib/waagent/one-file",
        "/var/lib/waagent/tmpfs",
        "kept",
        "precious",
    ]
    assert "stays: something is mounted there" in done.stderr


def test_a_system_user_is_refused(machine: Overlay) -> None:
    machine.sh(
        "mkdir -p /var/lib/waagent; useradd -r -m -d /home/robot -u 150 robot; "
        "printf '%s' \"$(cat <<'END'\n" + FILES["/var/lib/waagent/ovf-env.xml"].replace(">ops<", ">robot<") + "END\n"
        ')" >/var/lib/waagent/ovf-env.xml'
    )
    done = machine.waagent(COMMAND, check=False)
    assert done.returncode == 1
    assert "robot" in done.stderr
    assert "system user" in done.stderr
    assert "robot:" in machine.changes()["/etc/passwd"]
    assert "/home/robot" in machine.changes()
    assert not (machine.place / "upper/var/lib/waagent/ovf-env.xml").is_file(), "everything else was done"


def test_a_read_only_place_is_told_and_the_rest_is_done(provisioned: Overlay) -> None:
    script = f"""
    mount --bind /etc/ssh /etc/ssh && mount -o remount,bind,ro /etc/ssh
    "$1" -m waagent {COMMAND}
    echo "exit $?"
    """
    done = provisioned.sh(script)
    assert done.stdout.endswith("exit 1\n")
    assert "Read-only file system" in done.stderr
    assert "/home/ops" not in provisioned.changes()
    assert provisioned.changes().get("/var/lib/waagent/provisioned", WHITEOUT) == WHITEOUT
    again = provisioned.waagent(COMMAND)
    assert again.returncode == 0
    assert surprising(provisioned.changes()) == {}
