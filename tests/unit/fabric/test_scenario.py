from __future__ import annotations

import json

import pytest

from waagent_fabric import scenario
from waagent_fabric.records import HandlerSpec, SettingsSpec


def test_a_handler_with_everything():
    handler = scenario.handler_from(
        {
            "name": "Contoso.Multi",
            "version": "2.0",
            "multi_config": True,
            "settings": [
                {"name": "first", "public": {"k": 1}, "sequence_number": 3},
                {"name": "second", "level": 2, "depends_on": ["Contoso.Other", ["Contoso.Multi", "first"]]},
            ],
        }
    )
    assert handler == HandlerSpec(
        "Contoso.Multi",
        "2.0",
        multi_config=True,
        settings=[
            SettingsSpec({"k": 1}, name="first", sequence_number=3),
            SettingsSpec(name="second", level=2, depends_on=("Contoso.Other", ("Contoso.Multi", "first"))),
        ],
    )


@pytest.mark.parametrize(
    ("make", "value", "words"),
    [
        (scenario.handler_from, {"name": "N"}, "version"),
        (scenario.handler_from, {"name": "N", "version": "1", "colour": "red"}, "colour"),
        (scenario.handler_from, {"name": "N", "version": "1", "settings": {}}, "handler.settings: a list"),
        (scenario.handler_from, {"name": "N", "version": "1", "settings": [{"seq": 1}]}, r"handler.settings\[0\].*seq"),
        (scenario.handler_from, [], "an object is expected"),
        (scenario.fault_from, {"kind": "flood"}, "kind"),
        (scenario.fault_from, {}, "kind"),
    ],
)
def test_mistakes_are_named_with_their_place(make, value, words):
    with pytest.raises(scenario.ScenarioError, match=words):
        make(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "Expecting"), ('{"handlers": []}', "unknown key 'handlers'"), ('{"vm": {"age": 3}}', "vm: .*age")],
)
def test_broken_files(tmp_path, text, words):
    path = tmp_path / "scenario.json"
    path.write_text(text)
    with pytest.raises(scenario.ScenarioError, match=words):
        scenario.load(str(path))


def test_an_empty_file_is_an_ordinary_machine(tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps({}))
    assert scenario.load(str(path)) == scenario.Scenario()
