"""Host keys, and keys of users: written where the user could lay traps."""

from __future__ import annotations

import base64
import os
import stat

import pytest

from waagent.errors import NoAnswer
from waagent_distro.steps import authorizedkeys


def key(kind="ssh-ed25519", body=b"\0\0\0\x20" + bytes(32)):
    blob = len(kind).to_bytes(4, "big") + kind.encode() + body
    return f"{kind} {base64.b64encode(blob).decode()}"


KEY, OTHER = key(), key(body=b"\0\0\0\x20" + b"x" * 32)


@pytest.fixture
def amy(machine):
    """A user whose id is that of whoever runs the tests, so that files can be given to her."""
    machine.write("etc/passwd", f"amy:x:{os.getuid()}:{os.getgid()}::/home/amy:/bin/sh\n")
    (machine.root / "home/amy").mkdir(parents=True)
    return machine


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_public_key_is_added_once(amy):
    for _ in range(2):
        amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY + " amy@desk")
    path = amy.root / "home/amy/.ssh/authorized_keys"
    assert path.read_text() == KEY + " amy@desk\n"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


def test_keys_that_are_there_stay(amy):
    path = amy.write("home/amy/.ssh/authorized_keys", f'# mine\nfrom="10.*" {OTHER} old', 0o644)
    amy.distro.deploy_ssh_key("amy", "$HOME/amy/.ssh/authorized_keys", KEY)
    amy.distro.deploy_ssh_key("amy", "$HOME/amy/.ssh/authorized_keys", OTHER)  # there, with options
    assert path.read_text() == f'# mine\nfrom="10.*" {OTHER} old\n{KEY}\n'
    assert mode(path) == 0o600


@pytest.mark.parametrize(
    "kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"]
)
def test_every_kind_of_openssh_key_is_one(kind):
    assert authorizedkeys.checked_key(key(kind)) == key(kind)


def test_wrapped_lines_are_joined():
    kind, blob = KEY.split()
    wrapped = f"{kind} {blob[:30]}\r\n{blob[30:]}\r\n"
    assert authorizedkeys.checked_key(wrapped) == KEY


@pytest.mark.parametrize(
    "text",
    ["", "ssh-rsa", "ssh-rsa AAAA", "-----BEGIN PUBLIC KEY-----", KEY.replace("ssh-ed25519", "ssh-rsa"), "# " + KEY],
)
def test_what_is_no_key_is_refused(amy, text):
    with pytest.raises(NoAnswer, match="Bad public key"):
        amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", text)
    assert not (amy.root / "home/amy/.ssh/authorized_keys").exists()


@pytest.mark.parametrize("trap", ["home/amy/.ssh", "home/amy/.ssh/authorized_keys"])
def test_links_in_a_home_are_not_followed(amy, tmp_path, trap):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    place = amy.root / trap
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside if trap.endswith(".ssh") else outside / "file")
    with pytest.raises(NoAnswer):
        amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY)
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "untouched"


def test_a_fifo_in_the_place_of_the_file_holds_nobody_up(amy):
    (amy.root / "home/amy/.ssh").mkdir()
    os.mkfifo(amy.root / "home/amy/.ssh/authorized_keys")
    with pytest.raises(NoAnswer, match="no regular file"):
        amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY)


def test_home_may_lie_behind_a_link_of_the_system(amy):
    (amy.root / "home").rename(amy.root / "var-home")
    (amy.root / "home").symlink_to("var-home")
    amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY)
    assert (amy.root / "var-home/amy/.ssh/authorized_keys").read_text() == KEY + "\n"


def test_directories_outside_the_home_keep_their_mode(amy):
    (amy.root / "etc/ssh").mkdir(mode=0o755)
    amy.distro.deploy_ssh_key("amy", "/etc/ssh/keys/amy", KEY)
    assert mode(amy.root / "etc/ssh") == 0o755
    assert mode(amy.root / "etc/ssh/keys") == 0o755
    assert mode(amy.root / "etc/ssh/keys/amy") == 0o600


def test_unknown_users_and_missing_keys_are_said(amy):
    with pytest.raises(NoAnswer, match="there is no such user"):
        amy.distro.deploy_ssh_key("bob", "/home/bob/.ssh/authorized_keys", KEY)
    with pytest.raises(NoAnswer, match="neither a public nor a private key"):
        amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys")
    with pytest.raises(NoAnswer, match="is no path of a file"):
        amy.distro.deploy_ssh_key("amy", "ssh/", KEY)


def test_selinux_gets_to_know_of_the_files(amy):
    amy.write("sys/fs/selinux/enforce", "1")
    amy.answer("restorecon")
    amy.distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY)
    home = amy.at("/home/amy/.ssh")
    assert amy.commands() == [f"restorecon {home}", f"restorecon {home}/authorized_keys"]
    amy.answer("restorecon", 1)
    with pytest.raises(NoAnswer, match="cannot be set"):
        amy.distro.label_path("/etc/x")
    amy.write("sys/fs/selinux/enforce", "0")
    assert amy.distro.label_path("/etc/x") is True


def keygen(machine, kinds):
    def run(command, _data):
        target = command[command.index("-f") + 1]
        place = target + "/etc/ssh/ssh_host_{}_key" if "-A" in command else target
        for kind in kinds:
            for suffix in ("", ".pub"):
                with open(place.format(kind) + suffix, "w") as stream:
                    stream.write(f"new {kind}{suffix}")
        return 0 if kinds else (1, "", "unknown key type dsa")

    machine.answer("ssh-keygen", run)


def test_host_keys_are_replaced_all_of_them(machine):
    for name in ("rsa_key", "rsa_key.pub", "dsa_key", "dsa_key.pub"):
        machine.write(f"etc/ssh/ssh_host_{name}", "old")
    keygen(machine, ["rsa"])
    machine.distro.regenerate_host_keys("rsa")
    directory = machine.root / "etc/ssh"
    assert sorted(os.listdir(directory)) == ["ssh_host_rsa_key", "ssh_host_rsa_key.pub"]
    assert (directory / "ssh_host_rsa_key").read_text() == "new rsa"
    assert mode(directory / "ssh_host_rsa_key") == 0o600
    assert mode(directory / "ssh_host_rsa_key.pub") == 0o644


def test_auto_makes_every_kind(machine):
    keygen(machine, ["rsa", "ecdsa", "ed25519"])
    machine.distro.regenerate_host_keys("auto")
    assert len(os.listdir(machine.root / "etc/ssh")) == 6


def test_when_no_key_is_made_the_old_ones_stay(machine):
    machine.write("etc/ssh/ssh_host_rsa_key", "old")
    keygen(machine, [])
    with pytest.raises(NoAnswer, match=r"the old ones stay.*unknown key type dsa"):
        machine.distro.regenerate_host_keys("dsa")
    with pytest.raises(NoAnswer, match="'des' is no kind of host key"):
        machine.distro.regenerate_host_keys("des")
    assert os.listdir(machine.root / "etc/ssh") == ["ssh_host_rsa_key"]
