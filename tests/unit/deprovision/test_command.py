"""The command: prompt, -force, --dry-run, failures, interruptions, resuming (cli §5, §6, §10 items 3 to 5)."""

from __future__ import annotations

import io
import json
import os
import signal
from typing import Any

import pytest

from tests.unit.deprovision.image import GOES, OVF, STAYS, Image
from waagent import AgentError, Paths, Plan, Step
from waagent.conffile import read_chain, values_for_paths
from waagent_deprovision import command, guard
from waagent_deprovision.record import Record

RECORD = "/run/waagent/deprovision.json"


class Keyboard(io.StringIO):
    """Standard input that knows whether it was read."""

    asked = False

    def readline(self, *arguments: Any) -> str:
        self.asked = True
        return super().readline(*arguments)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Any:
    def type_in(text: str) -> Keyboard:
        keyboard = Keyboard(text)
        monkeypatch.setattr("sys.stdin", keyboard)
        return keyboard

    return type_in


def warned(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("WARNING! ")]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("no\n", 0), ("\n", 0), ("maybe\n", 0), (" N\n", 0), ("", 1)])
def test_without_a_yes_nothing_is_changed(image: Image, keyboard: Any, answer: str, code: int) -> None:
    before = image.tree()
    keyboard(answer)
    assert image.deprovision() == code
    assert image.tree() == before
    assert {call[0] for call in image.distro.calls} <= {"service_name", "find_resolver_files", "unit_directory"}


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", "Yes, please\n", "y"])
def test_the_warnings_come_first_then_the_question(
    image: Image, keyboard: Any, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image.configure("Provisioning.DeleteRootPassword=y\n")
    keyboard(answer)
    assert image.deprovision() == 0
    out = capsys.readouterr().out
    assert out.endswith("Do you want to proceed (y/n)"), "the question ends without a new line"
    resolver = image.paths.at("/etc/resolv.conf")
    assert out.splitlines()[:-1] == [
        "WARNING! The waagent service will be stopped.",
        "WARNING! All SSH host key pairs will be deleted.",
        "WARNING! Cached DHCP leases will be deleted.",
        "WARNING! root password will be disabled. You will not be able to login as root.",
        f"WARNING! {resolver} will be deleted.",
        "WARNING! ops account and entire home directory will be deleted.",
    ]
    assert not image.there("/var/lib/waagent/provisioned")


def test_force_asks_nobody(image: Image, keyboard: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stdin = keyboard("n\n")
    assert image.deprovision(force=True) == 0
    assert not stdin.asked
    assert "Do you want" not in capsys.readouterr().out


def test_what_goes_and_what_stays(image: Image) -> None:
    before = image.tree()
    assert image.deprovision(force=True) == 0
    after = image.tree()
    assert [path for path in GOES if path in after] == []
    assert {path: after.get(path) for path in STAYS} == {path: before[path] for path in STAYS}
    assert image.read("/etc/hostname") == "localhost.localdomain\n"
    assert "ops:" not in image.read("/etc/passwd")
    assert image.distro.asked("set_dhcp_hostname") == [("localhost.localdomain",)]
    assert image.distro.asked("delete_user") == [("ops",)]
    assert not image.distro.asked("lock_root_password"), "unless Provisioning.DeleteRootPassword=y"
    assert not image.distro.asked("publish_hostname")
    assert not image.there(RECORD), "what was noted goes when everything is done"
    assert os.listdir(image.paths.run_dir) == []


def test_the_backups_of_the_account_files_hold_no_more_than_these(image: Image) -> None:
    """``userdel`` keeps the files from before its change: with the user's name and the hash of the password."""
    for name in ("passwd", "shadow", "subuid"):
        image.write(f"/etc/{name}", "root:x\n" if name != "passwd" else image.read("/etc/passwd"))
        image.write(f"/etc/{name}-", "root:$6$old\nops:$6$secret\nand much more that was there before\n").chmod(0o640)
    elsewhere = image.write("/srv/group", "ops:x:1000:\n")
    image.write("/etc/group", "root:x:0:\n")
    (image.root / "etc/group-").symlink_to(elsewhere)
    assert image.deprovision(force=True) == 1, "a link in the place of a file is told"
    for name in ("passwd", "shadow", "subuid"):
        assert image.read(f"/etc/{name}-") == image.read(f"/etc/{name}")
        assert "ops" not in image.read(f"/etc/{name}-").split(":")
        assert os.stat(image.paths.at(f"/etc/{name}-")).st_mode & 0o777 == 0o640
    assert elsewhere.read_text() == "ops:x:1000:\n"
    assert not image.there("/etc/gshadow-")


def test_a_locked_root_password_is_in_no_backup(image: Image) -> None:
    image.configure("Provisioning.DeleteRootPassword=y\n")
    image.write("/etc/shadow", "root:*LOCK*:14600::::::\n")
    image.write("/etc/shadow-", "root:$6$old:14600::::::\n")
    assert image.deprovision(user=False, force=True) == 0
    assert image.read("/etc/shadow-") == "root:*LOCK*:14600::::::\n"


def test_the_user_stays_without_its_word(image: Image) -> None:
    assert image.deprovision(user=False, force=True) == 0
    assert not image.distro.asked("delete_user")


def test_options_and_distributions(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    image.configure("Provisioning.RegenerateSshHostKeyPair=n\nProvisioning.DeleteRootPassword=y\n")
    image.distro.answers["find_resolver_files"] = ()
    assert image.deprovision(force=True) == 0
    assert image.there("/etc/ssh/ssh_host_rsa_key")
    assert image.there("/etc/resolv.conf")
    assert image.distro.asked("lock_root_password") == [()]
    assert "host key" not in capsys.readouterr().out


def test_a_unit_of_a_former_agent_in_the_packages_directory(image: Image) -> None:
    unit = "/usr/lib/systemd/system/waagent-network-setup.service"
    script = image.paths.lib("waagent-network-setup.py")
    image.write(unit, f"[Service]\nExecStart=/usr/bin/python3 {script}\n")
    link = image.root / "etc/systemd/system/network.target.wants/waagent-network-setup.service"
    link.parent.mkdir()
    link.symlink_to("/etc/systemd/system/waagent-network-setup.service")
    assert image.deprovision(force=True) == 0
    assert not image.there(unit)
    assert not os.path.lexists(link)


def test_a_dry_run_shows_and_changes_nothing(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    before = image.tree()
    assert image.deprovision(dry_run=True) == 0
    assert image.tree() == before
    out = capsys.readouterr().out.splitlines()
    assert len(warned("\n".join(out))) == 5
    wouldbe = [line for line in out if line.startswith("would ")]
    assert wouldbe[1:3] == ["would stop the waagent service", "would delete the SSH host keys: 2 files"]
    assert f"would empty {image.paths.lib_dir} and {image.paths.extension_log_dir}" in wouldbe


def test_a_failing_action_stops_no_other(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    image.distro.answers["set_hostname"] = AgentError("hostnamed is in a bad mood")
    image.distro.answers["delete_user"] = AgentError("ops is logged in")
    assert image.deprovision(force=True) == 1
    after = image.tree()
    assert [path for path in GOES if path in after] == []
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("waagent: deprovision: ")]
    assert len(failed) == 2
    assert "bad mood" in failed[0]
    assert "ops is logged in" in failed[1]


def test_what_failed_can_be_tried_as_often_as_it_takes(image: Image) -> None:
    image.distro.answers["delete_user"] = AgentError("ops is logged in")
    for _ in range(4):
        assert image.deprovision(force=True) == 1
    image.distro.answers["delete_user"] = image._delete_user
    assert image.deprovision(force=True) == 0, "the user is known although the document is gone"
    assert "ops:" not in image.read("/etc/passwd")
    assert not image.there(RECORD)


@pytest.mark.parametrize("name", ["root"])
def test_the_superuser_is_never_deleted(image: Image, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    image.write("/var/lib/waagent/ovf-env.xml", OVF.format(user=name))
    assert image.deprovision(force=True) == 1
    assert not image.distro.asked("delete_user")
    assert f"{name} is a system user" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "ovf-env.xml is not found."), ("<broken", "ovf-env.xml cannot be read."), ("", "ovf-env.xml cannot be")],
)
def test_a_document_that_cannot_be_read(
    image: Image, content: str | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image.write("/var/lib/waagent/ovf-env.xml", content or "")
    if content is None:
        path.unlink()
    assert image.deprovision(force=True) == 0
    lines = warned(capsys.readouterr().out)
    assert lines[-2].startswith(f"WARNING! {line}")
    assert lines[-1] == "WARNING! Skip delete user."
    assert not image.distro.asked("delete_user")


@pytest.mark.parametrize("conf", ["Lib.Dir=/var/lib\n", "Lib.Dir=/\n", "Extension.LogDir=/var/log\n"])
def test_a_mistaken_option_stops_it_before_anything_is_removed(
    image: Image, conf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image.configure(conf)
    image.paths = Paths(str(image.root), values_for_paths(read_chain(str(image.root))))
    before = image.tree()
    assert image.deprovision(force=True) == 1
    assert image.tree() == before
    assert "no directory of the agent's own" in capsys.readouterr().err


def test_a_plugin_that_fails_stops_it_before_anything_is_removed(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    before = image.tree()
    image.broken = ValueError("no licence server")
    assert image.deprovision(force=True) == 1
    assert image.tree() == before
    assert "acme" in capsys.readouterr().err


def test_plans_of_others_warn_and_run_after_ours(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    step = Step("licence", "remove the licence", lambda: ran.append("x"), warning="The licence is removed.")
    image.also.append(("acme", Plan("licence", dict, lambda facts: [] if ran else [step])))
    assert image.deprovision(force=True) == 0
    assert ran == ["x"]
    assert warned(capsys.readouterr().out)[-1] == "WARNING! The licence is removed."


def test_inside_the_service_it_refuses(
    image: Image, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "inside_service", lambda agent, names: f"it runs inside {names[0]}.service")
    before = image.tree()
    assert image.deprovision(force=True) == 1
    assert image.tree() == before
    assert "it runs inside waagent.service" in capsys.readouterr().err


def test_the_units_control_group_gives_it_away(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {
        "0::/system.slice/waagent.service\n": True,
        "0::/system.slice/waagent.service/inner\n": True,
        "0::/azure.slice/azure-vmextensions.slice/x.scope\n": False,
        "0::/system.slice/notwaagent.service\n": False,
        "12:pids:/system.slice/waagent.service\n1:name=systemd:/\n": True,
    }
    monkeypatch.setattr(type(image.paths), "is_real", True)
    for text, inside in groups.items():
        monkeypatch.setattr(guard, "_text", lambda path, text=text: text if path == "/proc/self/cgroup" else "")
        assert bool(guard.inside_service(image, ["walinuxagent", "waagent"])) == inside


def test_the_service_that_runs_is_stopped_whatever_the_distribution_calls_it(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's package calls it walinuxagent; who installs it otherwise has a waagent.service there."""
    image.distro.answers["service_name"] = "walinuxagent"
    held = [True]

    def stop(service: str, action: str) -> bool:
        held.clear()
        return True

    def text(path: str) -> str:
        return "0::/system.slice/waagent.service\n" if path == "/proc/77/cgroup" else ""

    image.distro.answers["service_action"] = stop
    monkeypatch.setattr(type(image.paths), "is_real", True)
    monkeypatch.setattr(guard, "_is_held", lambda path: bool(held))
    monkeypatch.setattr(guard, "_holder", lambda agent, name: 77)
    monkeypatch.setattr(guard, "_text", text)
    assert image.deprovision(force=True) == 0
    assert image.distro.asked("service_action") == [("waagent", "stop")]


def test_a_stop_that_does_not_stop_the_service_is_told(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "running", lambda agent: "process 7 holds a lock")
    image.stopping.set()  # nobody waits here
    assert image.deprovision(force=True) == 1
    assert image.distro.asked("service_action") == [("waagent", "stop")]
    assert image.logged("service failed", "process 7 holds a lock")


def test_an_image_that_is_built_offline_has_nothing_to_stop(image: Image) -> None:
    assert image.deprovision(force=True) == 0
    assert not image.distro.asked("service_action")


def test_interrupted_before_it_began(
    image: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object) -> str:
        raise KeyboardInterrupt

    before = image.tree()
    monkeypatch.setattr(command, "_ask", press)
    assert image.deprovision() == 130
    assert capsys.readouterr().out.endswith("Deprovision is interrupted.\n")
    assert image.tree() == before


def test_interrupted_when_it_has_begun(image: Image, capfd: pytest.CaptureFixture[str]) -> None:
    def press(name: str) -> bool:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return True

    image.distro.answers["set_dhcp_hostname"] = press
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert image.deprovision(force=True) == 0
    assert capfd.readouterr().out.count("Deprovisioning may not be interrupted.") == 3
    assert [path for path in GOES if image.there(path)] == []
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_the_facts_are_noted_before_the_first_step(image: Image) -> None:
    seen: list[dict[str, Any]] = []

    def look(name: str) -> bool:
        path = image.paths.at(RECORD)
        with open(path) as stream:
            seen.append(json.load(stream))
        assert os.stat(path).st_mode & 0o777 == 0o600
        return True

    image.distro.answers["set_dhcp_hostname"] = look
    image.deprovision(force=True)
    assert seen[0]["users"] == ["ops"]
    assert seen[0]["resolver"] == [image.paths.at("/etc/resolv.conf")]
    assert seen[0]["warnings"][0] == "The waagent service will be stopped."


def test_without_a_place_for_the_note_nothing_is_begun(image: Image) -> None:
    (image.root / "run").rename(image.root / "run.off")
    image.write("/run", "a file in the place of the directory")
    before = image.tree()
    assert image.deprovision(force=True) == 1
    assert image.tree() == before


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"schema": 1, "users": 7}'])
def test_a_damaged_note_does_not_stand_in_the_way(image: Image, text: str) -> None:
    image.write(RECORD, text)
    assert image.deprovision(force=True) == 0
    assert "ops:" not in image.read("/etc/passwd")


def test_a_machine_that_was_provisioned_again_meanwhile(image: Image) -> None:
    from waagent_deprovision import record

    record.save(image, Record(users=("old",), ovf="read"))
    assert image.deprovision(force=True) == 0
    assert image.distro.asked("delete_user") == [("old",), ("ops",)]


EXTRA_FILES = {
    "histories": ("/home/ops/.bash_history", "/home/opsy/.zsh_history", "/root/.python_history"),
    "rotated-logs": ("/var/log/waagent.log.1", "/var/log/waagent.log-20260101"),
    "network-manager": ("/var/lib/NetworkManager/internal-x-eth0.lease",),
    "sudoers": ("/etc/sudoers.d/90-cloud-init-users",),
}


@pytest.mark.parametrize("word", list(EXTRA_FILES))
def test_extras_remove_what_they_say_and_only_when_asked(image: Image, word: str) -> None:
    for path in EXTRA_FILES[word]:
        image.write(path, "x")
    image.deprovision(force=True)
    assert all(map(image.there, EXTRA_FILES[word]))
    image.configure(f"Deprovision.Also={word}\n")
    assert image.deprovision(force=True) == 0
    assert not any(map(image.there, EXTRA_FILES[word]))


def test_the_machine_id_is_emptied_not_removed(image: Image) -> None:
    image.write("/var/lib/dbus/machine-id", "x")
    image.configure("Deprovision.Also=machine-id\n")
    assert image.deprovision(force=True) == 0
    assert image.read("/etc/machine-id") == ""
    assert not image.there("/var/lib/dbus/machine-id")


def test_the_resource_disks_entry_leaves_fstab(image: Image) -> None:
    keep = "UUID=1 / ext4 defaults 0 1\n# /dev/disk/cloud/azure_resource comment\n/dev/sdc1 /mnt/resources ext4\n"
    image.write(
        "/etc/fstab", keep + "/dev/disk/cloud/azure_resource-part1 /mnt auto 0 2\n/dev/sdb1 /mnt/resource ext4\n"
    )
    image.configure("Deprovision.Also=fstab, histories\n")
    assert image.deprovision(force=True) == 0
    assert image.read("/etc/fstab") == keep


def test_an_extra_that_nobody_knows_stops_it(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    image.configure("Deprovision.Also=machine-id,historys\n")
    before = image.tree()
    assert image.deprovision(force=True) == 1
    assert image.tree() == before
    assert "historys, which nobody knows" in capsys.readouterr().err
