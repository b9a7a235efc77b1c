"""What is removed, and warned of, on each distribution (provisioning §18.3, §18.4, §29 item 8; distro §4.9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.deprovision.image import OVF
from tests.unit.distro.conftest import Machine
from tests.unit.distro.test_rows import ROWS
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.journal import Journal
from waagent.plan import Executor
from waagent_deprovision import command, plugin
from waagent_deprovision.removal import Removal

RELEASES = {name: row[0] for name, row in ROWS.items()} | {"coreos": "ID=coreos"}
STEPS = [
    "note", "service", "host keys", "leases", "host name", "root password", "resolver", "user ops", "state directory",
    "logs", "network units", "service drop-ins",
]  # fmt: skip
WARNINGS = [
    "The waagent service will be stopped.",
    "All SSH host key pairs will be deleted.",
    "Cached DHCP leases will be deleted.",
    "root password will be disabled. You will not be able to login as root.",
    "{resolver} will be deleted.",
    "ops account and entire home directory will be deleted.",
]


class Image(Machine):
    """A provisioned machine of some distribution, as the command sees it."""

    @property
    def config(self) -> Config:
        config = Config(read_chain(str(self.root)))
        config.declare("deprovision", [plugin.declare_options()])
        return config

    def steps(self, user: bool = True) -> tuple[list[str], list[str], list[str]]:
        """Return the names of the steps of a dry run, their warnings, and what is said of them."""
        executor = Executor(Journal(self.paths.lib("journal/test.jsonl")), self.log)
        steps = executor.dry_run(Removal(self, user).plan())  # type: ignore[arg-type]
        return [step.name for step in steps], command.warnings(steps), [step.summary for step in steps]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    image = Image(tmp_path)
    image.write("etc/waagent.conf", "Provisioning.DeleteRootPassword=y\n")
    image.write("etc/resolv.conf", "nameserver 168.63.129.16\n")
    image.write("var/lib/waagent/ovf-env.xml", OVF.format(user="ops"))
    return image


@pytest.mark.parametrize("name", RELEASES)
def test_the_dry_list_of_a_distribution(image: Image, name: str) -> None:
    image.become(RELEASES[name] + "\n")
    before = sorted(image.root.rglob("*"))
    steps, warnings, summaries = image.steps()
    expected = [line.format(resolver=image.at("/etc/resolv.conf")) for line in WARNINGS]
    wanted = list(STEPS)
    if name == "ubuntu":
        wanted.remove("resolver")
        expected[4] = f"{image.at('/etc/resolv.conf')} will not be deleted."
    if name in ("arch", "flatcar", "coreos"):
        wanted.append("machine id")
        expected.append("/etc/machine-id will be removed.")
    assert steps == wanted
    assert warnings == expected
    assert summaries[1] == f"stop the {image.distro.service_name()} service"
    assert sorted(image.root.rglob("*")) == before
    asked = [line.split()[0] for line in image.commands()]
    assert asked in ([], ["dpkg-query", "rpm", "pacman", "apk"]), "nobody is asked but who owns the resolver's file"


@pytest.mark.parametrize("name", RELEASES)
def test_a_link_is_kept_everywhere(image: Image, name: str) -> None:
    (image.root / "etc/resolv.conf").unlink()
    (image.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    image.become(RELEASES[name] + "\n")
    steps, warnings, _ = image.steps()
    assert "resolver" not in steps
    assert f"{image.at('/etc/resolv.conf')} will not be deleted." in warnings


def test_a_file_of_a_package_is_kept(image: Image) -> None:
    image.answer("pacman -Qo", "/etc/resolv.conf is owned by filesystem 2024.11.21-1\n")
    image.become("ID=arch\n")
    steps, warnings, _ = image.steps()
    assert "resolver" not in steps
    assert f"{image.at('/etc/resolv.conf')} will not be deleted." in warnings


def test_without_a_resolver_file_nothing_is_said_of_it(image: Image) -> None:
    (image.root / "etc/resolv.conf").unlink()
    image.become("ID=debian\n")
    steps, warnings, _ = image.steps(user=False)
    assert "resolver" not in steps
    assert warnings == WARNINGS[:4]
