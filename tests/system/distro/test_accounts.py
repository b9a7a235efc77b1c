"""Accounts on a real system: made, used with the password and the rights that were given, and gone."""

from __future__ import annotations

from datetime import date

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PASSWORD = "right horse%$\"'ü"
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def logs_in(cell, user, password):
    """Whether *user* can log in with *password*, asked by somebody who is not root."""
    done = cell.run(*AS_NOBODY, "su", user, "-c", "id -un", data=password + "\n", check=False)
    return done.returncode == 0 and done.stdout.split() == [user]


def test_a_user_is_made_and_logs_in(cell):
    assert cell.operation("create_user", name="amy", comment="JIT_Account", expiration="2099-12-31") is True
    assert cell.operation("create_user", name="amy") is True
    line = cell.run("getent", "passwd", "amy").stdout.strip().split(":")
    shell = cell.shell("useradd -D").partition("SHELL=")[2].split()[0]  # what the image's builder chose
    assert line[4:] == ["JIT_Account", "/home/amy", shell]
    assert cell.run("stat", "-c", "%U %F", "/home/amy").stdout == "amy directory\n"
    last_day = date(2099, 12, 31) - date(1970, 1, 1)
    assert cell.run("getent", "shadow", "amy").stdout.split(":")[7] == str(last_day.days)
    assert not logs_in(cell, "amy", PASSWORD)
    assert cell.operation("set_password", name="amy", password=PASSWORD) is True
    assert logs_in(cell, "amy", PASSWORD)
    assert not logs_in(cell, "amy", PASSWORD + "x")


@pytest.mark.parametrize("method", ["1", "5", "6", "2a"])
def test_every_method_of_hashing_lets_the_user_in(cell, method):
    cell.write("/etc/waagent.conf", f"Provisioning.PasswordCryptId={method}\nProvisioning.PasswordCryptSaltLength=12\n")
    name = f"user{method}"
    try:
        cell.operations(("create_user", {"name": name}), ("set_password", {"name": name, "password": PASSWORD}))
    finally:
        cell.write("/etc/waagent.conf", "")
    assert cell.run("getent", "shadow", name).stdout.split(":")[1].startswith(f"${method}$")
    assert logs_in(cell, name, PASSWORD)
    assert not logs_in(cell, name, "wrong")


def test_a_group_of_that_name_is_no_obstacle(cell):
    cell.run("groupadd", "kim")
    assert cell.operation("create_user", name="kim") is True
    assert cell.run("id", "-gn", "kim").stdout == "kim\n"


def test_rights_of_root(cell):
    for name, required in (("withpw", True), ("nopw", False)):
        answers = cell.operations(
            ("create_user", {"name": name}),
            ("set_password", {"name": name, "password": PASSWORD}),
            ("configure_sudo", {"name": name, "password_required": required}),
        )
        assert answers == [True, True, True]
    assert cell.run("stat", "-c", "%a", "/etc/sudoers.d/waagent").stdout == "440\n"
    cell.run("visudo", "-c")
    asked = cell.run("su", "withpw", "-c", "sudo -n id -u", check=False)
    assert "password is required" in asked.stderr
    given = cell.run("su", "withpw", "-c", "sudo -S -p '' id -u", data=PASSWORD + "\n")
    assert given.stdout == "0\n"
    assert cell.run("su", "nopw", "-c", "sudo -n id -u").stdout == "0\n"


def test_a_deleted_user_leaves_nothing(cell):
    cell.operations(
        ("create_user", {"name": "bob"}),
        ("create_user", {"name": "bobby"}),
        ("configure_sudo", {"name": "bob", "password_required": False}),
        ("configure_sudo", {"name": "bobby", "password_required": False}),
    )
    for _ in range(2):
        assert cell.operation("delete_user", name="bob") is True
    assert cell.run("getent", "passwd", "bob", check=False).returncode == 2
    assert cell.run("test", "-e", "/home/bob", check=False).returncode == 1
    rights = cell.read("/etc/sudoers.d/waagent")
    assert "bobby ALL" in rights
    assert "bob ALL" not in rights
    assert cell.run("getent", "passwd", "bobby").returncode == 0


def test_the_systems_own_users_are_safe(cell):
    for operation, more in (("delete_user", {}), ("set_password", {"password": "x"})):
        answer = cell.operation(operation, name="daemon", **more)
        assert "daemon is a system user" in answer["error"]
    assert cell.run("getent", "passwd", "daemon").returncode == 0


def test_root_is_locked_out(cell):
    cell.run("chpasswd", data=f"root:{PASSWORD}\n")
    assert logs_in(cell, "root", PASSWORD)
    owner = cell.run("stat", "-c", "%a %U %G", "/etc/shadow").stdout
    assert cell.operation("lock_root_password") is True
    assert not logs_in(cell, "root", PASSWORD)
    assert cell.run("stat", "-c", "%a %U %G", "/etc/shadow").stdout == owner
    assert cell.read("/etc/shadow").startswith("root:*LOCK*:14600::::::\n")
    cell.run("pwck", "-r", "-q", check=False)
    assert logs_in(cell, "root", PASSWORD) is False
