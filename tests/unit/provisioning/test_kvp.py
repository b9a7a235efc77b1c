"""The record in the host's key-value pool."""

from __future__ import annotations

import csv
import fcntl
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent import Paths, report_to_pool
from waagent.platform import kvp
from waagent.platform.kvp import POOL, provisioning_report


def records(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    assert len(data) % 2560 == 0
    pieces = [data[at : at + 2560] for at in range(0, len(data), 2560)]
    return {piece[:512].rstrip(b"\0").decode(): piece[512:].rstrip(b"\0").decode() for piece in pieces}


def test_a_record_follows_others_and_replaces_its_own(tmp_path: Path) -> None:
    pool = tmp_path / POOL[1:]
    pool.parent.mkdir(parents=True)
    pool.write_bytes(b"Other".ljust(512, b"\0") + b"value".ljust(2048, b"\0"))
    paths = Paths(str(tmp_path))
    assert report_to_pool(paths, "error", {"reason": "why"})
    assert records(pool) == {"Other": "value", "PROVISIONING_REPORT": "result=error|reason=why"}
    assert report_to_pool(paths, "success", {"agent": "A/1"})
    assert records(pool) == {"Other": "value", "PROVISIONING_REPORT": "result=success|agent=A/1"}


def test_without_a_pool_nothing_is_made(tmp_path: Path) -> None:
    assert report_to_pool(Paths(str(tmp_path)), "error", {"reason": "why"}) is False
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(max_codepoint=0xD7FF), max_size=4000))
def test_the_value_is_one_line_of_bounded_size_that_can_be_read_again(reason: str) -> None:
    value = provisioning_report("error", {"reason": reason, "agent": "WALinuxAgent/3.0.0.0"})
    assert len(value.encode()) <= 1022
    assert "\n" not in value
    fields = next(csv.reader(io.StringIO(value), delimiter="|", quotechar="'"))
    assert (fields[0], fields[2]) == ("result=error", "agent=WALinuxAgent/3.0.0.0")


def test_whoever_keeps_the_pool_locked_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tmp_path / POOL[1:]
    pool.parent.mkdir(parents=True)
    pool.write_bytes(b"")
    pauses: list[float] = []
    monkeypatch.setattr(kvp.time, "sleep", pauses.append)
    with open(pool, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            report_to_pool(Paths(str(tmp_path)), "error", {"reason": "why"})
        assert sum(pauses) < 10
        monkeypatch.setattr(kvp.time, "sleep", lambda _seconds: fcntl.flock(holder, fcntl.LOCK_UN))
        assert report_to_pool(Paths(str(tmp_path)), "error", {"reason": "why"})


def test_a_link_in_the_place_of_the_pool_is_not_followed(tmp_path: Path) -> None:
    pool = tmp_path / POOL[1:]
    pool.parent.mkdir(parents=True)
    (tmp_path / "else").write_bytes(b"")
    pool.symlink_to(tmp_path / "else")
    with pytest.raises(OSError, match=r"symbolic link|loop|levels"):
        report_to_pool(Paths(str(tmp_path)), "error", {"reason": "why"})
    assert (tmp_path / "else").read_bytes() == b""
