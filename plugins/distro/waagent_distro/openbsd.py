"""``openbsd``: OpenBSD (spec/distro.md §4.8, §5.7, spec/resourcedisk.md §7).

Tested against transcripts of the commands' output, not on the system itself.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from waagent import AgentError, hookimpl

if TYPE_CHECKING:
    from waagent import Agent

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

# ---- Accounts --------------------------------------------------------------------------------------------------------


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool:
    """Run ``useradd``."""
    from waagent_distro.steps import accounts

    return accounts.create_user(agent, name, comment, expiration)


@hookimpl
def delete_user(agent: Agent, name: str) -> bool:
    """Run ``userdel``, and take the rights of ``doas`` back."""
    from waagent_distro.steps import accounts, doas

    if accounts.is_system_user(agent, name):
        raise AgentError(f"User {name} is a system user, will not delete it.")
    if accounts.find_user(agent, name) is not None:
        agent.run(("userdel", "-r", name), timeout=90, check=True)
    return doas.revoke(agent, name)


@hookimpl
def set_password(agent: Agent, name: str, password: str) -> bool:
    """Let ``encrypt`` make the hash, which alone knows the system's method."""
    from waagent_distro.steps import accounts

    accounts.check_name(name)
    if accounts.is_system_user(agent, name):
        raise AgentError(f"User {name} is a system user, will not set password.")
    if not password or any(letter in password for letter in "\0\n\r"):
        raise AgentError("the password is empty or holds a line break or a NUL: nobody could log in with it")
    hashed = agent.run(("encrypt",), input=f"{password}\n".encode(), check=True).stdout.strip()
    done = agent.run(("usermod", "-p", hashed, name), timeout=60)
    if not done.ok:
        reason = done.stderr.strip().replace(hashed, "<redacted>")
        raise AgentError(f"cannot set the password of {name}: {reason}")
    return True


@hookimpl
def lock_root_password(agent: Agent) -> bool:
    """Run ``usermod``."""
    agent.run(("usermod", "-p", "*", "root"), check=True)
    return True


@hookimpl
def configure_sudo(agent: Agent, name: str, password_required: bool) -> bool:
    """Add a rule for ``doas``."""
    from waagent_distro.steps import doas

    return doas.grant(agent, name, password_required)


@hookimpl
def restart_ssh(agent: Agent) -> bool:
    """Run ``rcctl``."""
    agent.run(("rcctl", "restart", "sshd"), timeout=60, check=True)
    return True


# ---- Services, identity ----------------------------------------------------------------------------------------------


@hookimpl
def service_action(agent: Agent, service: str, action: str) -> bool:
    """Run ``rcctl``."""
    if action not in ("start", "stop", "restart", "reload", "enable", "disable"):
        raise AgentError(f"rcctl cannot {action} a service")
    agent.run(("rcctl", action, service), timeout=90, check=True)
    return True


@hookimpl
def register_service(agent: Agent, program: str) -> bool:
    """Write a script into ``/etc/rc.d``, enable it and start it."""
    from waagent_distro.steps import bsdservice

    return bsdservice.register(agent, program, "/etc/rc.d/waagent", bsdservice.openbsd_script(program))


@hookimpl
def unregister_service(agent: Agent) -> bool:
    """Stop and disable it, and remove the script."""
    from waagent_distro.steps import bsdservice

    return bsdservice.unregister(agent, "/etc/rc.d/waagent")


@hookimpl
def read_vm_id(agent: Agent) -> str:
    """Ask ``sysctl``."""
    found = agent.run(("sysctl", "-n", "hw.uuid")).stdout.strip().upper()
    return found if _GUID.match(found) else ""


@hookimpl
def set_scsi_timeout() -> bool:
    """There is no such setting."""
    return True


# ---- Host name, network ----------------------------------------------------------------------------------------------


@hookimpl
def set_hostname(agent: Agent, hostname: str) -> bool:
    """Write ``/etc/myname`` and tell the kernel."""
    from waagent_distro.steps import hostnames, textfiles

    hostnames.check(hostname)
    textfiles.replace_if_different(agent.paths.at("/etc/myname"), hostname + "\n")
    agent.run(("hostname", hostname), check=True)
    return True


@hookimpl
def find_primary_interface(agent: Agent) -> str:
    """The first ``hvn`` interface."""
    match = re.search(r"^(hvn\d+):", agent.run(("ifconfig", "hvn")).stdout, re.MULTILINE)
    return match.group(1) if match else ""


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool:
    """Run ``dhclient``, which takes over from the one that runs."""
    agent.run(("/sbin/dhclient", interface), timeout=60, check=True)
    return True


@hookimpl
def start_network(agent: Agent) -> bool:
    """Run ``netstart``."""
    agent.run(("sh", "/etc/netstart"), timeout=90, check=True)
    return True


@hookimpl
def dhcp_lease_endpoint(agent: Agent) -> str:
    """Read dhclient's lease files."""
    from waagent import parse_openbsd_leases
    from waagent_distro.steps import leasefiles

    return leasefiles.endpoint(agent, (("/var/db/dhclient.leases.*", parse_openbsd_leases),))


@hookimpl
def is_default_route_missing(agent: Agent) -> bool:
    """Ask the routing table."""
    return not agent.run(("route", "-n", "get", "default")).ok


@hookimpl
def add_route(agent: Agent, network: str, prefix: int, gateway: str) -> bool:
    """Run ``route add``."""
    done = agent.run(("route", "add", "-net", f"{network}/{prefix}", gateway))
    if not done.ok and "File exists" not in done.stderr:
        raise AgentError(f"the route is not added: {done.describe()}")
    return True


@hookimpl
def add_broadcast_route(agent: Agent, interface: str) -> bool:
    """Run ``route add``."""
    done = agent.run(("route", "add", "255.255.255.255", "-iface", interface))
    if not done.ok and "File exists" not in done.stderr:
        raise AgentError(f"the route is not added: {done.describe()}")
    return True


@hookimpl
def delete_broadcast_route(agent: Agent, interface: str) -> bool:
    """Run ``route delete``."""
    done = agent.run(("route", "delete", "255.255.255.255", "-iface", interface))
    if not done.ok and "not in table" not in done.stdout + done.stderr:
        raise AgentError(f"the route stays: {done.describe()}")
    return True


# ---- Disks -----------------------------------------------------------------------------------------------------------


@hookimpl
def find_provisioning_media(agent: Agent, but: tuple[str, ...]) -> str:
    """Look for ``cd0c`` and its like."""
    from waagent_distro.steps import media

    return media.find(agent, ("cd[0-9]c",), but)


@hookimpl
def mount_provisioning_media(agent: Agent, device: str, mount_point: str) -> bool:
    """Run ``mount``."""
    from waagent_distro.steps import bsd

    return bsd.mount_media(agent, device, mount_point, ("udf",))


@hookimpl
def eject_provisioning_media(agent: Agent, device: str) -> bool:
    """Run ``cdio``, which takes the drive's name."""
    agent.run(("cdio", "-f", os.path.basename(device)[:-1], "eject"), check=True)
    return True


@hookimpl
def find_resource_disk(agent: Agent) -> str:
    """The second disk of the virtual controller."""
    from waagent_distro.steps import openbsddisk

    return openbsddisk.find(agent)


@hookimpl
def read_resource_disk(agent: Agent, device: str) -> dict[str, Any]:
    """Run ``fdisk`` and ``disklabel``."""
    from waagent_distro.steps import openbsddisk

    return openbsddisk.read(agent, device)


@hookimpl
def format_resource_disk(agent: Agent, device: str, filesystem: str) -> str:
    """Write a table, a label with a half for swap, and the file system."""
    from waagent_distro.steps import openbsddisk

    return openbsddisk.make(agent, device, filesystem)


@hookimpl
def mount_resource_disk(agent: Agent, partition: str, mount_point: str) -> bool:
    """Run ``mount``; options are not taken here."""
    from waagent_distro.steps import openbsddisk

    return openbsddisk.mount(agent, partition, mount_point)


@hookimpl
def enable_swap(agent: Agent, path: str) -> bool:
    """Use the partition that formatting left for it; its size is that one's."""
    from waagent_distro.steps import openbsddisk

    return openbsddisk.enable_swap(agent, path)
