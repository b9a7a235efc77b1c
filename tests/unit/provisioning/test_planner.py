"""Facts to steps: every row is one line (provisioning §6, §12, §13, §14; architecture §5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent_provisioning import planner
from waagent_provisioning.planner import Wanted

STEPS = ("medium", *(name for name, _ in planner.OURS_STEPS), *planner.AFTER_MARKER, *planner.CLOUD_INIT_STEPS)
ALL = Wanted(password=True, public_keys=True, key_pairs=True, custom_data=True)


def facts(done: str = "", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(STEPS, False)
    found.update(
        marker=None, vm_id="id", mode="waagent", problem="", wanted=None, open=False, delete_root_password=False,
        regenerate_host_keys=True, execute_custom_data=False,
    )  # fmt: skip
    found.update(dict.fromkeys(done.split(), True))
    found.update(changes)
    return found


BASE = "starting host-name user sudo sshd"
REST = "host-keys restart-ssh publish"
EVERYTHING = (
    f"starting host-name user password sudo sshd public-keys key-pairs root-password {REST} "
    "custom-data run-custom-data marker"
)
ROWS = [
    ("nothing is known yet", facts(), "medium"),
    (
        "a document that asks for little",
        facts("medium", wanted=Wanted()),
        f"{BASE} {REST} marker",
    ),
    (
        "a document that asks for everything",
        facts("medium", wanted=ALL, delete_root_password=True, execute_custom_data=True),
        EVERYTHING,
    ),
    (
        "host keys are kept, custom data is kept and not run",
        facts("medium", wanted=Wanted(custom_data=True), regenerate_host_keys=False),
        f"{BASE} restart-ssh publish custom-data marker",
    ),
    (
        "killed in the middle: the medium is read again, what was done is not",
        facts("host-name user sudo", wanted=None),
        "medium",
    ),
    (
        "and then it goes on",
        facts("medium host-name user sudo", wanted=Wanted()),
        "starting sshd host-keys restart-ssh publish marker",
    ),
    ("marked, and killed before the rest", facts(marker="id", open=True), "guest-agent eject"),
    ("only the medium is left", facts("guest-agent", marker="id", open=True), "eject"),
    ("provisioned", facts(marker="id"), ""),
    ("provisioned by another agent", facts(marker="other"), ""),
    ("marked by agent 2.0", facts(marker=""), "marker"),
    ("marked by agent 2.0, on a machine without an id", facts(marker="", vm_id=""), ""),
    (
        "a machine without an id",
        facts("medium " + BASE, vm_id="", wanted=Wanted()),
        "host-keys restart-ssh publish marker",
    ),
    ("nobody may provision", facts(problem="cloud-init is enabled"), "refuse"),
    ("nobody may provision, too late", facts(marker="id", problem="cloud-init is enabled"), ""),
    ("disabled", facts(mode="disabled"), "marker"),
    ("disabled, marked", facts(marker="id", mode=""), ""),
    ("cloud-init", facts(mode="cloud-init"), "wait-document guest-agent starting wait-host-key marker"),
    (
        "cloud-init that has reported already",
        facts("wait-document starting", mode="cloud-init"),
        "guest-agent wait-host-key marker",
    ),
]


@pytest.mark.parametrize(("found", "steps"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_facts_to_steps(found: dict[str, Any], steps: str) -> None:
    assert planner.missing(found) == tuple(steps.split())


@given(st.data())
def test_taking_the_steps_always_ends_with_a_marked_machine(data: st.DataObject) -> None:
    found = facts(
        mode=data.draw(st.sampled_from(("waagent", "cloud-init", "disabled"))),
        delete_root_password=data.draw(st.booleans()),
        regenerate_host_keys=data.draw(st.booleans()),
        execute_custom_data=data.draw(st.booleans()),
    )
    wanted = data.draw(st.builds(Wanted, st.booleans(), st.booleans(), st.booleans(), st.booleans()))
    found.update({name: data.draw(st.booleans()) for name in STEPS if name not in ("medium", "marker")})
    taken: list[str] = []
    while planner.missing(found):
        name = planner.missing(found)[0]
        assert name not in taken, "a step that was done is wanted again"
        taken.append(name)
        found[name] = True
        if name == "medium":
            found["wanted"] = wanted
        if name == "marker":
            assert set(planner.missing(found)) <= {"marker"}, "something was still missing when the machine was marked"
            found.update(marker="id", open=found["mode"] == "waagent")
    assert found["marker"] == "id"


def test_users_and_keys_come_before_the_network_is_touched_and_custom_data_sees_the_final_keys() -> None:
    steps = planner.missing(facts("medium", wanted=ALL, execute_custom_data=True))
    place = {name: number for number, name in enumerate(steps)}
    assert place["publish"] > max(place[name] for name in ("user", "password", "sudo", "public-keys", "key-pairs"))
    assert place["restart-ssh"] < place["run-custom-data"] < place["marker"]
