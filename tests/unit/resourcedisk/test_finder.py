"""Which disk it is: recorded trees of every kind of machine (§14.1), and generated ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.resourcedisk.scratch import FAST, GEN1_RESOURCE, GEN1_SYSTEM, GEN2, GEN2_DATA, Tree
from waagent_resourcedisk.finder import LOCAL_MODELS, survey
from waagent_resourcedisk.records import CLAIMED, LINKED, PROVEN, Survey

LINK, CLOUD_LINK = "/dev/disk/azure/resource", "/dev/disk/cloud/azure_resource"
REMOTE, LOCAL = "MSFT NVMe Accelerator v1.0", "Microsoft NVMe Direct Disk v2"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def name_of(found: Survey) -> str:
    assert not found.refusal, found.refusal
    return found.candidate.name if found.candidate is not None else ""


@pytest.mark.parametrize("old", [False, True])
def test_generation_1(tree: Tree, old: bool) -> None:
    tree.controller(GEN1_SYSTEM, (0, "sda"), old=old)
    tree.controller(GEN1_RESOURCE, (0, "sdb"), old=old)
    tree.controller("32412632-86cb-44a2-9b5c-50d1417354f5", (0, "sdc"))
    found = survey(tree.system)
    assert name_of(found) == "sdb"
    assert found.roles == {"sda": "system", "sdb": "resource", "sdc": "data"}
    assert found.candidate is not None
    assert (found.candidate.trust, found.candidate.device) == (PROVEN, f"{tree.root}/dev/sdb")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_generation_2_in_any_order(tree: Tree, order: tuple[int, ...]) -> None:
    names = {0: "sdc", 1: "sda", 2: "sr0"}
    tree.controller(GEN2, *[(lun, names[lun]) for lun in order])
    tree.controller(GEN2_DATA, (0, "sdb"), (1, "sdd"))
    found = survey(tree.system)
    assert name_of(found) == "sda"
    assert found.roles == {"sdc": "system", "sda": "resource", "sdb": "data", "sdd": "data"}


def test_no_temporary_disk(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"))
    tree.controller(GEN2_DATA, (1, "sdb"))
    found = survey(tree.system)
    assert name_of(found) == ""
    assert not found.pending


def test_a_disk_that_may_be_on_its_way(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"))
    tree.write("proc/uptime", "9.5 1.0\n")
    assert survey(tree.system).pending
    late = Tree(tree.root / "late")
    late.controller(GEN1_RESOURCE)
    assert survey(late.system).pending


def test_scsi_and_local_nvme(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    tree.nvme("nvme0", LOCAL, "nvme0n1")
    found = survey(tree.system)
    assert name_of(found) == "sdb"
    assert [one.name for one in found.local] == ["nvme0n1"]


def test_nvme_only(tree: Tree) -> None:
    tree.nvme("nvme0", REMOTE, "nvme0n1", "nvme0n2")
    tree.nvme("nvme1", LOCAL, "nvme1n1")
    tree.nvme("nvme11", "Some Vendor", "nvme11n1")
    found = survey(tree.system)
    assert name_of(found) == ""
    assert found.roles == {"nvme0n1": "data", "nvme0n2": "data", "nvme1n1": "local", "nvme11n1": "data"}


def test_many_disks(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    tree.controller(GEN2_DATA, *[(lun, f"sda{chr(97 + lun)}") for lun in range(26)])
    assert name_of(survey(tree.system)) == "sdb"


def test_links(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    tree.link(LINK, "sdb")
    assert name_of(survey(tree.system)) == "sdb"
    tree.link(CLOUD_LINK, "sda")
    assert "disagree" in survey(tree.system).refusal


@pytest.mark.parametrize("target", ["sda", "sdc"])
def test_a_link_that_contradicts_the_bus(tree: Tree, target: str) -> None:
    tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    tree.disk("sdc")
    tree.link(LINK, target)
    found = survey(tree.system)
    assert found.candidate is None
    assert "neither is touched" in found.refusal


def test_a_link_alone_is_no_proof(tree: Tree) -> None:
    tree.disk("sdx")
    tree.link(LINK, "sdx")
    found = survey(tree.system)
    assert found.candidate is not None
    assert found.candidate.trust == LINKED


def test_a_link_to_a_data_disk_without_a_resource_disk(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"))
    tree.link(LINK, "sda")
    assert "system disk" in survey(tree.system).refusal


def test_two_resource_disks_are_none(tree: Tree) -> None:
    tree.controller(GEN1_RESOURCE, (0, "sdb"))
    tree.controller(GEN2, (1, "sdc"))
    assert "several" in survey(tree.system).refusal


def test_claims(tree: Tree) -> None:
    tree.controller(GEN2, (0, "sda"))
    tree.nvme("nvme0", REMOTE, "nvme0n1")
    tree.nvme("nvme1", LOCAL, "nvme1n1")
    tree.disk("sdx")
    found = survey(tree.system, "/dev/nvme1n1")
    assert found.candidate is not None
    assert (found.candidate.name, found.candidate.trust) == ("nvme1n1", CLAIMED)
    for device in ("/dev/sda", "/dev/nvme0n1", "/dev/sdx", "/dev/gone"):
        refused = survey(tree.system, device)
        assert refused.candidate is None
        assert "is not touched" in refused.refusal


GUIDS = [GEN1_SYSTEM, GEN1_RESOURCE, GEN2, GEN2_DATA, "f8b3781c-1e82-4818-a1c3-63d806ec15bb", "00000001-0002-8899"]


@settings(max_examples=150, deadline=None)
@given(
    controllers=st.lists(st.tuples(st.sampled_from(GUIDS), st.lists(st.integers(0, 4), unique=True)), max_size=4),
    models=st.lists(st.sampled_from([REMOTE, LOCAL, "Some Vendor"]), max_size=3),
    links=st.dictionaries(st.sampled_from([LINK, CLOUD_LINK]), st.integers(0, 12)),
    claim=st.one_of(st.none(), st.integers(0, 12)),
)
def test_no_layout_makes_another_disk_the_resource_disk(
    controllers: list[tuple[str, list[int]]],
    models: list[str],
    links: dict[str, int],
    claim: int | None,
) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as place:
        tree = Tree(Path(place))
        may: set[str] = set()
        names: list[str] = []
        for guid, luns in controllers:
            units = []
            for lun in luns:
                name = f"sd{chr(97 + len(names))}"
                names.append(name)
                units.append((lun, name))
                if guid == GEN1_RESOURCE or (guid == GEN2 and lun == 1):
                    may.add(name)
            tree.controller(guid, *units)
        local = set()
        for number, model in enumerate(models):
            tree.nvme(f"nvme{number}", model, f"nvme{number}n1")
            names.append(f"nvme{number}n1")
            if model in LOCAL_MODELS:
                local.add(f"nvme{number}n1")
        for path, index in links.items():
            if index < len(names):
                tree.link(path, names[index])
        claimed = names[claim] if claim is not None and claim < len(names) else ""
        found = survey(tree.system, f"/dev/{claimed}" if claimed else "")
        if found.candidate is not None:
            one = found.candidate
            assert one.name in may or (one.name in local and one.name == claimed and one.trust == CLAIMED)
            assert one.trust in (PROVEN, CLAIMED)
