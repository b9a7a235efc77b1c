from __future__ import annotations

import copy

import pytest

from waagent_fabric.statusrules import status_problems

GOOD = {
    "version": "1.1",
    "timestampUTC": "2026-01-02T03:04:05Z",
    "aggregateStatus": {
        "guestAgentStatus": {
            "version": "3.0.0.0",
            "status": "Ready",
            "formattedMessage": {"lang": "en-US", "message": "Guest Agent is running"},
        },
        "handlerAggregateStatus": [
            {
                "handlerName": "Contoso.Sample",
                "handlerVersion": "1.0.0",
                "status": "Ready",
                "code": 0,
                "useExactVersion": True,
                "formattedMessage": {"lang": "en-US", "message": "Plugin enabled"},
                "runtimeSettingsStatus": {
                    "sequenceNumber": 3,
                    "settingsStatus": {
                        "version": 1.0,
                        "timestampUTC": "2026-01-02T03:04:05Z",
                        "status": {
                            "name": "Contoso.Sample",
                            "operation": "Enable",
                            "status": "success",
                            "code": 0,
                            "formattedMessage": {"lang": "en-US", "message": "done"},
                            "substatus": [{"name": "part", "status": "success", "code": 0}],
                        },
                    },
                },
            }
        ],
        "vmArtifactsAggregateStatus": {
            "goalStateAggregateStatus": {
                "inSvdSeqNo": "7",
                "status": "Success",
                "code": 0,
                "timestampUTC": "2026-01-02T03:04:05Z",
                "formattedMessage": {"lang": "en-US", "message": "GoalState executed successfully"},
            }
        },
    },
    "supportedFeatures": [{"Key": "MultipleExtensionsPerHandler", "Value": "1.0"}],
}


def changed(path: str, value):
    document = copy.deepcopy(GOOD)
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = document
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def test_a_good_document_has_no_problems():
    assert status_problems(GOOD) == []


HANDLER = "aggregateStatus/handlerAggregateStatus/0"
EXTENSION = f"{HANDLER}/runtimeSettingsStatus/settingsStatus/status"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", "2.0"),
        ("timestampUTC", "2026-01-02 03:04:05"),
        ("aggregateStatus/guestAgentStatus/status", "Fine"),
        ("aggregateStatus/guestAgentStatus/version", ...),
        ("aggregateStatus/handlerAggregateStatus", ...),
        (f"{HANDLER}/handlerVersion", None),
        (f"{HANDLER}/status", "ready"),
        (f"{HANDLER}/code", "0"),
        (f"{HANDLER}/formattedMessage", {"message": "no language"}),
        (f"{HANDLER}/runtimeSettingsStatus/sequenceNumber", "three"),
        (f"{EXTENSION}/status", "Success"),
        (f"{EXTENSION}/formattedMessage/message", None),
        (f"{EXTENSION}/substatus", []),
        (f"{EXTENSION}/substatus/0/status", "done"),
        ("aggregateStatus/vmArtifactsAggregateStatus/goalStateAggregateStatus/inSvdSeqNo", ...),
        ("supportedFeatures/0/Value", 1.0),
    ],
)
def test_each_rule(path, value):
    assert len(status_problems(changed(path, value))) == 1


@pytest.mark.parametrize("document", [None, [], "text", {}])
def test_what_is_no_status_at_all(document):
    assert status_problems(document)
