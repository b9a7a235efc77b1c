"""Who may become root."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from waagent.errors import NoAnswer

FILE = "etc/sudoers.d/waagent"


@pytest.fixture
def sudo(machine):
    machine.write("etc/sudoers", "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440)
    (machine.root / "etc/sudoers.d").mkdir()
    machine.answer("visudo")
    return machine


def test_one_line_for_each_user_and_no_more(sudo):
    for _ in range(2):
        sudo.distro.configure_sudo("amy", True)
        sudo.distro.configure_sudo("bob", False)
    assert sudo.read(FILE) == "amy ALL=(ALL) ALL\nbob ALL=(ALL) NOPASSWD: ALL\n"
    assert stat.S_IMODE((sudo.root / FILE).stat().st_mode) == 0o440
    assert sudo.read("etc/sudoers") == "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n"


def test_the_latest_word_about_a_user_counts(sudo):
    sudo.distro.configure_sudo("amy", False)
    sudo.distro.configure_sudo("amy", True)
    assert sudo.read(FILE) == "amy ALL=(ALL) ALL\n"


def test_lines_of_others_stay(sudo):
    sudo.write(FILE, "# kept\namy ALL = (ALL) NOPASSWD: /bin/ls\n", 0o440)
    sudo.distro.configure_sudo("amy", True)
    assert sudo.read(FILE) == "# kept\namy ALL = (ALL) NOPASSWD: /bin/ls\namy ALL=(ALL) ALL\n"


def test_what_visudo_refuses_is_not_put_in_place(sudo):
    sudo.write(FILE, "amy ALL=(ALL) ALL\n", 0o440)
    sudo.answer("visudo", (1, "", "syntax error near line 2"))
    with pytest.raises(NoAnswer, match=r"visudo does not accept .*: syntax error near line 2"):
        sudo.distro.configure_sudo("bob", True)
    assert sudo.read(FILE) == "amy ALL=(ALL) ALL\n"
    assert [entry.name for entry in (sudo.root / "etc/sudoers.d").iterdir()] == ["waagent"]


def test_visudo_sees_the_whole_file_before_sudo_does(sudo):
    seen = []

    def visudo(command, _data):
        seen.append((Path(command[-1]).read_text(), "." in Path(command[-1]).name))
        return 0

    sudo.answer("visudo", visudo)
    sudo.distro.configure_sudo("amy", True)
    assert seen == [("amy ALL=(ALL) ALL\n", True)]


def test_a_missing_directory_is_made_and_included_once(bare):
    bare.write("etc/waagent.conf", "OS.SudoersDir=/usr/local/etc/sudoers.d\n")
    bare.write("usr/local/etc/sudoers", "root ALL=(ALL) ALL", 0o440)
    bare.become("ID=acmeos\n").answer("visudo")
    bare.distro.configure_sudo("amy", True)
    bare.distro.configure_sudo("bob", True)
    assert bare.read("usr/local/etc/sudoers") == "root ALL=(ALL) ALL\n#includedir /usr/local/etc/sudoers.d\n"
    assert bare.read("usr/local/etc/sudoers.d/waagent").startswith("amy ALL")


def test_without_sudo_the_right_is_written_for_later(machine):
    machine.distro.configure_sudo("amy", False)
    assert machine.read(FILE) == "amy ALL=(ALL) NOPASSWD: ALL\n"
    assert not (machine.root / "etc/sudoers").exists()
