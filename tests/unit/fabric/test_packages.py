"""Sample handlers, run as an agent runs them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import time
import zipfile

import pytest

from waagent_fabric.packages import build_zip, handler_manifest, read_calls, sample_package, with_manifest

NAME = "Contoso.Sample"


class Installed:
    """A sample handler on disk, in the layout an agent makes."""

    def __init__(self, root, **options):
        self.root = root
        self.home = root / f"var/lib/waagent/{NAME}-1.0.0"
        self.logs = root / f"var/log/azure/{NAME}"
        for name in ("config", "status"):
            (self.home / name).mkdir(parents=True)
        with zipfile.ZipFile(io.BytesIO(build_zip(sample_package(NAME, "1.0.0", **options)))) as archive:
            archive.extractall(self.home)
        manifest = json.loads((self.home / "HandlerManifest.json").read_text())
        self.manifest = manifest[0]
        script = self.home / self.manifest["handlerManifest"]["enableCommand"].split()[0]
        script.chmod(0o755)
        environment = {
            "logFolder": str(self.logs),
            "configFolder": str(self.home / "config"),
            "statusFolder": str(self.home / "status"),
            "heartbeatFile": str(self.home / "heartbeat.log"),
        }
        text = json.dumps([{"name": NAME, "version": 1.0, "handlerEnvironment": environment}])
        (self.home / "HandlerEnvironment.json").write_text(text)

    def settings(self, public, sequence=0, prefix=""):
        content = {"runtimeSettings": [{"handlerSettings": {"publicSettings": public}}]}
        (self.home / f"config/{prefix}{sequence}.settings").write_text(json.dumps(content))

    def run(self, operation, **environment):
        command = self.manifest["handlerManifest"][f"{operation}Command"]
        return subprocess.run(
            ["/bin/sh", "-c", f"{self.home}/{command}"], cwd=self.home, capture_output=True, timeout=30, check=False,
            env={"PATH": os.environ["PATH"], "ConfigSequenceNumber": "0", **environment},
        )  # fmt: skip

    def status(self, name="0"):
        return json.loads((self.home / f"status/{name}.status").read_text())[0]["status"]


def until(condition, timeout=10):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def test_calls_and_their_environment_are_written_down(tmp_path):
    handler = Installed(tmp_path)
    variables = {"AZURE_GUEST_AGENT_EXTENSION_VERSION": "1.0.0", "ConfigSequenceNumber": "4", "UNLISTED": "x"}
    assert handler.run("install", **variables).returncode == 0
    assert handler.run("enable", **variables).returncode == 0
    install, enable = read_calls(tmp_path, NAME)
    assert (install.operation, install.version, install.exit_code) == ("install", "1.0.0", 0)
    assert enable.operation == "enable"
    assert install.cwd == str(handler.home)
    assert install.environment == {
        "AZURE_GUEST_AGENT_EXTENSION_VERSION": "1.0.0", "ConfigSequenceNumber": "4", "PATH": os.environ["PATH"],
    }  # fmt: skip
    assert "UNLISTED" in (handler.logs / "environment.install.1.0.0").read_text()
    assert handler.status("4")["status"] == "success"


def test_no_calls_yet(tmp_path):
    assert read_calls(tmp_path, NAME) == []


def test_a_failing_operation(tmp_path):
    handler = Installed(tmp_path, install="echo out; echo err >&2; exit 7")
    ended = handler.run("install")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"out\n", b"err\n")
    assert [call.exit_code for call in read_calls(tmp_path, NAME)] == [7]


def test_what_enable_reports(tmp_path):
    part = [{"name": "p", "status": "error", "code": 3, "formattedMessage": {"lang": "en-US", "message": "100 %"}}]
    handler = Installed(tmp_path, status="error", code=5, message="it did not work", substatus=part)
    assert handler.run("enable").returncode == 0
    status = handler.status()
    assert (status["status"], status["code"]) == ("error", 5)
    assert status["formattedMessage"] == {"lang": "en-US", "message": "it did not work"}
    assert status["substatus"] == part


def test_no_status_when_told_so(tmp_path):
    handler = Installed(tmp_path, status=None)
    handler.run("enable")
    assert os.listdir(handler.home / "status") == []


def test_public_settings_steer_one_enable(tmp_path):
    handler = Installed(tmp_path)
    handler.settings({"sleep": 0.2, "status": "warning", "message": "as told"})
    began = time.monotonic()
    assert handler.run("enable").returncode == 0
    assert time.monotonic() - began >= 0.2
    assert handler.status()["status"] == "warning"
    assert handler.status()["formattedMessage"]["message"] == "as told"
    handler.settings({"exitCode": 9}, 1)
    assert handler.run("enable", ConfigSequenceNumber="1").returncode == 9


def test_an_extension_of_several(tmp_path):
    handler = Installed(tmp_path)
    handler.settings({"message": "the second"}, 3, "second.")
    handler.run("enable", ConfigExtensionName="second", ConfigSequenceNumber="3")
    assert handler.status("second.3")["name"] == "second"
    assert handler.status("second.3")["formattedMessage"]["message"] == "the second"


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_a_long_run_ends_later_and_by_itself(tmp_path):
    handler = Installed(tmp_path, long_run=0.3, message="at last")
    assert handler.run("enable").returncode == 0
    assert handler.status()["status"] == "transitioning"
    until(lambda: handler.status()["status"] == "success")
    assert handler.status()["formattedMessage"]["message"] == "at last"
    assert len(read_calls(tmp_path, NAME)) == 1, "the detached half is no call"


def test_heartbeat(tmp_path):
    handler = Installed(tmp_path, heartbeat="Ready")
    assert handler.manifest["handlerManifest"]["reportHeartbeat"] is True
    handler.run("enable")
    beat = json.loads((handler.home / "heartbeat.log").read_text())[0]["heartbeat"]
    assert beat["status"] == "Ready"
    assert beat["formattedMessage"]["message"] == "alive"


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_heartbeat_is_refreshed(tmp_path):
    handler = Installed(tmp_path, heartbeat="Ready", heartbeat_seconds=3)
    handler.run("enable")
    beat = handler.home / "heartbeat.log"
    os.utime(beat, (1, 1))
    until(lambda: beat.stat().st_mtime > 1)


def test_an_unknown_operation_is_refused(tmp_path):
    handler = Installed(tmp_path)
    handler.manifest["handlerManifest"]["enableCommand"] = "bin/handler.sh reboot"
    assert handler.run("enable").returncode == 64


@pytest.mark.parametrize("message", ["it's", 'a "quote"', "two\nlines", "back\\slash"])
def test_texts_that_a_shell_would_change_are_refused(message):
    with pytest.raises(ValueError, match="no quotes"):
        sample_package(message=message)


def test_archives_are_reproducible_and_without_modes():
    files = sample_package()
    assert build_zip(files) == build_zip(files)
    with zipfile.ZipFile(io.BytesIO(build_zip(files))) as archive:
        assert {item.external_attr >> 16 & 0o111 for item in archive.infolist()} == {0}


def test_manifest_fields_go_where_they_belong():
    text = handler_manifest(
        {"enable": "./run on"},
        reportHeartbeat=True,
        resourceLimits={"cpuQuotaPercentage": 5},
        signingInfo={"type": "T"},
    )
    (manifest,) = json.loads(text)
    assert manifest["resourceLimits"] == {"cpuQuotaPercentage": 5}
    assert manifest["signingInfo"] == {"type": "T"}
    assert manifest["handlerManifest"]["enableCommand"] == "./run on"
    assert manifest["handlerManifest"]["reportHeartbeat"] is True
    assert "installCommand" not in manifest["handlerManifest"]


def test_a_given_manifest_is_left_alone():
    files = {"HandlerManifest.json": "mine", "run": ""}
    assert with_manifest(files, "run") is files
    assert (
        json.loads(with_manifest({"run": ""}, "run")["HandlerManifest.json"])[0]["handlerManifest"]["installCommand"]
        == "run install"
    )
