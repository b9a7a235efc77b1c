"""Starts of one machine: failures and what becomes of them, sources of the document, secrets (§4 to §9)."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.provisioning.bench import KEY, VM_ID, Bench, document, platform_settings
from waagent import AgentError, hookimpl
from waagent_provisioning import customdata, hostkey, medium
from waagent_provisioning.flow import Flow
from waagent_provisioning.progress import Owed

PASSWORD = "correct horse"
WITH_PASSWORD = f"<wa:UserPassword>{PASSWORD}</wa:UserPassword>"
WITH_KEY = (
    "<wa:DisableSshPasswordAuthentication>true</wa:DisableSshPasswordAuthentication><wa:SSH><wa:PublicKeys><wa:PublicKey>"
    f"<wa:Path>$HOME/ops/.ssh/authorized_keys</wa:Path><wa:Value>{KEY}</wa:Value></wa:PublicKey></wa:PublicKeys></wa:SSH>"
)


def steps(results: list[Any]) -> list[str]:
    return [f"{step.name} {step.outcome}" for result in results for step in result.steps if step.outcome != "done"]


def broken(root: Path, operation: str, text: str, monkeypatch: pytest.MonkeyPatch, conf: str = "") -> Bench:
    """Return a machine whose operating system fails at *operation*."""
    from tests.unit.provisioning.bench import sandbox

    module = sandbox()

    def fail(agent: Any) -> bool:
        raise AgentError(text)

    monkeypatch.setattr(module, operation, hookimpl(fail))
    return Bench(root, conf)


def test_a_start_that_succeeds_tells_no_secret(bench: Bench) -> None:
    bench.insert(document(inside=WITH_PASSWORD + WITH_KEY + "<wa:CustomData>Y3VzdG9tIGRhdGE=</wa:CustomData>"))
    assert steps(bench.boot()) == []
    assert bench.listener.said == [("NotReady", "Provisioning", "Starting"), ("Ready", "", "")]
    text = bench.log + (bench.lib("journal/boot.jsonl")).read_text()
    assert PASSWORD not in text
    assert "Y3VzdG9tIGRhdGE=" not in text
    assert bench.lib("CustomData").read_text() == "Y3VzdG9tIGRhdGE="
    assert bench.lib("CustomData").stat().st_mode & 0o777 == 0o600
    assert bench.lib("published_hostname").stat().st_mode & 0o777 == 0o644


def test_a_step_that_fails_is_what_the_platform_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = broken(tmp_path, "create_user", "`useradd -m ops` ended with 1: no space", monkeypatch)
    bench.insert(document(inside=WITH_KEY))
    assert steps(bench.boot()) == ["user failed"]
    state, substatus, description = bench.listener.said[-1]
    assert (state, substatus) == ("NotReady", "ProvisioningFailed")
    assert description.startswith("Failed to provision: ")
    assert "`useradd -m ops` ended with 1: no space" in description
    assert not bench.lib("provisioned").exists()
    assert (bench.root / "dev/sr0").exists()
    # A second start of the same boot tries once more; a third leaves it, and the platform hears the same again.
    assert steps(bench.boot()) == ["user failed"]
    assert steps(bench.boot()) == ["user left"]
    assert "no space" in bench.listener.said[-1][2]


@pytest.mark.parametrize("secret", ["correct horse", "two  blanks", 'quote\'d \\ "twice"', " at the ends "])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_secret_in_an_error_goes_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, quoted: bool
) -> None:
    """§15: not to the platform, not to the log, the journal and the state, however the tool quotes it."""
    line = f"ops:{secret}"
    bench = broken(tmp_path, "set_password", f"chpasswd says: bad line {line!r}" if quoted else line, monkeypatch)
    bench.insert(document(inside=f"<wa:UserPassword>{secret}</wa:UserPassword>{custom(b'echo its own secret')}"))
    bench.boot()
    assert bench.listener.said[-1][1] == "ProvisioningFailed"
    assert "ops:<redacted>" in bench.listener.said[-1][2]
    texts = [bench.listener.said[-1][2], bench.log]
    texts += [path.read_text() for path in bench.lib("").rglob("*") if path.is_file()]
    assert any("failed in set_password" in text for text in texts)
    for word in max(secret.split(), key=len), max(repr(secret)[1:-1].split(), key=len):
        assert not any(word in text for text in texts)


def test_a_full_disk_is_what_the_platform_hears(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """§15: a failure to write is reported like any other, and the next start goes on."""
    from waagent_provisioning import flow

    bench.insert(document(inside=WITH_KEY))
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(flow, "write_atomic", full)
        assert steps(bench.boot()) == ["publish failed", "marker failed"]
    assert bench.listener.said[-1] == (
        "NotReady", "ProvisioningFailed", "Failed to provision: [Errno 28] No space left on device"
    )  # fmt: skip
    assert not bench.lib("provisioned").exists()
    assert steps(bench.boot()) == []
    assert bench.listener.said[-1] == ("Ready", "", "")


@pytest.mark.parametrize("operation", ["set_hostname", "publish_hostname", "eject_provisioning_media"])
def test_what_the_owner_can_live_without_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    bench = broken(tmp_path, operation, "not today", monkeypatch)
    bench.insert(document(inside=WITH_KEY))
    bench.boot()
    assert bench.lib("provisioned").read_text() == VM_ID
    assert bench.listener.said[-1] == ("Ready", "", "")
    assert "not today" in bench.log


def test_cloud_init_beside_us_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.Agent=waagent\n")
    (tmp_path / "run/cloud-init").mkdir(parents=True)
    (tmp_path / "run/cloud-init/enabled").write_text("")
    bench.insert(document(inside=WITH_KEY))
    assert steps(bench.boot()) == ["refuse failed"]
    assert "cloud-init is enabled and unexpected" in bench.listener.said[-1][2]
    assert not (tmp_path / "etc/passwd").exists()


def test_a_machine_from_a_pool_is_refused(bench: Bench) -> None:
    bench.insert(
        document(inside=WITH_KEY, settings=platform_settings("<wa:PreprovisionedVm>true</wa:PreprovisionedVm>"))
    )
    bench.boot()
    assert "pre-provisioned ones (Running)" in bench.listener.said[-1][2]
    assert not (bench.root / "etc/passwd").exists()


FORMS = {
    "prefixed": "<wa:UserPassword>{}</wa:UserPassword>",
    "in the default namespace": '<UserPassword xmlns="http://schemas.microsoft.com/windowsazure">{}</UserPassword>',
    "in more than one line": "<wa:UserPassword>\n{}\n</wa:UserPassword>",
    "CDATA": "<wa:UserPassword><![CDATA[{}]]></wa:UserPassword>",
    "numbers": "<wa:UserPassword>&#67;{}</wa:UserPassword>",
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("form", list(FORMS.values()), ids=list(FORMS))
def test_a_password_in_whatever_form_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, fails: bool
) -> None:
    """§29.2: not below the state directory, not in logs, not in telemetry, whether it goes well or not."""
    word = "Tr0ub4dorAndThree"
    bench = broken(tmp_path, "lock_root_password", "no", monkeypatch, "Provisioning.DeleteRootPassword=y\n")
    if not fails:
        monkeypatch.undo()
    bench.insert(document(inside=form.format(word) + custom(b"x")))
    events: list[str] = []
    agent = bench.start()
    agent.events.subscribe(lambda event: events.append(event.message))
    for plan in Flow(agent).plans():
        agent.executor.run(plan)
    agent.executor.journal.close()
    assert bench.listener.said[-1][0] == ("NotReady" if fails else "Ready")
    assert len(events) >= 1
    places = [tmp_path / "var", tmp_path / "run", tmp_path / "etc", tmp_path / "sandbox.jsonl"]
    files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    texts = {str(path): path.read_text() for path in files} | {"telemetry": str(events)}
    assert str(bench.lib("ovf-env.xml")) in texts
    assert [name for name, text in texts.items() if word in text] == []


# ---- where the document comes from -----------------------------------------------------------------------------------


class Drives:
    """Two drives: the first is empty, or holds something else."""

    waagent_any_root = True

    def __init__(self, root: Path, first: bytes | None) -> None:
        self.root, self.first = root, first
        self.mounted: list[str] = []
        self.names = ["/dev/sr0", "/dev/sr1"]

    @hookimpl
    def find_provisioning_media(self, agent: Any, but: tuple[str, ...]) -> str:
        return next((name for name in self.names if name not in but), "")

    @hookimpl
    def mount_provisioning_media(self, agent: Any, device: str, mount_point: str) -> bool:
        self.mounted.append(device)
        if device == "/dev/sr0" and self.first is None:
            raise AgentError("no medium found on /dev/sr0")
        content = self.first if device == "/dev/sr0" else document(inside=WITH_KEY)
        name = "readme.txt" if content == b"else" else "ovf-env.xml"
        Path(mount_point, name).write_bytes(content or b"")
        return True

    @hookimpl
    def unmount_provisioning_media(self, agent: Any, mount_point: str) -> bool:
        for path in Path(mount_point).iterdir():
            path.unlink()
        return True

    @hookimpl
    def eject_provisioning_media(self, agent: Any, device: str) -> bool:
        self.mounted.append("eject " + device)
        return True


@pytest.mark.parametrize("first", [None, b"else"], ids=["empty", "another disc"])
def test_every_drive_is_looked_at(tmp_path: Path, first: bytes | None) -> None:
    drives = Drives(tmp_path, first)
    bench = Bench(tmp_path, drives=drives)
    bench.boot()
    assert drives.mounted == ["/dev/sr0", "/dev/sr1", "eject /dev/sr1"]
    assert bench.lib("provisioned").exists()
    assert list((tmp_path / "mnt/cdrom/secure").iterdir()) == []
    assert (tmp_path / "mnt/cdrom/secure").stat().st_mode & 0o777 == 0o700


def without_waiting(bench: Bench, during: Callable[[float], bool] = lambda now: False) -> float:
    """Run a start whose pauses take no time; *during* happens in each. Return the seconds that it would have waited."""
    agent = bench.start()
    waited = 0.0

    def wait(seconds: float = 0) -> bool:
        nonlocal waited
        waited += seconds
        return during(waited)

    agent.stopping.wait = wait  # type: ignore[method-assign,assignment]
    for plan in Flow(agent).plans():
        agent.executor.run(plan, stop=agent.stopping)
    return waited


def test_without_a_medium_and_anything_else_it_fails(bench: Bench) -> None:
    """§4: five scans, five seconds apart."""
    assert without_waiting(bench) == 20
    assert bench.listener.said[-1][1] == "ProvisioningFailed"
    assert bench.listener.said[-1][2].startswith(
        "[CopyOvfEnv] Error mounting dvd: there is no drive with a provisioning medium"
    )


def test_each_scan_looks_at_every_drive(tmp_path: Path) -> None:
    drives = Drives(tmp_path, b"else")
    drives.names = ["/dev/sr0"]
    bench = Bench(tmp_path, drives=drives)
    assert without_waiting(bench) == 20
    assert drives.mounted == ["/dev/sr0"] * 5
    assert bench.listener.said[-1][2] == "[CopyOvfEnv] Error mounting dvd: /dev/sr0 holds no ovf-env.xml"


def test_a_drive_that_comes_late_ends_the_pause(tmp_path: Path) -> None:
    drives = Drives(tmp_path, None)
    drives.names = ["/dev/sr0"]
    bench = Bench(tmp_path, drives=drives)

    def during(now: float) -> bool:
        if now == 7:
            drives.names.append("/dev/sr1")
        return False

    assert without_waiting(bench, during) == 7
    assert bench.lib("provisioned").exists()


def test_a_medium_that_comes_late_is_found_by_the_next_scan(tmp_path: Path) -> None:
    drives = Drives(tmp_path, None)
    drives.names = ["/dev/sr0"]
    bench = Bench(tmp_path, drives=drives)

    def during(now: float) -> bool:
        if now == 6:
            drives.first = document(inside=WITH_KEY)
        return False

    assert without_waiting(bench, during) == 10
    assert bench.lib("provisioned").exists()


def test_a_document_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """§6 step 4: the failure's own words."""
    bench = Bench(tmp_path)
    (tmp_path / "dev/sr0/ovf-env.xml").mkdir(parents=True)
    without_waiting(bench)
    place = tmp_path / "mnt/cdrom/secure/ovf-env.xml"
    assert bench.listener.said[-1][2].startswith(f"[CopyOvfEnv] Error reading file {place}: ")


def test_a_stop_of_the_service_while_a_medium_is_looked_for_is_no_failure(bench: Bench) -> None:
    def during(now: float) -> bool:
        bench.agent.stopping.set()
        return True

    assert without_waiting(bench, during) == 1
    assert bench.listener.said == []
    assert "Provisioning is interrupted" in bench.log
    bench.insert(document(inside=WITH_KEY))
    assert steps(bench.boot()) == []
    assert bench.listener.said[-1] == ("Ready", "", "")


def test_without_a_medium_an_earlier_copy_is_used(bench: Bench) -> None:
    bench.lib("ovf-env.xml").write_bytes(document(inside=WITH_KEY))
    without_waiting(bench)
    assert bench.lib("provisioned").exists()
    assert bench.lib("ovf-env.xml").read_bytes() == document(inside=WITH_KEY)


@pytest.mark.parametrize("mark", ["*", "REDACTED"])
def test_a_withheld_password_is_never_set(bench: Bench, mark: str) -> None:
    """§5: what stands in a copy instead of the password is applied to no account."""
    bench.lib("ovf-env.xml").write_bytes(document(inside=f"<wa:UserPassword>{mark}</wa:UserPassword>" + WITH_KEY))
    without_waiting(bench)
    assert "does not hold the password" in bench.listener.said[-1][2]
    assert not (bench.root / "etc/shadow").exists()
    assert not bench.lib("provisioned").exists()


def test_without_any_document_the_metadata_is_used(bench: Bench) -> None:
    bench.listener.compute = {
        "osProfile": {"adminUsername": "ops", "computerName": "node7", "disablePasswordAuthentication": "true"},
        "publicKeys": [{"keyData": KEY, "path": "/home/ops/.ssh/authorized_keys"}],
    }
    without_waiting(bench)
    assert (bench.root / "home/ops/.ssh/authorized_keys").read_text() == KEY + "\n"
    assert b"<wa:UserName>ops</wa:UserName>" in bench.lib("ovf-env.xml").read_bytes()


# ---- the fingerprint of the host key ---------------------------------------------------------------------------------


def told(bench: Bench) -> list[str]:
    return ["SHA256:" + one.partition("SHA256")[2] for one in bench.listener.fingerprints]


def test_people_and_platform_hear_of_the_host_key_each_in_their_way(bench: Bench) -> None:
    """§8.2: the platform's has no colon."""
    bench.insert(document(inside=WITH_KEY))
    bench.boot()
    found = hostkey.fingerprint(str(bench.root / "etc/ssh/ssh_host_rsa_key.pub"))
    assert f"Fingerprint of the SSH host key: {found}\n" in bench.log
    assert bench.listener.fingerprints == [found.replace(":", "")]
    bench.boot()
    assert len(bench.listener.fingerprints) == 1


class AtOnce:
    """A lane whose work is done at once."""

    def submit_once(self, key: str, work: Callable[[], None], name: str) -> None:
        work()


def test_what_the_boot_stage_did_not_come_to_tell_the_worker_tells(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from waagent_provisioning.plugin import plugin

    bench.insert(document(inside=WITH_KEY))
    agent = bench.start()
    agent.executor.run(Flow(agent).plans()[0])  # and then the platform is out of reach, or the process is killed
    assert bench.listener.fingerprints == []
    agent = bench.start()
    monkeypatch.setattr(type(agent), "lane", lambda _agent, _name: AtOnce())
    for _ in range(2):
        plugin.on_goal_state(agent, None)  # type: ignore[arg-type]
    assert bench.listener.said[-1] == ("Ready", "", "")
    assert told(bench) == [hostkey.fingerprint(str(bench.root / "etc/ssh/ssh_host_rsa_key.pub"))]
    assert Owed(agent).fingerprint == ""


def test_a_fingerprint_that_the_platform_refuses_is_told_once(bench: Bench) -> None:
    """§8.2: one attempt."""
    bench.insert(document(inside=WITH_KEY))
    bench.listener.refuses_properties = True
    bench.boot()
    bench.boot()
    assert len(bench.listener.fingerprints) == 1
    assert bench.listener.said[-1] == ("Ready", "", "")


# ---- custom data -----------------------------------------------------------------------------------------------------


def custom(data: bytes) -> str:
    return f"<wa:CustomData>{base64.b64encode(data).decode()}</wa:CustomData>"


@pytest.mark.parametrize(
    ("conf", "text", "content", "mode"),
    [
        ("", "IyEvYmluL3NoCg==", b"IyEvYmluL3NoCg==", 0o600),
        ("Provisioning.DecodeCustomData=y\n", "IyEv\nYmlu L3NoCg==", b"#!/bin/sh\n", 0o600),
        ("Provisioning.DecodeCustomData=y\n", "AP/+", b"\x00\xff\xfe", 0o600),
        ("Provisioning.DecodeCustomData=y\n", "no base64!", b"no base64!", 0o600),
        ("Provisioning.ExecuteCustomData=y\n", "IyEvYmluL3NoCg==", b"#!/bin/sh\n", 0o700),
        ("Provisioning.ExecuteCustomData=y\n", "no base64!", b"no base64!", 0o600),
    ],
)
def test_how_custom_data_is_kept(tmp_path: Path, conf: str, text: str, content: bytes, mode: int) -> None:
    bench = Bench(tmp_path, conf)
    customdata.save(bench.agent, text)
    assert bench.lib("CustomData").read_bytes() == content
    assert bench.lib("CustomData").stat().st_mode & 0o777 == mode


def test_custom_data_that_cannot_run_stops_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.ExecuteCustomData=y\n")
    bench.insert(document(inside=WITH_KEY + custom(b"just text")))
    bench.boot()
    assert bench.listener.said[-1] == ("Ready", "", "")
    assert "neither a script with #! nor a program" in bench.log


def test_a_script_that_takes_long_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.ExecuteCustomData=y\n")
    customdata.save(bench.agent, base64.b64encode(b"#!/bin/sh\nread line <gate\necho done >end\n").decode())
    os.mkfifo(bench.lib("gate"))
    customdata.run(bench.agent, patience=0.2)
    assert "The custom data still runs after 0." in bench.log
    assert not bench.lib("end").exists()
    bench.lib("gate").write_text("go\n")
    for _ in range(500):
        if bench.lib("end").exists():
            break
        bench.agent.stopping.wait(0.01)
    assert bench.lib("end").exists()


def test_a_script_waits_for_the_resource_disk(tmp_path: Path) -> None:
    """Ruling 14."""
    bench = Bench(tmp_path, "Provisioning.ExecuteCustomData=y\n")
    customdata.save(bench.agent, base64.b64encode(b"#!/bin/sh\ntest -e disk && echo there >seen\n").decode())
    import threading

    phase = bench.agent.begin_phase("disk")

    def mount() -> None:
        bench.lib("disk").write_text("")
        phase.set()

    timer = threading.Timer(0.2, mount)
    timer.daemon = True
    timer.start()
    customdata.run(bench.agent)
    assert bench.lib("seen").read_text() == "there\n"


def test_the_output_is_shown_and_bounded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.ExecuteCustomData=y\n")
    script = b"#!/bin/sh\nhead -c 70000 /dev/zero | tr '\\0' 'x'\n"
    customdata.save(bench.agent, base64.b64encode(script).decode())
    customdata.run(bench.agent)
    assert f"[... {70000 - 65536} bytes left out ...]" in bench.log
    assert not (tmp_path / "run/waagent/custom-data.out").exists()


def test_custom_data_that_was_begun_is_not_run_by_hand_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.ExecuteCustomData=y\n")
    bench.insert(document(inside=WITH_KEY + custom(b"#!/bin/sh\necho ran >>ran\n")))
    flow = Flow(bench.agent)
    flow.progress.mark("user")
    flow.progress.set("custom_data_begun", True)
    bench.boot()
    assert not bench.lib("ran").exists()
    assert bench.lib("provisioned").exists()


# ---- identity, disabled mode ------------------------------------------------------------------------------


def test_progress_of_another_machine_counts_for_nothing(bench: Bench) -> None:
    Flow(bench.agent).progress.mark("user", "sudo", "public-keys")
    (bench.root / "sys/class/dmi/id/product_uuid").write_text("11111111-2222-3333-4444-555555555555\n")
    bench.insert(document(inside=WITH_KEY))
    bench.boot()
    assert (bench.root / "etc/passwd").exists()
    assert bench.lib("provisioned").read_text() == "11111111-2222-3333-4444-555555555555"


def test_a_machine_without_an_id_is_provisioned_too(bench: Bench) -> None:
    (bench.root / "sys/class/dmi/id/product_uuid").write_text("")
    bench.insert(document(inside=WITH_KEY))
    bench.boot()
    assert bench.lib("provisioned").read_text() == ""
    assert bench.listener.said[-1] == ("Ready", "", "")
    said = len(bench.listener.said)
    assert steps(bench.boot()) == []
    assert len(bench.listener.said) == said


def test_the_marker_of_agent_2_0_gets_its_id(bench: Bench) -> None:
    """§12: present, empty."""
    bench.lib("provisioned").write_text("")
    bench.boot()
    assert bench.lib("provisioned").read_text() == VM_ID
    assert bench.listener.said == [("Ready", "", "")]
    assert not (bench.root / "etc/passwd").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_what_cloud_init_wrote_and_said_stays(tmp_path: Path, finished: bool) -> None:
    """§5, §13: its copy of the document is not altered, its Ready not taken back, and no account is made."""
    bench = Bench(tmp_path, "Provisioning.Agent=cloud-init\nProvisioning.SshHostKeyPairType=ed25519\n")
    copy = document(user=None, inside=WITH_PASSWORD)
    bench.lib("ovf-env.xml").write_bytes(copy)
    places = {"etc/ssh/ssh_host_ed25519_key.pub": KEY, "run/cloud-init/result.json" if finished else "run/none": "{}"}
    for place, content in places.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(content)
    assert steps(bench.boot()) == []
    first = [] if finished else [("NotReady", "Provisioning", "Starting")]
    assert bench.listener.said == [*first, ("Ready", "", "")]
    assert bench.lib("ovf-env.xml").read_bytes() == copy
    assert not (tmp_path / "sandbox.jsonl").exists()


def test_disabled_mode_says_ready_once_a_boot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "Provisioning.Agent=disabled\n")
    bench.boot()
    bench.boot()
    assert bench.listener.said == [("Ready", "", "")]
    assert bench.lib("provisioned").read_text() == VM_ID
    report = bench.lib("state/provisioning-report.json")
    report.write_text(report.read_text().replace(bench.agent.executor.journal.boot, "another-boot"))
    bench.boot()
    assert bench.listener.said == [("Ready", "", "")] * 2


def test_what_doctor_says(bench: Bench) -> None:
    from waagent_provisioning import health

    assert health.check(bench.agent).result == "warning"
    bench.insert(b"<nonsense")
    bench.boot()
    found = health.check(bench.agent)
    assert (found.result, "well-formed XML" in found.detail) == ("failed", True)
    bench.insert(document(inside=WITH_KEY))
    bench.boot()
    assert health.check(bench.agent).result == "ok"
    Owed(bench.agent).owe("Ready")
    assert health.check(bench.agent).result == "warning"


# ---- small things ------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_ssh_keygen(bench: Bench) -> None:
    path = bench.root / "etc/ssh/ssh_host_ed25519_key.pub"
    path.parent.mkdir()
    path.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB host\n")
    assert hostkey.fingerprint(str(path)) == "SHA256:ycecTFElO4tMaWgqfHQDEUjUete0Tsl0wmvU/kkDXFc"  # as it says
    path.write_text("no key\n")
    assert hostkey.fingerprint(str(path)) == ""
    assert hostkey.fingerprint(str(path) + ".none") == ""


def test_a_document_larger_than_it_may_be(bench: Bench) -> None:
    bench.insert(b" " * ((1 << 20) + 1))
    bench.boot()
    assert "larger than 1048576 bytes" in bench.listener.said[-1][2]
    assert medium.NAME == "ovf-env.xml"
