"""Every captured document of the platform is read by some test; and the one that no other module reads (§26)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from waagent.platform.telemetrydoc import parse_legacy_event
from waagent_telemetry import eventfile

TESTS = Path(__file__).resolve().parents[2]
NO_DOCUMENTS = {"LICENSE.txt", "NOTICE"}
HERE = "1478123456789000.tld"
PATTERNS = {"ext_conf_no_extensions-block_blob.xml": "wire/ext_conf_no_extensions-{name}.xml"}
"""Names that tests put together."""


def test_each_is_read(fixtures: Path) -> None:
    others = (path for path in TESTS.rglob("*.py") if path != Path(__file__))
    sources = "\n".join([HERE, *(path.read_text() for path in others)])
    names = sorted(path.name for path in fixtures.rglob("*") if path.is_file() and path.name not in NO_DOCUMENTS)
    assert len(names) > 30
    assert [name for name in names if PATTERNS.get(name, name) not in sources] == []


def test_an_event_of_an_older_agent(captured: Callable[[str], bytes]) -> None:
    data = captured(f"events/{HERE}")
    event = eventfile.parse(data, 1478123456.789, own=False, parse_xml=parse_legacy_event, version="3.0.0.0")
    assert (event.provider, event.id) == ("69B669B9-4AF8-4C50-BDC4-6006FA76E975", 1)
    assert dict(event.parameters) == {
        "Name": "Test Event",
        "Version": "2.2.0",
        "Operation": "Some Operation",
        "OperationSuccess": True,
        "Message": "",
        "Duration": 0,
        "ExtensionType": "",
        "IsInternal": False,
        "GAVersion": "WALinuxAgent-3.0.0.0",
        "OpcodeName": "2016-11-02T21:50:56.789000Z",
    }
