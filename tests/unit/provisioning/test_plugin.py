"""The plugin's hooks and its command: who begins, who does not, and what people read (cli §6; provisioning §12)."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.unit.provisioning.bench import KEY, VM_ID, Bench, document
from waagent_provisioning import command
from waagent_provisioning.flow import Flow
from waagent_provisioning.lock import Lock
from waagent_provisioning.plugin import ProvisioningPlugin
from waagent_provisioning.progress import Owed

WITH_KEY = (
    "<wa:SSH><wa:PublicKeys><wa:PublicKey><wa:Path>$HOME/ops/.ssh/authorized_keys</wa:Path>"
    f"<wa:Value>{KEY}</wa:Value></wa:PublicKey></wa:PublicKeys></wa:SSH>"
)


def provision(bench: Bench, dry_run: bool = False) -> int:
    agent = bench.start()
    try:
        return command.run(agent, argparse.Namespace(dry_run=dry_run))
    finally:
        agent.executor.journal.close()


def begins(bench: Bench) -> bool:
    plugin = ProvisioningPlugin()
    plans = plugin.on_boot(bench.start())
    if plugin._lock is not None:
        plugin._lock.release()  # as the end of the process does
    return bool(plans)


def test_the_service_begins_where_something_is_missing(bench: Bench) -> None:
    assert begins(bench)
    bench.lib("provisioned").write_text(VM_ID)
    assert not begins(bench)
    Owed(bench.agent).owe("Ready")
    assert begins(bench)
    Owed(bench.agent).settled("boot")
    assert not begins(bench)
    Flow(bench.agent).progress.mark("user")  # killed between the marker and the end
    assert begins(bench)


def test_a_marker_without_an_id_is_completed(bench: Bench) -> None:
    bench.lib("provisioned").write_text("")
    assert begins(bench)


def test_two_never_provision_at_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.insert(document(inside=WITH_KEY))
    other = Lock(bench.agent)
    assert other.acquire()
    assert not begins(bench)
    assert "Somebody is running `waagent provision`" in bench.log
    assert provision(bench) == 1
    assert "The service is provisioning this machine right now" in capsys.readouterr().out
    assert not (bench.root / "etc/passwd").exists()
    assert provision(bench, dry_run=True) == 0  # looking is allowed
    other.release()
    assert provision(bench) == 0
    assert bench.lib("provisioned").read_text() == VM_ID


def test_a_failure_by_hand(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.insert(document(user="o;rm", inside=WITH_KEY))
    assert provision(bench) == 1
    said = capsys.readouterr().out
    assert "medium           failed: " in said
    assert "Failed to validate OVF: UserName: expected a letter or _" in said
    assert bench.listener.said[-1][:2] == ("NotReady", "ProvisioningFailed")


def test_a_dry_run_says_what_would_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path, "Provisioning.Agent=waagent\n")
    (tmp_path / "run/cloud-init").mkdir()
    (tmp_path / "run/cloud-init/enabled").write_text("")
    assert provision(bench, dry_run=True) == 1
    assert capsys.readouterr().out.startswith("This would fail: cloud-init is enabled and unexpected")
    assert bench.listener.said == []
    assert not bench.lib("state/provisioning.json").exists()
