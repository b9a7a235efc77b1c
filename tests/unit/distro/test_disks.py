"""Timeouts of SCSI disks (spec/provisioning.md §22.3)."""

from __future__ import annotations

import pytest

from waagent.errors import NoAnswer


def test_timeouts_of_scsi_disks(machine):
    for name, old in (("sda", "30\n"), ("sdb", "300\n"), ("nvme0n1", "30\n"), ("sdaa", "1\n")):
        machine.write(f"sys/block/{name}/device/timeout", old)
    assert machine.distro.set_scsi_timeout(300) is True
    values = {name: machine.read(f"sys/block/{name}/device/timeout") for name in ("sda", "sdb", "nvme0n1", "sdaa")}
    assert values == {"sda": "300", "sdb": "300\n", "nvme0n1": "30\n", "sdaa": "300"}
    for seconds in (0, 86401):
        with pytest.raises(NoAnswer, match="is no timeout for disks"):
            machine.distro.set_scsi_timeout(seconds)
