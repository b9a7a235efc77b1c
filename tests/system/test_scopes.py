"""Scopes, services and quotas with the machine's own systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.log import Log, Sinks
from waagent_extensions.commands import Order, Result, Runner
from waagent_scopes import prefixes, units
from waagent_scopes.systemd import Refused, Systemd, find

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="process 1 is not systemd"),
]
HANDLER = "Waagent.Test-Handler"
SLICE = units.slice_of(HANDLER)


class RealAgent:
    def __init__(self) -> None:
        from waagent.paths import Paths

        self.paths = Paths("/")

    def run(self, argv: tuple[str, ...], **options: float) -> object:
        from waagent import commands

        return commands.run(argv, **options)  # type: ignore[arg-type]


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    found = find(RealAgent())  # type: ignore[arg-type]
    assert found is not None
    yield found
    with contextlib.suppress(Refused):
        found.limit(SLICE, None)
    subprocess.run(["systemctl", "stop", SLICE], check=False, timeout=60)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(str(tmp_path / "commands"), Log(Sinks(), "Test"), "boot")


def run(
    runner: Runner, systemd: Systemd, tmp_path: Path, mode: str, line: str, timeout: float = 60.0
) -> tuple[str, Result]:
    unit = units.unit_for("enable")
    if mode == "scope":
        prefix = prefixes.scope(systemd.run, unit, SLICE)
    else:
        prefix = prefixes.service(systemd.run, unit, SLICE, HANDLER, str(tmp_path / "script"))
    order = Order(unit, HANDLER, "1.0", None, "enable", line, str(tmp_path), timeout)
    result = runner.run(order, {"PATH": os.environ["PATH"], "ODD": "it's ${PATH} $$"}, prefix=prefix)
    assert result is not None
    assert not result.launch_problem
    return unit, result


modes = pytest.mark.parametrize("mode", ["scope", "service"])


@modes
def test_a_command_runs_in_its_unit(systemd: Systemd, runner: Runner, tmp_path: Path, mode: str) -> None:
    unit, result = run(runner, systemd, tmp_path, mode, 'cat /proc/self/cgroup; printf %s "$ODD" >odd; exit 7')
    assert result.code == 7
    assert f"/{SLICE}/{unit}.{mode}" in result.out.head
    assert (tmp_path / "odd").read_text() == "it's ${PATH} $$"


@modes
def test_what_it_leaves_running_stays_in_the_slice(systemd: Systemd, runner: Runner, tmp_path: Path, mode: str) -> None:
    run(runner, systemd, tmp_path, mode, "nohup sleep 60 >/dev/null 2>&1 & echo $! >child")
    pid = int((tmp_path / "child").read_text())
    assert SLICE in Path(f"/proc/{pid}/cgroup").read_text()
    os.kill(pid, signal.SIGKILL)


@modes
def test_a_command_out_of_time_is_ended(systemd: Systemd, runner: Runner, tmp_path: Path, mode: str) -> None:
    _, result = run(runner, systemd, tmp_path, mode, "sleep 60", timeout=2.0)
    assert result.timed_out


def test_a_quota_is_set_once_and_taken_back(systemd: Systemd, runner: Runner, tmp_path: Path) -> None:
    run(runner, systemd, tmp_path, "scope", "true")
    assert "CPUQuota=40%" in systemd.limit(SLICE, 40.0)
    assert units.parse_quota(systemd.show(SLICE)["CPUQuotaPerSecUSec"]) == pytest.approx(40.0)
    assert systemd.limit(SLICE, 40.0) == []
    assert systemd.limit(SLICE, None) == ["CPUQuota="]
    assert systemd.show(SLICE)["CPUQuotaPerSecUSec"] == "infinity"


def test_a_quota_set_before_the_first_command_holds_for_it(systemd: Systemd, runner: Runner, tmp_path: Path) -> None:
    assert "CPUQuota=30%" in systemd.limit(SLICE, 30.0)
    line = f"cat $(find /sys/fs/cgroup -path '*/{SLICE}/cpu.max' -o -path '*/{SLICE}/cpu.cfs_quota_us')"
    _, result = run(runner, systemd, tmp_path, "scope", line)
    assert result.out.head.split()[:1] == ["30000"], result.err.head


LOOK = """
import os, time
from waagent import Paths
from waagent_scopes import own
paths = Paths("/")
group = own.find(paths)
print(group.unit, own.strangers(paths, group, os.getpid()), own.throttled(paths, group))
os.system("setsid sleep 30 >/dev/null 2>&1 &")
time.sleep(0.5)
found = own.strangers(paths, group, os.getpid())
print([open(f"/proc/{pid}/comm").read().strip() for pid in found])
"""


def test_a_service_knows_its_group_and_who_else_is_in_it() -> None:
    words = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--unit=waagent-own-test"]
    words += ["--property=CPUAccounting=yes", "--property=CPUQuota=80%", f"--setenv=PYTHONPATH={':'.join(sys.path)}"]
    done = subprocess.run([*words, sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=False)
    first, second = done.stdout.splitlines()
    assert first.startswith("waagent-own-test.service [] "), done.stderr
    assert float(first.rpartition(" ")[2]) >= 0
    assert second == "['sleep']"
