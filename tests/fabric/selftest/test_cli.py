from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import requests

pytestmark = pytest.mark.fabric

COMMAND = [sys.executable, "-m", "waagent_fabric.cli"]
SCENARIO = {
    "vm": {"name": "scenario-vm"},
    "packages": [
        {"name": "Contoso.Sample", "version": "1.0.0", "sample": {"message": "hello"}},
        {"name": "Contoso.Files", "version": "2.0", "files": {"run": "#!/bin/sh"}, "manifest_command": "run"},
    ],
    "goal_states": [
        {"handlers": [{"name": "Contoso.Sample", "version": "1.0.0", "settings": [{"public": {"k": "v"}}]}]},
        {"after": 0.2, "channel": "fasttrack"},
    ],
    "faults": [{"kind": "status", "server": "imds", "statuses": [503], "times": 1}],
}


class Serving:
    """A ``waagent-fabric serve`` as a process."""

    def __init__(self, folder, *options):
        self.port_file = folder / "ports.json"
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--port-file", self.port_file, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 20
        while not self.port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(self.process.communicate()[1].decode())
            time.sleep(0.02)
        self.ports = json.loads(self.port_file.read_text())

    def run(self, *words, data=None, code=0):
        environment = {**os.environ, "WAAGENT_FABRIC": str(self.port_file)}
        ran = subprocess.run(
            [*COMMAND, *words], input=data, capture_output=True, text=True, timeout=30, check=False, env=environment
        )
        assert ran.returncode == code, ran.stderr
        return json.loads(ran.stdout) if code == 0 else ran.stderr

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=20)
        return self.process.returncode, output.decode(), errors.decode()


@pytest.fixture
def serving(tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(SCENARIO))
    made = Serving(tmp_path, "--scenario", str(path), "--conf-file", str(tmp_path / "waagent.conf"))
    yield made
    if made.process.returncode is None:
        made.end()


WIRE = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30"}


def goal_state(serving):
    return requests.get(f"http://{serving.ports['wireserver']}/machine/?comp=goalstate", headers=WIRE, timeout=10).text


def test_a_scenario_is_served(serving, tmp_path):
    text = goal_state(serving)
    assert "._scenario-vm" in text
    assert "<Incarnation>2</Incarnation>" in text
    assert f"Platform.WireServer={serving.ports['wireserver']}" in (tmp_path / "waagent.conf").read_text()
    url = f"http://{serving.ports['imds']}/metadata/instance?api-version=2018-02-01"
    answers = [requests.get(url, headers={"Metadata": "true"}, timeout=10).status_code for _ in range(2)]
    assert answers == [503, 200]
    code, output, errors = serving.end()
    assert (code, errors) == (0, "")
    assert json.loads(output)["control"] == serving.ports["control"]


def test_publishing_and_watching(serving, tmp_path):
    goal = tmp_path / "goal.json"
    package = {"name": "Contoso.New", "version": "1.0", "sample": {}}
    goal.write_text(json.dumps({"packages": [package], "handlers": [{"name": "Contoso.New", "version": "1.0"}]}))
    assert serving.run("publish", str(goal)) == {"id": "incarnation_3"}
    assert "<Incarnation>3</Incarnation>" in goal_state(serving)
    answer = serving.run("publish", "-", data=json.dumps({"channel": "fasttrack"}))
    assert answer["id"].startswith("etag_")
    shown = serving.run("status", "--show", "requests", "--last", "1")
    assert [(item["path"], item["status"]) for item in shown] == [("/machine/?comp=goalstate", 200)]
    assert "no status was reported yet" in serving.run("status", code=1)
    assert serving.run("status", "--show", "violations") == []


def test_reports_are_shown(serving):
    seen = {"ObservationName": "InstanceMetadataHeartbeat", "IsHealthy": True, "Description": "", "Value": ""}
    document = {"Api": "reporttargethealth", "Version": "1.0", "Source": "WALinuxAgent", "Observations": [seen]}
    wire = serving.ports["wireserver"]
    assert requests.post(f"http://{wire}/HealthService", json=document, timeout=10).status_code == 200
    assert serving.run("status", "--show", "observations") == [seen]
    for name in ("roles", "health", "telemetry"):
        assert serving.run("status", "--show", name) == []


def test_a_status_is_shown(serving):
    import html
    import re

    found = re.search("<ExtensionsConfig>(.*?)<", goal_state(serving))
    config = requests.get(html.unescape(found.group(1)), headers=WIRE, timeout=10).text
    url = html.unescape(re.search("<StatusUploadBlob[^>]*>(.*?)<", config).group(1))
    status = {
        "version": "1.1", "timestampUTC": "2026-01-02T03:04:05Z",
        "aggregateStatus": {"guestAgentStatus": {"version": "3.0", "status": "Ready"}, "handlerAggregateStatus": []},
    }  # fmt: skip
    headers = {
        "x-ms-version": "2014-02-14", "x-ms-date": "2026-01-02T03:04:05Z", "x-ms-blob-type": "BlockBlob",
    }  # fmt: skip
    assert requests.put(url, json=status, headers=headers, timeout=10).status_code == 201
    shown = serving.run("status", "--wait", "5")
    assert (shown["channel"], shown["document"]) == ("direct", status)


def test_faults_come_and_go(serving):
    serving.run("fault", json.dumps({"kind": "status", "statuses": [500]}))
    url = f"http://{serving.ports['host_plugin']}/health"
    assert requests.get(url, timeout=10).status_code == 500
    serving.run("fault", "--clear")
    assert requests.get(url, timeout=10).status_code == 200


def test_moving(serving):
    moved = serving.run("reallocate", "--incarnation", "1")
    text = goal_state(serving)
    assert moved["container_id"] in text
    assert "<Incarnation>1</Incarnation>" in text


def test_violations_show_in_the_exit_code(serving):
    requests.get(f"http://{serving.ports['wireserver']}/machine/?comp=goalstate", timeout=10)
    code, _, errors = serving.end()
    assert code == 3
    assert "violation: wireserver: GET /machine/: x-ms-version is None" in errors


@pytest.mark.parametrize(
    ("words", "data", "complaint"),
    [
        (["publish", "-"], '{"colour": 1}', "unknown key 'colour'"),
        (["publish", "-"], "{", "Expecting"),
        (["publish", "/nonexistent.json"], None, "No such file"),
        (["fault", '{"kind": "flood"}'], None, "'kind' must be in"),
        (["status", "--at", "nowhere"], None, "neither a file nor HOST:PORT"),
    ],
)
def test_mistakes_are_named(serving, words, data, complaint):
    assert complaint in serving.run(*words, data=data, code=1)


def test_without_a_place_to_ask():
    environment = {key: value for key, value in os.environ.items() if key != "WAAGENT_FABRIC"}
    ran = subprocess.run([*COMMAND, "status"], capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert ran.returncode == 1
    assert "--at HOST:PORT" in ran.stderr


def test_a_broken_scenario_is_not_served(tmp_path):
    path = tmp_path / "scenario.json"
    path.write_text('{"goal_states": [{"handlers": [{"name": "N"}]}]}')
    with pytest.raises(AssertionError, match=r"goal_states\[0\]\.handlers\[0\]"):
        Serving(tmp_path, "--scenario", str(path))
