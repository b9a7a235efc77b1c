"""The rules around the platform's endpoint, in both tools, now and at the next boot (spec/distro.md §5.6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from waagent.errors import NoAnswer

ENDPOINT = "168.63.129.16"
DNS = f"-A OUTPUT -d {ENDPOINT}/32 -p tcp -m tcp --dport 53 -j ACCEPT"
OWNER = f"-A OUTPUT -d {ENDPOINT}/32 -p tcp -m owner --uid-owner 0 -j ACCEPT"
DROP = f"-A OUTPUT -d {ENDPOINT}/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP"
LEGACY = DROP.replace("DROP", "ACCEPT")
FOREIGN = f"-A OUTPUT -d {ENDPOINT}/32 -p tcp -m tcp --dport 8080 -j LOG"
OTHER_UID = OWNER.replace("owner 0", "owner 1000")


@pytest.fixture
def chain(machine):
    """A machine with iptables; ``machine.chain`` is what stands in its chain."""
    machine.chain = []
    machine.answer("iptables --version", "iptables v1.8.9 (nf_tables)\n")
    machine.answer(
        "iptables -w -t security -S OUTPUT", lambda _c, _d: "\n".join(["-P OUTPUT ACCEPT", *machine.chain, ""])
    )

    def restore(_command, data):
        lines = data.decode().splitlines()
        assert lines[0] == "*security"
        assert lines[-1] == "COMMIT"
        for line in lines[1:-1]:
            if line.startswith("-D"):
                machine.chain.remove("-A" + line[2:])
            else:
                machine.chain.append(line)
        return 0

    machine.answer("iptables-restore -w -n", restore)
    return machine


@pytest.mark.parametrize(
    ("rules", "state"),
    [
        ([], "absent"),
        ([FOREIGN], "absent"),
        ([DNS, OWNER, DROP], "present"),
        ([FOREIGN, DNS, OWNER, DROP], "present"),
        ([DNS, OWNER, DROP.replace("INVALID,NEW", "NEW,INVALID")], "present"),
        ([DNS, OWNER], "rules are missing: everybody else"),
        ([OWNER, DROP], "rules are missing: name service"),
        ([DNS, OTHER_UID, DROP], "rules are missing: agent"),
        ([OWNER, DNS, DROP], "the rules are repeated or out of order"),
        ([DNS, OWNER, DROP, DROP], "the rules are repeated or out of order"),
        ([LEGACY, DNS, OWNER, DROP], "there is a rule of an agent before 2.2.26"),
    ],
)
def test_the_state_is_told_and_mended_in_one_transaction(chain, rules, state):
    chain.chain = list(rules)
    assert chain.distro.read_firewall(ENDPOINT, 0) == state
    chain.distro.set_firewall(ENDPOINT, 0)
    assert chain.distro.read_firewall(ENDPOINT, 0) == "present"
    assert [line for line in chain.chain if line in (FOREIGN, OTHER_UID)] == [
        line for line in rules if line in (FOREIGN, OTHER_UID)
    ]
    assert sum(command[0] == "iptables-restore" for command in chain.ran) == 1
    chain.distro.remove_firewall(ENDPOINT, 0)
    assert chain.chain == [line for line in rules if line in (FOREIGN, OTHER_UID)]


def test_rules_for_another_address_are_not_ours(chain):
    chain.chain = [line.replace(ENDPOINT, "168.63.129.1") for line in (DNS, OWNER, DROP)]
    assert chain.distro.read_firewall(ENDPOINT, 0) == "absent"


def test_a_tool_that_fails_is_not_taken_for_absent_rules(chain):
    chain.answer("iptables -w -t security", (4, "", "iptables: can't initialize table `security'\n"))
    with pytest.raises(NoAnswer, match=r"rules cannot be read.*can't initialize"):
        chain.distro.read_firewall(ENDPOINT, 0)


def test_without_any_tool_that_is_said(machine):
    with pytest.raises(NoAnswer, match="neither iptables nor nft is installed"):
        machine.distro.set_firewall(ENDPOINT, 0)


LISTING = """table ip walinuxagent {
	chain output {
		type filter hook output priority filter; policy accept;
		ip daddr 168.63.129.16 tcp dport != 53 meta skuid != 0 ct state invalid,new counter packets 7 bytes 420 drop
	}
}
"""


@pytest.mark.parametrize(
    ("listing", "state"),
    [
        (LISTING, "present"),
        (LISTING.replace("priority filter", "priority 0").replace("invalid,new", "0x1,0x8"), "present"),
        (LISTING.replace("skuid != 0", "skuid != 1000"), "the table walinuxagent of nft holds other rules"),
        (LISTING.replace("drop", "accept"), "the table walinuxagent of nft holds other rules"),
        (LISTING.replace("168.63.129.16", "168.63.129.17"), "the table walinuxagent of nft holds other rules"),
        (1, "absent"),
    ],
)
def test_the_state_in_nft(machine, listing, state):
    machine.answer("nft --version", "nftables v1.0.6\n")
    machine.answer("nft -n list table ip walinuxagent", listing)
    assert machine.distro.read_firewall(ENDPOINT, 0) == state


def test_nft_replaces_the_table_in_one_transaction(machine):
    machine.answer("nft")
    machine.distro.set_firewall(ENDPOINT, 0)
    assert machine.commands() == ["iptables --version", "nft --version", "nft -f -"]
    script = machine.inputs[-1].decode()
    assert script.index("add table") < script.index("delete table") < script.index("chain output")
    machine.distro.remove_firewall(ENDPOINT, 0)
    assert machine.commands()[-1] == "nft delete table ip walinuxagent"


def test_a_unit_without_python_sets_the_rules_before_the_network(chain):
    for _ in range(2):
        chain.distro.persist_firewall(ENDPOINT, 0)
    unit = chain.read("etc/systemd/system/waagent-firewall.service")
    rules = chain.paths.lib("waagent-firewall.rules")
    assert f"ExecStart=iptables-restore -w -n {rules}\n" in unit
    for line in ("Before=network-pre.target shutdown.target", "DefaultDependencies=no", "After=local-fs.target"):
        assert line in unit.splitlines()
    assert Path(rules).read_text() == "\n".join(["*security", DNS, OWNER, DROP, "COMMIT", ""])
    lines = [line for line in chain.commands() if line.startswith("systemctl")]
    assert lines == ["systemctl daemon-reload"] + ["systemctl enable waagent-firewall.service"] * 2
    chain.distro.remove_firewall(ENDPOINT, 0)
    assert "systemctl disable waagent-firewall.service" in chain.commands()
    assert not (chain.root / "etc/systemd/system/waagent-firewall.service").exists()
    assert list((chain.root / "var/lib/waagent").iterdir()) == []


def test_the_unit_speaks_nft_where_there_is_no_iptables(machine):
    machine.answer("nft")
    machine.distro.persist_firewall(ENDPOINT, 0)
    rules = machine.paths.lib("waagent-firewall.rules")
    assert f"ExecStart=nft -f {rules}\n" in machine.read("etc/systemd/system/waagent-firewall.service")


def test_firewalld_keeps_the_rules_where_it_runs(chain):
    known = set()

    def firewalld(command, _data):
        rule = command[4:]
        if "--query-passthrough" in command:
            return int(rule not in known)
        (known.add if "--passthrough" in command else known.discard)(rule)
        return 0

    chain.answer("firewall-cmd", firewalld)
    chain.answer("firewall-cmd --state", "running\n")
    chain.distro.persist_firewall(ENDPOINT, 0)
    chain.distro.persist_firewall(ENDPOINT, 0)
    assert sorted(" ".join(rule) for rule in known) == sorted(f"ipv4 -t security {rule}" for rule in (DNS, OWNER, DROP))
    assert sum("--passthrough" in command for command in chain.ran) == 3
    assert not (chain.root / "etc/systemd").exists()
    chain.distro.remove_firewall(ENDPOINT, 0)
    assert known == set()


def test_without_systemd_the_agent_sets_them_at_its_start(bare):
    bare.answer("iptables --version")
    assert bare.become("ID=alpine\n").distro.persist_firewall(ENDPOINT, 0) is True
    assert bare.commands() == ["firewall-cmd --state"]
