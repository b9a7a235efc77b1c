"""A real SSH server: new host keys, a new configuration, logins by key and by password."""

from __future__ import annotations

import socket
import time

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

with socket.create_server(("127.0.0.1", 0)) as _free:
    PORT = str(_free.getsockname()[1])  # tests of this module may run in several processes at once
PASSWORD = "correct horse"
SSH = (
    "ssh", "-p", PORT, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
    "-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=10",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(cell):
    """A running server with a user who has a password and a key."""
    cell.shell("mkdir -p /run/sshd /root/.ssh; ssh-keygen -A; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_test")
    cell.write("/etc/ssh/sshd_config.d/50-cloud-init.conf", "PasswordAuthentication yes\n")
    cell.shell(f"printf 'Port {PORT}\\nListenAddress 127.0.0.1\\n' >> /etc/ssh/sshd_config")
    public = cell.read("/root/.ssh/id_test.pub").strip()
    answers = cell.operations(
        ("create_user", {"name": "sue"}),
        ("set_password", {"name": "sue", "password": PASSWORD}),
        ("deploy_ssh_key", {"name": "sue", "path": "/home/sue/.ssh/authorized_keys", "public_key": public}),
    )
    assert answers == [True, True, True]
    cell.write("/root/askpass", f"#!/bin/sh\necho '{PASSWORD}'\n")
    cell.run("chmod", "0700", "/root/askpass")
    cell.run("service", "ssh", "start")
    yield cell
    cell.run("service", "ssh", "stop", check=False)


def by_key(cell):
    command = (*SSH, "-i", "/root/.ssh/id_test", "-o", "BatchMode=yes", "sue@127.0.0.1", "id -un")
    return cell.run(*command, check=False).stdout == "sue\n"


def by_password(cell):
    environment = {"SSH_ASKPASS": "/root/askpass", "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    command = (*SSH, "-o", "PubkeyAuthentication=no", "sue@127.0.0.1", "id -un")
    return cell.run(*command, check=False, env=environment).stdout == "sue\n"


def eventually(condition):
    """Wait until the server, which reads its configuration by itself, is as it should be."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came true"


def host_key(cell):
    found = cell.run("ssh-keyscan", "-p", str(PORT), "-t", "ed25519", "127.0.0.1", check=False).stdout.split()
    return found[-1] if found else ""  # a server that starts anew answers in a moment


def test_the_file_of_keys_is_the_users_own(server):
    listing = server.run("stat", "-c", "%a %U", "/home/sue/.ssh", "/home/sue/.ssh/authorized_keys").stdout
    assert listing == "700 sue\n600 sue\n"
    eventually(lambda: by_key(server))


def test_passwords_are_switched_off_and_on_against_the_images_own_drop_in(server):
    eventually(lambda: by_password(server))
    for allowed in (False, True):
        answers = server.operations(
            ("configure_sshd", {"password_authentication": allowed, "client_alive_interval": 170}),
            ("restart_ssh", {}),
        )
        assert answers == [True, True]
        effective = server.run("/usr/sbin/sshd", "-T").stdout.splitlines()
        word = "yes" if allowed else "no"
        assert f"passwordauthentication {word}" in effective
        assert f"kbdinteractiveauthentication {word}" in effective
        assert "clientaliveinterval 170" in effective
        eventually(lambda allowed=allowed: by_password(server) is allowed)
        assert by_key(server)


def test_a_configuration_that_would_lock_everybody_out_is_refused(server):
    before = server.shell("cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*")
    answer = server.operation("configure_sshd", client_alive_interval=-5)
    assert "sshd refuses the new configuration, the old one stays" in answer["error"]
    assert server.shell("cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*") == before
    server.run("/usr/sbin/sshd", "-t")


@pytest.mark.parametrize(("kind", "files"), [("auto", 6), ("ed25519", 2)])
def test_host_keys_are_new_and_used(server, kind, files):
    before = host_key(server)
    answers = server.operations(("regenerate_host_keys", {"kind": kind}), ("restart_ssh", {}))
    assert answers == [True, True]
    names = server.shell("ls -A /etc/ssh | grep ssh_host_").split()
    assert len(names) == files
    assert set(server.shell("stat -c %a /etc/ssh/ssh_host_*_key").split()) == {"600"}
    assert ".waagent" not in server.shell("ls -A /etc/ssh")
    assert before
    eventually(lambda: host_key(server) not in ("", before))
    assert by_key(server)


def test_a_key_pair_is_the_users_and_only_the_public_half_is_readable(server):
    private, public = server.read("/root/.ssh/id_test"), server.read("/root/.ssh/id_test.pub")
    arguments = {"name": "sue", "path": "/home/sue/.ssh/id_x", "public_key": public, "private_key": private}
    assert server.operation("deploy_ssh_key", **arguments) is True
    listing = server.run("stat", "-c", "%a %U", "/home/sue/.ssh/id_x", "/home/sue/.ssh/id_x.pub").stdout
    assert listing == "600 sue\n644 sue\n"
    derived = server.run("su", "sue", "-c", "ssh-keygen -y -f /home/sue/.ssh/id_x").stdout
    assert derived.split()[:2] == public.split()[:2]


def test_links_that_a_user_laid_are_not_followed(server):
    server.shell("rm -rf /home/sue/.ssh; ln -s /etc/ssh /home/sue/.ssh")
    public = server.read("/root/.ssh/id_test.pub")
    arguments = {"name": "sue", "path": "/home/sue/.ssh/authorized_keys", "public_key": public}
    answer = server.operation("deploy_ssh_key", **arguments)
    assert "no key is written through '.ssh'" in answer["error"]
    assert "authorized_keys" not in server.shell("ls /etc/ssh")
    server.shell("rm /home/sue/.ssh")
