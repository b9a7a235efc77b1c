"""Recorded goal states: both documents, as captured, as the history keeps them, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from waagent import ProtocolError, StateError, load_goal_state
from waagent.platform.savedtext import redact_extensions_config, redact_vm_settings

XML = """<Extensions version="1.0.0.0">
  <GAFamily><Name>Prod</Name><Uris><Uri>https://a.example/agents.xml?sv=1&amp;sig=c2VjcmV0</Uri></Uris></GAFamily>
  <Plugins><Plugin name="Contoso.Sample" version="1.4.2" state="enabled" location="https://a.example/m.xml"/></Plugins>
  <PluginSettings><Plugin name="Contoso.Sample" version="1.4.2"><RuntimeSettings seqNo="3">
  {"runtimeSettings":[{"handlerSettings":{"publicSettings":{"k":"v"},"protectedSettings":"c2VjcmV0IG9mIGEgdGVzdA==",
  "protectedSettingsCertThumbprint":"0123456789ABCDEF0123456789ABCDEF01234567"}}]}</RuntimeSettings></Plugin>
  </PluginSettings></Extensions>"""


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n  "])
def test_a_document_of_the_history_is_read_with_its_incarnation(tmp_path: Path, start: bytes) -> None:
    directory = tmp_path / "2026-02-03T04-05-06__17"
    directory.mkdir()
    path = directory / "ExtensionsConfig.xml"
    path.write_bytes(start + redact_extensions_config(XML).encode())
    found = load_goal_state(str(path))
    assert (found.id, found.sequence) == ("incarnation_17", "17")
    assert [(handler.name, handler.version) for handler in found.handlers] == [("Contoso.Sample", "1.4.2")]
    assert found.handlers[0].extensions[0].sequence_number == 3


def test_captured_documents_of_both_kinds_are_read(fixtures: Path, tmp_path: Path) -> None:
    xml = load_goal_state(str(fixtures / "hostgaplugin" / "ext_conf.xml"))
    assert xml.id == "incarnation_recorded"
    assert xml.handlers
    captured = fixtures / "hostgaplugin" / "vm_settings.json"
    whole = load_goal_state(str(captured))
    assert whole.id == "etag_recorded"
    directory = tmp_path / "2026-02-03T04-05-06__17-4711"
    directory.mkdir()
    (directory / "VmSettings.json").write_text(redact_vm_settings(captured.read_bytes()))
    kept = load_goal_state(str(directory / "VmSettings.json"))
    assert kept.id == "etag_4711"
    assert [handler.name for handler in kept.handlers] == [handler.name for handler in whole.handlers]


@pytest.mark.parametrize("data", [b"", b"hello", b"\0\0\0", b"[]", b"<", b"{", b"<Other/>", b'{"a": 1}'])
def test_what_is_neither_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "document"
    path.write_bytes(data)
    with pytest.raises(ProtocolError):
        load_goal_state(str(path))


def test_a_directory_or_nothing_at_all_is_no_goal_state(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        load_goal_state(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        load_goal_state(str(tmp_path / "absent"))
