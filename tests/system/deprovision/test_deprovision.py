"""Deprovisioning for real: a machine that was provisioned and used, SIGKILL at every step (cli §5, ruling 44)."""

from __future__ import annotations

import fnmatch
import re

import pytest

from tests.system.deprovision import life
from tests.system.deprovision.conftest import Lived
from tests.system.deprovision.overlay import WHITEOUT, Overlay

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

COMMAND = "-force -deprovision+user"
BACKUPS = ("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-")

ALLOWED = {
    # what cli §5.2 lists
    "/etc/hostname": "localhost.localdomain\n",
    "/etc/ssh/ssh_host_*key*": WHITEOUT,
    "/etc/shadow": "*",  # root's line
    "/etc/resolv.conf": WHITEOUT,
    # directories that stay, empty
    "/var/lib/waagent": "directory",
    "/var/log/azure": "directory",
    "/var/lib/dhcpcd": "directory",
    "/etc/systemd/system/walinuxagent.service.d": "directory",
    "/mnt/cdrom": "directory",
    "/mnt/cdrom/secure": "directory",
    # the ways into the machine stay as its owner wanted them
    "/etc/ssh/sshd_config": "*\nPasswordAuthentication yes\n*",
    # what other tools note: who logged in, and how accounts were before (which is how they are)
    "/var/log/wtmp": "*",
    "/var/log/lastlog": "*",
    **dict.fromkeys(BACKUPS, "*"),
}
"""Everything that may differ between the image before and the machine after, and how."""

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
        return any(
            fnmatch.fnmatchcase(path, one) and fnmatch.fnmatchcase(kind, wanted) for one, wanted in ALLOWED.items()
        )

    return {path: kind for path, kind in changes.items() if not allowed(path, kind)}


def test_the_machine_lived(lived: Lived, provisioned: Overlay) -> None:
    """What the other tests begin with: the provisioning plugin, an extension and the owner have been at work."""
    seen, changes = lived.seen, provisioned.changes()
    assert seen["reports"] == ["NotReady", "Ready"], seen["log"]
    assert "ops is root on node7" in seen["session"]
    assert seen["violations"] == []
    assert changes["/etc/hostname"] == "node7\n"
    assert re.search(r"^ops:\$6\$", changes["/etc/shadow"], re.MULTILINE)
    assert changes["/etc/sudoers.d/waagent"] == "ops ALL=(ALL) ALL\n"
    assert "/home/ops/.ssh/authorized_keys" in changes
    assert "/etc/ssh/ssh_host_rsa_key" in changes
    assert "\nPasswordAuthentication yes\n" in changes["/etc/ssh/sshd_config"]
    assert changes["/var/lib/waagent/provisioned"] == life.VM_ID
    assert changes["/var/lib/waagent/CustomData"].startswith("#!/bin/sh")
    assert (provisioned.place / "run/custom-data").read_text() == "0\n"
    assert "protected words" in changes[f"/var/log/azure/{life.HANDLER}/opened"]
    assert f"/var/lib/waagent/{life.HANDLER}-1.0.0/config/0.settings" in changes


def test_the_machine_is_as_before_byte_by_byte(provisioned: Overlay) -> None:
    done = provisioned.waagent(COMMAND)
    assert "Do you want" not in done.stdout
    changes = provisioned.changes()
    assert surprising(changes) == {}
    before = (provisioned.lower / "etc/shadow").read_text().splitlines()
    after = changes["/etc/shadow"].splitlines()
    assert [line for line in after if line.startswith("root:")] == ["root:*LOCK*:14600::::::"]
    assert sorted(line for line in after if line[:5] != "root:") == sorted(
        line for line in before if line[:5] != "root:"
    ), "and no other line"
    for path in BACKUPS:
        whole = changes.get(path.rstrip("-")) or (provisioned.lower / path.strip("/-")).read_text()
        assert changes.get(path, whole) == whole, "a backup holds nothing that the file does not"
    assert list((provisioned.place / "run/systemd/netif/leases").iterdir()) == []
    assert noted(provisioned) == []
    assert traces(provisioned, changes) == []


def noted(machine: Overlay) -> list[str]:
    """Return what the command left for its next run; the service's own files go with the next start of the machine."""
    return [path.name for path in (machine.place / "run/waagent").iterdir() if path.name.startswith("deprovision")]


def traces(machine: Overlay, changes: dict[str, str]) -> list[str]:
    """Return where the owner's name, secrets and machine are still to be read, without the system's login records."""
    words = r"\bops\b|\bnode7\b|protected words|a secret|Tr0ub4dor|" + life.VM_ID
    key = (machine.place / "key.pub").read_text().split()[1] if (machine.place / "key.pub").exists() else words
    look = re.compile(f"{words}|{re.escape(key)}", re.IGNORECASE)
    return [path for path, kind in changes.items() if look.search(kind + path) and path != "/var/log/wtmp"]


def test_without_the_word_the_user_stays(provisioned: Overlay) -> None:
    provisioned.waagent("-force -deprovision")
    changes = provisioned.changes()
    assert "/home/ops" in changes
    assert "\nops:" in changes["/etc/passwd"]
    assert "ops ALL=(ALL) ALL" in changes["/etc/sudoers.d/waagent"]
    assert "/var/lib/waagent/provisioned" not in changes


def test_no_leaves_everything_as_it_is(provisioned: Overlay) -> None:
    before = provisioned.changes()
    done = provisioned.sh("waagent -deprovision+user", answer="n\n")
    assert done.stdout.endswith(
        "WARNING! ops account and entire home directory will be deleted.\nDo you want to proceed (y/n)"
    )
    assert provisioned.changes() == before


def test_killed_after_every_step_and_within_it(provisioned: Overlay, lived: Lived) -> None:
    shown = provisioned.waagent("-deprovision+user --dry-run").stdout
    steps = shown.count("\nwould ") + shown.startswith("would ")
    assert steps >= 11
    provisioned.waagent(COMMAND)
    whole = provisioned.changes()
    for within in (False, True):
        for number in range(steps):
            provisioned.restore(lived.kept)
            killed = provisioned.python(KILLER.format(number=number, within=within, words=COMMAND), check=False)
            assert killed.returncode in (-9, 137), killed.stderr
            done = provisioned.waagent(COMMAND, check=False)
            assert done.returncode == 0, f"killed at {number}: {done.stderr}"
            assert provisioned.changes() == whole, f"killed at step {number}"
            assert noted(provisioned) == []


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
    waagent {COMMAND}
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
        f"cat >/var/lib/waagent/ovf-env.xml <<'END'\n{life.DOCUMENT.replace('>ops<', '>robot<')}END\n"
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
    waagent {COMMAND}
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
