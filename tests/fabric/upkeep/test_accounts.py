"""Just-in-time accounts from the platform to the machine, passwords encrypted as on the wire."""

from __future__ import annotations

import hashlib

import pytest

from tests.fabric.upkeep.sandbox import Sandbox
from waagent_fabric import RemoteUserSpec

pytestmark = pytest.mark.fabric

PASSWORD = "pass-of-j\u00fcrgen & co"


def test_an_account_comes_with_its_password_and_goes_again(sandbox: Sandbox) -> None:
    sandbox.write("etc/passwd", "ann:x:1000:1000:Ann:/home/ann:/bin/sh\n")
    agent = sandbox.boot()
    sandbox.fabric.publish([], users=[RemoteUserSpec("jit-bob", PASSWORD), RemoteUserSpec("ann", "stolen")])
    agent.wait_until(lambda: sandbox.operations("configure_sudo"), 30, "the account")
    agent.wait_for_log("note that jit-bob is complete")
    assert "jit-bob:x:1000:1000:JIT_Account:/home/jit-bob:/bin/sh\n" in sandbox.read("etc/passwd")
    assert sandbox.read("etc/shadow") == f"jit-bob:{hashlib.sha256(PASSWORD.encode()).hexdigest()}\n"
    assert sandbox.operations("create_user") == [
        {"operation": "create_user", "name": "jit-bob", "expiration": "2100-01-02"}
    ]
    agent.wait_for_log("just-in-time account ann: an ordinary account has this name")
    assert "ann:x:1000:1000:Ann:/home/ann:/bin/sh\n" in sandbox.read("etc/passwd")
    sandbox.fabric.publish([])
    agent.wait_until(lambda: sandbox.operations("delete_user"), 30, "the account's end")
    assert sandbox.operations("delete_user") == [{"operation": "delete_user", "name": "jit-bob"}]
    agent.stop()  # nothing comes and goes while everything is read
    everything = "".join(
        path.read_text(errors="replace") for path in sandbox.root.rglob("*") if path.is_file() and path.suffix != ".pem"
    )
    assert PASSWORD not in everything
    assert "stolen" not in everything


def test_a_restarted_worker_makes_nothing_twice(sandbox: Sandbox) -> None:
    agent = sandbox.boot()
    sandbox.fabric.publish([], users=[RemoteUserSpec("jit-bob")])
    record = "var/lib/waagent/state/remote-access.json"
    agent.wait_until(lambda: '"jit-bob": "done"' in sandbox.read(record), 30, "a complete account")
    end = len(agent.log())
    agent.kill_worker()
    agent.wait_for_log("ProcessExtensionsGoalState completed", 30, start=end)
    sandbox.fabric.publish([], users=[RemoteUserSpec("jit-bob"), RemoteUserSpec("jit-eve")])
    agent.wait_for_log("note that jit-eve is complete", 30, start=end)
    assert [line["name"] for line in sandbox.operations("create_user")] == ["jit-bob", "jit-eve"]
    assert not sandbox.operations("delete_user")
