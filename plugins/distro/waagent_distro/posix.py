"""``posix``: what holds for the BSDs. Nothing of Linux is asked after it (ruling 22).

Tested against transcripts of the commands' output, not on the systems themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def configuration_path(agent: Agent) -> str:
    """``/etc/waagent.conf``."""
    return agent.paths.at("/etc/waagent.conf")


@hookimpl
def service_name() -> str:
    """``waagent``."""
    return "waagent"


@hookimpl
def binary_directory(agent: Agent) -> str:
    """``/usr/local/sbin``."""
    return agent.paths.at("/usr/local/sbin")


@hookimpl
def configure_sshd(agent: Agent, password_authentication: bool | None, client_alive_interval: int | None) -> bool:
    """Edit ``sshd_config``, and write a drop-in for what another one would override."""
    from waagent_distro.steps import sshd

    return sshd.configure(agent, password_authentication, client_alive_interval)


@hookimpl
def regenerate_host_keys(agent: Agent, kind: str) -> bool:
    """Run ``ssh-keygen``."""
    from waagent_distro.steps import hostkeys

    return hostkeys.regenerate(agent, kind)


@hookimpl
def deploy_ssh_key(agent: Agent, name: str, path: str, public_key: str | None, private_key: str | None) -> bool:
    """Write the files, following no link that the user may have laid."""
    from waagent_distro.steps import authorizedkeys

    return authorizedkeys.deploy(agent, name, path, public_key, private_key)


@hookimpl
def label_path() -> bool:
    """There are no labels."""
    return True


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str) -> bool:
    """Edit dhclient's configuration where there is one."""
    from waagent_distro.steps import hostnames

    return hostnames.set_in_dhclient(agent, hostname)


@hookimpl
def publish_hostname(agent: Agent, hostname: str) -> bool:
    """Tell the DHCP client, and make it ask again."""
    from waagent_distro.steps import hostnames

    return hostnames.publish(agent, hostname)


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...]:
    """Run ``pgrep``."""
    from waagent_distro.steps import bsd

    return bsd.dhcp_processes(agent)


@hookimpl
def must_pause_dhcp() -> bool:
    """No: dhclient shares the port."""
    return False


@hookimpl
def stop_dhcp() -> bool:
    """Nothing has to be stopped."""
    return True


@hookimpl
def start_dhcp() -> bool:
    """Nothing was stopped."""
    return True


@hookimpl
def open_dhcp_port() -> bool:
    """Nothing stands in the way."""
    return True


@hookimpl
def close_dhcp_port() -> bool:
    """Nothing was opened."""
    return True


@hookimpl
def move_persistent_net_rules() -> bool:
    """Nothing: there is no udev."""
    return True


@hookimpl
def restore_persistent_net_rules() -> bool:
    """Nothing was moved."""
    return True


@hookimpl
def read_machine(agent: Agent) -> dict[str, str | int]:
    """Run ``sysctl``."""
    from waagent_distro.steps import bsd

    return bsd.machine(agent)


@hookimpl
def supports_remote_access() -> bool:
    """Accounts work, so just-in-time accounts do."""
    return True


@hookimpl
def find_resolver_files(agent: Agent) -> tuple[str, ...]:
    """``/etc/resolv.conf``, unless it is a link."""
    from waagent_distro.steps import identity

    return identity.resolver_files(agent)


@hookimpl
def unmount_provisioning_media(agent: Agent, mount_point: str) -> bool:
    """Run ``umount``."""
    from waagent_distro.steps import bsd

    return bsd.unmount(agent, mount_point)
