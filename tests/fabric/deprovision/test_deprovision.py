"""The command line on a machine that is a directory, with a real agent beside it (cli §5, §10 items 3 to 5)."""

from __future__ import annotations

import os
import sys

import pytest

from tests.fabric.upkeep.sandbox import Sandbox
from tests.unit.deprovision.image import OVF
from waagent_fabric import HandlerSpec, SettingsSpec
from waagent_fabric.packages import sample_package

pytestmark = pytest.mark.fabric

WARNINGS = [
    "WARNING! The waagent service will be stopped.",
    "WARNING! All SSH host key pairs will be deleted.",
    "WARNING! Cached DHCP leases will be deleted.",
    "WARNING! root password will be disabled. You will not be able to login as root.",
    "WARNING! {root}/etc/resolv.conf will be deleted.",
    "WARNING! ops account and entire home directory will be deleted.",
]
QUESTION = "Do you want to proceed (y/n)"


@pytest.fixture
def provisioned(sandbox: Sandbox) -> Sandbox:
    sandbox.configure(Provisioning__DeleteRootPassword="y")
    sandbox.write("var/lib/waagent/ovf-env.xml", OVF.format(user="ops"))
    sandbox.write("var/lib/waagent/provisioned", "id")
    sandbox.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nops:x:1000:1000::/home/ops:/bin/sh\n")
    sandbox.write("home/ops/file")
    sandbox.write("etc/ssh/ssh_host_rsa_key")
    sandbox.write("etc/resolv.conf", "nameserver 168.63.129.16\n")
    return sandbox


def tree(sandbox: Sandbox) -> dict[str, bytes]:
    return {
        str(path.relative_to(sandbox.root)): path.read_bytes()
        for path in sandbox.root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("", 1)])
def test_no_and_silence_change_nothing(provisioned: Sandbox, answer: str, code: int) -> None:
    before = tree(provisioned)
    done = provisioned.command("-deprovision+user", answer=answer)
    assert done.returncode == code
    assert done.stdout == "\n".join(line.format(root=provisioned.root) for line in WARNINGS) + "\n" + QUESTION
    assert tree(provisioned) == before


@pytest.mark.parametrize("words", [("-force", "-deprovision+user"), ("deprovision+user", "--force")])
def test_force_does_all_of_it(provisioned: Sandbox, words: tuple[str, ...]) -> None:
    done = provisioned.command(*words, answer="n\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.format(root=provisioned.root) for line in WARNINGS]
    assert os.listdir(provisioned.root / "var/lib/waagent") == []
    assert not (provisioned.root / "etc/resolv.conf").exists()
    assert not (provisioned.root / "home/ops").exists()
    assert "ops" not in provisioned.read("etc/passwd")
    assert provisioned.read("etc/hostname") == "localhost.localdomain\n"
    assert provisioned.read("etc/shadow") == "root:*LOCK*\n"
    assert [line["operation"] for line in provisioned.operations()] == [
        "set_hostname", "set_dhcp_hostname", "lock_root_password", "delete_user",
    ]  # fmt: skip


def test_yes_does_it_too(provisioned: Sandbox) -> None:
    assert provisioned.command("-deprovision", answer="yes\n").returncode == 0
    assert "ops" in provisioned.read("etc/passwd")
    assert not (provisioned.root / "var/lib/waagent/provisioned").exists()


def test_a_dry_run(provisioned: Sandbox) -> None:
    before = tree(provisioned)
    done = provisioned.command("-deprovision+user", "--dry-run")
    assert done.returncode == 0
    assert "would delete the user ops\n" in done.stdout
    assert tree(provisioned) == before


def test_a_service_that_does_not_stop_is_a_failure_and_stops_nothing_else(provisioned: Sandbox) -> None:
    agent = provisioned.boot()  # the sandbox takes note of the stop, and the agent runs on
    agent.wait_until(lambda: provisioned.fabric.statuses, 30, "a status")
    done = provisioned.command("-force", "-deprovision+user")
    assert done.returncode == 1
    assert "waagent: deprovision: service: " in done.stderr
    assert provisioned.operations("service_action") == [
        {"operation": "service_action", "service": "waagent", "action": "stop"}
    ]
    assert "ops" not in provisioned.read("etc/passwd")
    agent.stop()
    done = provisioned.command("-force", "-deprovision+user")
    assert done.returncode == 0, done.stderr
    assert os.listdir(provisioned.root / "var/lib/waagent") == []


def test_it_is_refused_to_children_of_the_service(provisioned: Sandbox) -> None:
    """Off systemd the processes above tell; on it the unit's control group does, which a scratch root has not."""
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("here the control group decides")
    place = provisioned.root / "refused"
    command = f"{sys.executable} -m waagent --root {provisioned.root} -force -deprovision 2>{place}; echo $? >>{place}"
    provisioned.fabric.add_package("Acme.Self", "1.0.0", sample_package("Acme.Self", "1.0.0", enable=command))
    provisioned.fabric.publish([HandlerSpec("Acme.Self", "1.0.0", settings=[SettingsSpec({}, None, 0)])])
    agent = provisioned.boot()
    agent.wait_until(lambda: provisioned.read("refused").endswith("\n1\n"), 40, "the answer")
    assert "this would stop the service in its own work" in provisioned.read("refused")
    assert (provisioned.root / "var/lib/waagent/provisioned").exists()


def test_help_says_what_it_does_not_promise(sandbox: Sandbox) -> None:
    text = " ".join(sandbox.command("help", "deprovision").stdout.split())
    assert "does not guarantee that the image is cleared of all sensitive data" in text
