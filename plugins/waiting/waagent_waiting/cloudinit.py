"""Wait until cloud-init has done its work (extensions §18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent

LONGEST = 3600
"""Seconds; the hook that waits has a minute more."""
DONE_WITH_ERRORS = 2
"""How recent versions end that got through with errors that they recovered from."""
_MISSING = 127
_SHOWN = 1000


def wait(agent: Agent, timeout: int) -> None:
    """Wait for cloud-init at most *timeout* seconds; whatever comes of it, extensions go on."""
    log = agent.log
    if timeout > LONGEST:
        log.warning(f"Extensions.WaitForCloudInitTimeout is {timeout}; {LONGEST} s is the longest wait there is")
    log.info("Waiting for cloud-init to complete...")
    # A scratch root has a cloud-init of its own, or none: that of the machine says nothing of it.
    program = "cloud-init" if agent.paths.is_real else agent.paths.at("/usr/bin/cloud-init")
    done = agent.run((program, "status", "--wait"), timeout=min(timeout, LONGEST), stop=agent.stopping)
    if agent.stopping.is_set():
        return
    milliseconds = int(done.seconds * 1000)
    said = done.stdout.strip()[-_SHOWN:]
    if done.ok or (done.returncode == DONE_WITH_ERRORS and not done.timed_out):
        how = "" if done.ok else " with errors that it recovered from"
        log.info(f"cloud-init completed{how}\n{said}")
        agent.events.add("CloudInit", message=f"cloud-init completed{how}", duration_ms=milliseconds)
        return
    if done.timed_out:
        reason = f"it was not done after {done.seconds:.0f} s"
    elif done.returncode == _MISSING:
        reason = "there is no cloud-init on this machine"
    else:
        reason = done.describe()
    message = f"Waiting for cloud-init failed, extensions are processed all the same: {reason}"
    log.error(message)
    agent.events.add("CloudInit", success=False, message=message, duration_ms=milliseconds, logged=True)
