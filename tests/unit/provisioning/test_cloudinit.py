"""Waiting for cloud-init with one budget, on a clock of the test's own (provisioning §13; §29.7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.provisioning.bench import Bench, document
from waagent.commands import Completed
from waagent_provisioning.cloudinit import Waits
from waagent_provisioning.errors import ProvisioningError

KEY = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB host\n"


class Time:
    """A clock that only sleeping moves, and what happens at which second."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.at: dict[float, object] = {}
        self.sleeps: list[float] = []
        self.stop_at = float("inf")

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.sleeps.append(seconds)
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now - 5000.0]:
            self.at.pop(moment)()  # type: ignore[operator]
        return self.now - 5000.0 >= self.stop_at


class World:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.time = Time()
        self.waits = Waits(bench.agent, self.time.clock, self.time.sleep)
        self.document = bench.lib("ovf-env.xml")
        self.ssh = bench.root / "etc/ssh"
        self.ssh.mkdir()

    def later(self, second: float, path: Path, text: str = "x") -> None:
        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        self.time.at[second] = write

    @property
    def seconds(self) -> float:
        return self.time.now - 5000.0


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def test_what_is_there_is_not_waited_for(world: World) -> None:
    """§29.7: ovf at t=0."""
    world.document.write_text("x")
    assert world.waits.for_document(str(world.document))
    assert world.time.sleeps == []
    assert "Waiting" not in world.bench.log


def test_the_document_at_the_last_second(world: World) -> None:
    """§29.7: ovf at t=1799, found by the last look (every five seconds by then)."""
    world.later(1799, world.document)
    assert world.waits.for_document(str(world.document))
    assert world.seconds == 1800


def test_once_a_second_at_first_and_then_every_five(world: World) -> None:
    world.later(100, world.document)
    world.waits.for_document(str(world.document))
    assert world.time.sleeps[:60] == [1.0] * 60
    assert set(world.time.sleeps[60:]) == {5.0}


def test_the_document_never_comes(world: World) -> None:
    """§29.7: never."""
    with pytest.raises(ProvisioningError, match=r"Giving up, ovf-env.xml was not copied to .* after 1800s"):
        world.waits.for_document(str(world.document))
    assert world.seconds == pytest.approx(1800, abs=5)


def test_both_waits_share_one_budget(world: World) -> None:
    world.later(1000, world.document)
    world.waits.for_document(str(world.document))
    with pytest.raises(ProvisioningError, match=r"ssh host key was not found at .*ssh_host_rsa_key.pub after 1800s"):
        world.waits.for_host_key()
    assert world.seconds == pytest.approx(1800, abs=5)


def test_a_host_key_that_cannot_be_read_yet_is_waited_for(world: World) -> None:
    path = world.ssh / "ssh_host_rsa_key.pub"
    path.write_text("")
    world.later(30, path, KEY)
    assert world.waits.for_host_key() == str(path)
    assert world.seconds == 30


def test_another_kind_of_key_will_do_once_cloud_init_has_finished(world: World) -> None:
    other = world.ssh / "ssh_host_ed25519_key.pub"
    other.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1 host\n")
    world.later(40, world.bench.root / "run/cloud-init/result.json", "{}")
    assert world.waits.for_host_key() == str(other)
    assert world.seconds == 40
    assert str(other) in world.bench.log


def test_people_hear_of_a_wait_now_and_then(world: World) -> None:
    with pytest.raises(ProvisioningError):
        world.waits.for_document(str(world.document))
    lines = [line for line in world.bench.log.splitlines() if "Waiting for cloud-init to copy ovf-env.xml" in line]
    assert 8 <= len(lines) <= 11  # at 0, 10, 30, 70, 150, 310, 630 s, and every 320 s from there
    assert world.bench.log.count("cloud-init is not enabled, and yet it is waited for") == len(lines)


class RealRoot:
    """What the waits use of an agent on the real root, where cloud-init itself can be asked."""

    is_real = True

    def __init__(self, bench: Bench, says: str, after: int = 0) -> None:
        self.config, self.log, self.stopping = bench.agent.config, bench.agent.log, bench.agent.stopping
        self.root, self.says, self.silent = bench.root, says, after
        self.paths = self
        self.asked = 0

    def at(self, path: str) -> str:
        return str(self.root) + path

    def run(self, argv: tuple[str, ...], timeout: float = 0) -> Completed:
        if argv != ("cloud-init", "status"):
            return Completed(argv, 0, "enabled\n", "")
        assert timeout == 10
        self.asked += 1
        return Completed(argv, 1, f"status: {self.says if self.asked > self.silent else 'running'}\n", "")


@pytest.mark.parametrize("word", ["error", "disabled"])
@pytest.mark.parametrize(("after", "second"), [(0, 0), (1, 10), (3, 70)])
def test_cloud_inits_own_bad_news_end_the_wait(bench: Bench, word: str, after: int, second: float) -> None:
    """§13: named as the reason; it is asked whenever people hear of the wait."""
    time = Time()
    waits = Waits(RealRoot(bench, word, after), time.clock, time.sleep)  # type: ignore[arg-type]
    with pytest.raises(
        ProvisioningError, match=rf"ovf-env.xml was not copied to .*: cloud-init reports status: {word}"
    ):
        waits.for_document(str(bench.lib("ovf-env.xml")))
    assert time.now - 5000 == second


@pytest.mark.parametrize("says", ["running", "done", "not run", "degraded done"])
def test_other_news_of_cloud_init_do_not(bench: Bench, says: str) -> None:
    time = Time()
    time.at[65] = lambda: bench.lib("ovf-env.xml").write_text("x")
    waits = Waits(RealRoot(bench, says), time.clock, time.sleep)  # type: ignore[arg-type]
    assert waits.for_document(str(bench.lib("ovf-env.xml")))


def test_a_stop_of_the_service_is_no_failure(world: World) -> None:
    world.time.stop_at = 17
    assert world.waits.for_document(str(world.document)) is False
    assert world.seconds == 17


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"init-local": {"start": 1.0, "finished": 9.5, "errors": []}, "init": {"finished": None}}, ["Ready"]),
        ({"init-local": {"start": 1.0, "finished": None, "errors": []}}, ["NotReady", "Ready"]),
        ({"init-local": {"start": 1.0, "finished": 9.5, "errors": ["no medium"]}}, ["NotReady", "Ready"]),
        (None, ["NotReady", "Ready"]),
    ],
)
def test_what_cloud_init_reported_in_its_first_stage_is_not_taken_back(
    tmp_path: Path, stages: dict[str, object] | None, said: list[str]
) -> None:
    bench = Bench(tmp_path, "Provisioning.Agent=cloud-init\n")
    bench.lib("ovf-env.xml").write_bytes(document())
    (tmp_path / "etc/ssh").mkdir(parents=True, exist_ok=True)
    (tmp_path / "etc/ssh/ssh_host_rsa_key.pub").write_text(KEY)
    place = tmp_path / "run/cloud-init/status.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"v1": stages}) if stages is not None else "{")
    bench.boot()
    assert [state for state, _substatus, _text in bench.listener.said] == said
