from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from waagent.service.notify import Notifier


def test_one_datagram_with_all_lines(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        assert notifier.send("READY=1", "STATUS=two\nlines")
        assert manager.recv(100) == b"READY=1\nSTATUS=two lines"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_abstract_address() -> None:
    name = f"waagent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert Notifier("@" + name).status("well")
        assert manager.recv(100) == b"STATUS=well"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    assert not Notifier(None).send("READY=1")
    assert not Notifier(str(tmp_path / "nobody")).send("READY=1")


def test_the_managers_variables_are_taken_away() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/root"}
    assert Notifier.from_environment(environ).watchdog_period == 1.5
    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "junk"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
)
def test_a_watchdog_that_is_not_for_us(environ: dict[str, str]) -> None:
    assert Notifier.from_environment(dict(environ)).watchdog_period is None
