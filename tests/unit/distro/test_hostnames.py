"""The host name: set, told to DHCP clients, published."""

from __future__ import annotations

import pytest

from waagent.errors import NoAnswer
from waagent_distro.steps import hostnames, interfaces


def test_hostnamed_is_asked_where_systemd_runs(machine):
    machine.answer("hostnamectl")
    machine.distro.set_hostname("web1")
    assert machine.commands() == ["hostnamectl set-hostname --static web1"]


def test_without_hostnamed_the_file_and_the_kernel_are_written(machine):
    machine.write("etc/hostname", "old\n")
    machine.write("proc/sys/kernel/hostname", "old\n")
    machine.answer("hostnamectl", (1, "", "Connection timed out\n"))
    machine.distro.set_hostname("web1")
    assert machine.read("etc/hostname") == "web1\n"
    assert machine.read("proc/sys/kernel/hostname") == "web1"
    assert any("Connection timed out; /etc/hostname is written instead" in line for line in machine.lines)


def test_openrc_reads_its_own_file_where_it_has_one(bare):
    bare.write("run/openrc/softlevel", "default")
    bare.write("etc/conf.d/hostname", '# name\nhostname="old"\n')
    bare.become("ID=gentoo\n").distro.set_hostname("web1")
    assert bare.read("etc/conf.d/hostname") == '# name\nhostname="web1"\n'
    assert bare.read("etc/hostname") == "web1\n"
    assert bare.ran == []


@pytest.mark.parametrize("name", ["", "-a", "a" * 65, "a b", 'a";reboot;"', "a\nb", ".a", "a.", "ä"])
def test_what_is_no_name_is_refused(networked, name):
    for operation in ("set_hostname", "set_dhcp_hostname", "publish_hostname"):
        networked.write("etc/dhcp/dhclient.conf", "x\n")
        with pytest.raises(NoAnswer, match="is no host name"):
            getattr(networked.distro, operation)(name)
    assert networked.commands() == []


DHCLIENT = 'timeout 300;\nsend host-name "old";\nrequest subnet-mask;\n'


def test_dhclient_sends_the_new_name(machine):
    machine.write("etc/dhcp/dhclient.conf", DHCLIENT)
    machine.write("etc/dhclient.conf", "x;\n")
    for _ in range(2):
        machine.distro.set_dhcp_hostname("web1")
    assert machine.read("etc/dhcp/dhclient.conf") == 'timeout 300;\nrequest subnet-mask;\nsend host-name "web1";\n'
    assert machine.read("etc/dhclient.conf") == 'x;\nsend host-name "web1";\n'


@pytest.mark.parametrize("line", ['send host-name "<hostname>";', "send host-name = gethostname();"])
def test_dhclient_that_sends_the_systems_name_is_left_alone(machine, line):
    machine.write("etc/dhcp/dhclient.conf", line + "\n")
    machine.write("etc/dhclient.conf", "x;\n")
    machine.distro.set_dhcp_hostname("web1")
    assert machine.read("etc/dhcp/dhclient.conf") == line + "\n"
    assert machine.read("etc/dhclient.conf") == "x;\n"


def test_a_comment_does_not_send(machine):
    assert not hostnames.sends_system_name("#send host-name = gethostname();\n")


def test_publishing_tells_the_client_and_renews(networked):
    networked.write("etc/dhcp/dhclient.conf", DHCLIENT)
    networked.answer("sh")
    assert networked.distro.publish_hostname("web1") is True
    assert 'send host-name "web1";' in networked.read("etc/dhcp/dhclient.conf")
    assert networked.commands() == [f"sh -c {interfaces._BOUNCE} sh eth0"]


def test_publishing_waits_a_minute_for_an_interface(machine):
    with pytest.raises(NoAnswer, match="there is no network interface"):
        machine.distro.publish_hostname("web1")
    assert sum(machine.stopping.slept) == 58
    assert machine.ran == []
