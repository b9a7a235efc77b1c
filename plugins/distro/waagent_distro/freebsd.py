"""``freebsd``: FreeBSD (spec/distro.md §4.8, §5.7, spec/resourcedisk.md §7).

Tested against transcripts of the commands' output, not on the system itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from waagent import AgentError, hookimpl

if TYPE_CHECKING:
    from waagent import Agent

_SUDOERS_DIR = "/usr/local/etc/sudoers.d"
_LINUX_SUDOERS_DIR = "/etc/sudoers.d"
_NEW_SMBIOS = (2, 6)

# ---- Accounts --------------------------------------------------------------------------------------------------------


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool:
    """Run ``pw useradd``."""
    from waagent_distro.steps import accounts

    accounts.check_name(name)
    if accounts.find_user(agent, name) is not None:
        agent.log.info(f"User {name} already exists, skip useradd")
        return True
    command = ["pw", "useradd", name]
    if expiration is not None:
        command += ["-e", _day(expiration)]
    command.append("-m")
    if comment is not None:
        command += ["-c", comment.replace(":", " ")]
    agent.run(command, timeout=60, check=True)
    return True


@hookimpl
def delete_user(agent: Agent, name: str) -> bool:
    """Run ``rmuser``."""
    from waagent_distro.steps import accounts, sudoers

    if accounts.is_system_user(agent, name):
        raise AgentError(f"User {name} is a system user, will not delete it.")
    if accounts.find_user(agent, name) is not None:
        agent.run(("touch", agent.paths.at("/var/run/utx.active")))
        agent.run(("rmuser", "-y", name), timeout=90, check=True)
    return sudoers.revoke(agent, name, _sudoers_dir(agent))


@hookimpl
def set_password(agent: Agent, name: str, password: str) -> bool:
    """Hand the hash to ``pw`` on its standard input."""
    from waagent_distro.steps import accounts, passwords

    accounts.check_name(name)
    if accounts.is_system_user(agent, name):
        raise AgentError(f"User {name} is a system user, will not set password.")
    hashed = passwords.hash_password(agent, password)
    agent.run(("pw", "usermod", name, "-H", "0"), input=f"{hashed}\n".encode(), timeout=60, check=True)
    return True


@hookimpl
def lock_root_password(agent: Agent) -> bool:
    """Run ``pw``."""
    agent.run(("pw", "usermod", "root", "-h", "-"), check=True)
    return True


@hookimpl
def configure_sudo(agent: Agent, name: str, password_required: bool) -> bool:
    """Add a line where the package ``sudo`` looks."""
    from waagent_distro.steps import sudoers

    return sudoers.grant(agent, name, password_required, _sudoers_dir(agent))


@hookimpl
def restart_ssh(agent: Agent) -> bool:
    """Run ``service``."""
    agent.run(("service", "sshd", "restart"), timeout=60, check=True)
    return True


# ---- Places, services, identity --------------------------------------------------------------------------------------


@hookimpl
def configuration_path(agent: Agent) -> str:
    """``/usr/local/etc/waagent.conf``."""
    return agent.paths.at("/usr/local/etc/waagent.conf")


@hookimpl
def service_action(agent: Agent, service: str, action: str) -> bool:
    """Run ``service``, or ``sysrc`` to enable and disable."""
    if action in ("enable", "disable"):
        word = "YES" if action == "enable" else "NO"
        agent.run(("sysrc", f"{service}_enable={word}"), check=True)
    elif action in ("start", "stop", "restart", "reload"):
        agent.run(("service", service, action), timeout=90, check=True)
    else:
        raise AgentError(f"rc.d cannot {action} a service")
    return True


@hookimpl
def register_service(agent: Agent, program: str) -> bool:
    """Write a script into ``/usr/local/etc/rc.d``, enable it and start it."""
    from waagent_distro.steps import bsdservice

    return bsdservice.register(agent, program, "/usr/local/etc/rc.d/waagent", bsdservice.freebsd_script(program))


@hookimpl
def unregister_service(agent: Agent) -> bool:
    """Stop and disable it, and remove the script."""
    from waagent_distro.steps import bsdservice

    return bsdservice.unregister(agent, "/usr/local/etc/rc.d/waagent")


@hookimpl
def read_vm_id(agent: Agent) -> str:
    """Ask the loader's environment, which shows the firmware's values as they are stored."""
    from waagent_distro.steps import identity

    done = agent.run(("kenv", "-q", "smbios.system.uuid"))
    found = done.stdout.strip()
    if not re.match(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", found):
        return ""
    version = agent.run(("kenv", "-q", "smbios.version")).stdout.strip().split(".")
    known = tuple(int(part) for part in version[:2]) if all(part.isdigit() for part in version[:2]) else (2, 3)
    return (identity.swapped(found) if known < _NEW_SMBIOS else found).upper()


@hookimpl
def set_scsi_timeout(agent: Agent, seconds: int) -> bool:
    """Run ``sysctl``."""
    agent.run(("sysctl", f"kern.cam.da.default_timeout={seconds}"), check=True)
    return True


# ---- Host name, network ----------------------------------------------------------------------------------------------


@hookimpl
def set_hostname(agent: Agent, hostname: str) -> bool:
    """Set it in ``/etc/rc.conf`` and in the kernel."""
    from waagent_distro.steps import hostnames, textfiles

    hostnames.check(hostname)
    path = agent.paths.at("/etc/rc.conf")
    kept = [line for line in textfiles.read_or_empty(path).splitlines() if not line.startswith("hostname=")]
    textfiles.replace_if_different(path, "\n".join([*kept, f'hostname="{hostname}"']) + "\n")
    agent.run(("hostname", hostname), check=True)
    return True


@hookimpl
def find_primary_interface(agent: Agent) -> str:
    """The first Ethernet interface."""
    words = agent.run(("ifconfig", "-l", "ether"), check=True).stdout.split()
    return words[0] if words else ""


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool:
    """Restart dhclient, which leaves the link up."""
    agent.run(("/etc/rc.d/dhclient", "restart", interface), timeout=60, check=True)
    return True


@hookimpl
def start_network(agent: Agent) -> bool:
    """Run ``service netif start``."""
    agent.run(("service", "netif", "start"), timeout=90, check=True)
    return True


@hookimpl
def is_default_route_missing(agent: Agent) -> bool:
    """Read the routing table."""
    lines = agent.run(("netstat", "-rn", "-f", "inet"), check=True).stdout.splitlines()
    return not any(line.split()[:1] == ["default"] for line in lines)


@hookimpl
def add_route(agent: Agent, network: str, prefix: int, gateway: str) -> bool:
    """Run ``route add``."""
    done = agent.run(("route", "add", "-net", f"{network}/{prefix}", gateway))
    if not done.ok and "already in table" not in done.stdout + done.stderr:
        raise AgentError(f"the route is not added: {done.describe()}")
    return True


@hookimpl
def add_broadcast_route(agent: Agent, interface: str) -> bool:
    """Run ``route add``."""
    done = agent.run(("route", "add", "255.255.255.255", "-iface", interface))
    if not done.ok and "already in table" not in done.stdout + done.stderr:
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
    """Look for ``cd0`` and its like."""
    from waagent_distro.steps import media

    return media.find(agent, ("cd[0-9]+",), but)


@hookimpl
def mount_provisioning_media(agent: Agent, device: str, mount_point: str) -> bool:
    """Run ``mount``: it takes one type at a time."""
    from waagent_distro.steps import bsd

    return bsd.mount_media(agent, device, mount_point, ("udf", "cd9660"))


@hookimpl
def eject_provisioning_media(agent: Agent, device: str) -> bool:
    """Run ``cdcontrol``."""
    agent.run(("cdcontrol", "-f", device, "eject"), check=True)
    return True


@hookimpl
def find_resource_disk(agent: Agent) -> str:
    """Follow the virtual bus to the disk."""
    from waagent_distro.steps import freebsddisk

    return freebsddisk.find(agent)


@hookimpl
def read_resource_disk(agent: Agent, device: str) -> dict[str, Any]:
    """Run ``gpart`` and ``fstyp``."""
    from waagent_distro.steps import freebsddisk

    return freebsddisk.read(agent, device)


@hookimpl
def format_resource_disk(agent: Agent, device: str, filesystem: str) -> str:
    """Make one slice with UFS."""
    from waagent_distro.steps import freebsddisk

    return freebsddisk.make(agent, device, filesystem)


@hookimpl
def mount_resource_disk(agent: Agent, partition: str, mount_point: str) -> bool:
    """Run ``mount``; options are not taken here."""
    from waagent_distro.steps import freebsddisk

    return freebsddisk.mount(agent, partition, mount_point)


@hookimpl
def enable_swap(agent: Agent, path: str, size_mib: int) -> bool:
    """Use a file through a memory disk, encrypted with ``ResourceDisk.EnableSwapEncryption``."""
    from waagent_distro.steps import freebsddisk

    return freebsddisk.enable_swap(agent, path, size_mib, agent.config.boolean("ResourceDisk.EnableSwapEncryption"))


def _sudoers_dir(agent: Agent) -> str:
    """Return the configured directory; the default of the option is Linux's, the package's is another."""
    given = agent.config.text("OS.SudoersDir")
    return _SUDOERS_DIR if not given or given == _LINUX_SUDOERS_DIR else given


def _day(expiration: str) -> str:
    """Return ``YYYY-MM-DD`` as ``pw`` takes a date."""
    match = re.match(r"(\d{4})-(\d\d)-(\d\d)\Z", expiration, re.ASCII)
    if match is None:
        raise AgentError(f"{expiration!r} is no day as YYYY-MM-DD")
    year, month, day = match.groups()
    return f"{day}-{month}-{year}"
