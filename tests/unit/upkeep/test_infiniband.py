"""Addresses of InfiniBand cards (provisioning §21)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.upkeep.machine import Machine
from waagent import AgentError
from waagent.commands import Completed
from waagent_upkeep import rdma
from waagent_upkeep.infiniband import POOL, Cards, parse_pairs, parse_pool, short_address

LONG = "20:00:09:28:fe:80:00:00:00:00:00:00:00:15:5d:ff:fe:33:ff:16"


def pool(**pairs: str) -> bytes:
    return b"".join(
        name.encode().ljust(512, b"\0") + value.encode().ljust(2048, b"\0") for name, value in pairs.items()
    )


class Cluster(Machine):
    """A machine of an HPC size."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failing: dict[str, int] = {}

    def run(self, argv: tuple[str, ...], **_: Any) -> Completed:
        self.commands.append(argv)
        code = self.failing.get(argv[2], 0)
        done = Completed(argv, code, "", "")
        if code and _.get("check"):
            raise AgentError(done.describe())
        return done

    def card(self, name: str, address: str = LONG) -> None:
        self.write(f"/sys/class/net/{name}/address", address + "\n")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "root")


def test_the_card_that_the_host_names_gets_its_address(cluster: Cluster) -> None:
    cluster.write(POOL, pool(Other="x", IPoIB_Data="NUMPAIRS:1|00155D33FF16:172.16.1.5"))
    cluster.card("ib0")
    cluster.card("ib1", LONG[:-2] + "17")
    cluster.write("/sys/class/net/eth0/address", "00:15:5d:33:ff:16\n")
    assert cluster.executor.run(Cards(cluster).plan()).ok
    assert cluster.commands == [
        ("ip", "link", "set", "ib0", "up"),
        ("ip", "addr", "add", "172.16.1.5/16", "dev", "ib0"),
    ]


def test_an_address_that_is_there_is_no_failure(cluster: Cluster) -> None:
    cluster.write(POOL, pool(IPoIB_Data="NUMPAIRS:1|00155D33FF16:172.16.1.5"))
    cluster.card("ib0")
    cluster.failing["add"] = 2
    result = cluster.executor.run(Cards(cluster).plan())
    assert [step.ok for step in result.steps] == [True]


def test_cards_that_come_late_are_waited_for(cluster: Cluster) -> None:
    cluster.write(POOL, pool(IPoIB_Data="NUMPAIRS:1|00155D33FF16:172.16.1.5"))
    timer = threading.Timer(0.2, lambda: cluster.card("ib0"))
    timer.daemon = True
    timer.start()
    result = cluster.executor.run(Cards(cluster).plan())
    timer.join()
    assert [step.name for step in result.steps if step.ok] == ["wait for cards", "ib0 172.16.1.5"]


def test_cards_that_never_come(cluster: Cluster) -> None:
    cluster.write(POOL, pool(IPoIB_Data="NUMPAIRS:2|00155D33FF16:172.16.1.5|00155D33FF17:172.16.1.6"))
    cluster.card("ib0")
    cluster.stopping.set()  # nobody has a minute here
    result = cluster.executor.run(Cards(cluster, tries=1).plan())
    assert {step.name: step.ok for step in result.steps} == {"wait for cards": False, "ib0 172.16.1.5": True}


def test_an_older_host_names_the_address_in_its_configuration(cluster: Cluster) -> None:
    cluster.write("/var/lib/waagent/SharedConfig.xml", '<Instance id="x" rdmaIPv4Address="172.16.2.3" />')
    cluster.card("ib0")
    cluster.executor.run(Cards(cluster).plan())
    assert cluster.commands[-1] == ("ip", "addr", "add", "172.16.2.3/16", "dev", "ib0")


def test_network_direct_is_said_to_be_left_out(cluster: Cluster) -> None:
    cluster.write(POOL, pool(NdDriverVersion="150"))
    assert cluster.names(Cards(cluster).plan()) == []
    assert cluster.logged("WARNING", "Network Direct")


@pytest.mark.parametrize(
    "text", ["", "|", "NUMPAIRS:2|00155D33FF16:172.16.1.5", "NUMPAIRS:1|00155D33FF16:172.16.1.555", "x:1|a:b"]
)
def test_pairs_that_cannot_be_right(text: str) -> None:
    with pytest.raises(AgentError, match="IPoIB_Data"):
        parse_pairs(text)


@given(st.binary(max_size=6000))
def test_any_pool_can_be_read(data: bytes) -> None:
    parse_pool(data)


def test_a_cards_address_as_the_host_writes_it() -> None:
    assert short_address(LONG) == "00155D33FF16"
    assert short_address("") == ""


@pytest.mark.parametrize(
    ("conf", "on"),
    [("", False), ("OS.EnableRDMA=y\n", True), ("OS.UpdateRdmaDriver=y\n", True), ("OS.CheckRdmaDriver=y\n", True)],
)
def test_it_is_off_unless_asked_for(cluster: Cluster, conf: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.configure(conf)
    assert rdma.on_boot(cluster) is None, "commands would act on the machine, whatever the root"
    monkeypatch.setattr(type(cluster.paths), "is_real", True)
    plan = rdma.on_boot(cluster)
    assert (plan is not None) == on
    if plan is not None:
        assert plan.phase == "background", "nobody waits for cards"
    assert bool(cluster.logged("no driver is installed")) == ("Update" in conf)
