"""``linux``: the portable implementation of every operation; distributions and network tools are asked before it.

Each function is short on purpose: what it does is in :mod:`waagent_distro.steps`, loaded when it is first needed, so
that the resident worker carries only what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent

# ---- Accounts --------------------------------------------------------------------------------------------------------


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool:
    """Run ``useradd``."""
    from waagent_distro.steps import accounts

    return accounts.create_user(agent, name, comment, expiration)


@hookimpl
def delete_user(agent: Agent, name: str) -> bool:
    """Run ``userdel``, and take the sudo rights back."""
    from waagent_distro.steps import accounts

    return accounts.delete_user(agent, name)


@hookimpl
def set_password(agent: Agent, name: str, password: str) -> bool:
    """Hash it with the system's library and hand the hash to ``chpasswd``."""
    from waagent_distro.steps import accounts

    return accounts.set_password(agent, name, password)


@hookimpl
def lock_root_password(agent: Agent) -> bool:
    """Replace root's line in the password file."""
    from waagent_distro.steps import accounts

    return accounts.lock_root_password(agent)


@hookimpl
def configure_sudo(agent: Agent, name: str, password_required: bool) -> bool:
    """Add a line to ``<OS.SudoersDir>/waagent``."""
    from waagent_distro.steps import sudoers

    return sudoers.grant(agent, name, password_required)


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
def restart_ssh(agent: Agent) -> bool:
    """Reload the service if it runs."""
    from waagent_distro.steps import sshd

    return sshd.restart(agent)


@hookimpl
def deploy_ssh_key(agent: Agent, name: str, path: str, public_key: str | None, private_key: str | None) -> bool:
    """Write the files, following no link that the user may have laid."""
    from waagent_distro.steps import authorizedkeys

    return authorizedkeys.deploy(agent, name, path, public_key, private_key)


@hookimpl
def label_path(agent: Agent, path: str) -> bool:
    """Run ``restorecon`` where SELinux is on."""
    from waagent_distro.steps import labels

    return labels.label(agent, path)


# ---- Places, services, identity --------------------------------------------------------------------------------------


@hookimpl
def configuration_path(agent: Agent) -> str:
    """``/etc/waagent.conf``."""
    return agent.paths.at("/etc/waagent.conf")


@hookimpl
def service_name() -> str:
    """``waagent``."""
    return "waagent"


@hookimpl
def unit_directory(agent: Agent) -> str:
    """``/etc/systemd/system``: ``/usr`` is read-only on many systems."""
    return agent.paths.at("/etc/systemd/system")


@hookimpl
def binary_directory(agent: Agent) -> str:
    """``/usr/sbin``."""
    return agent.paths.at("/usr/sbin")


@hookimpl
def service_action(agent: Agent, service: str, action: str) -> bool:
    """Ask systemd, OpenRC, procd or the init script, whichever is here."""
    from waagent_distro.steps import services

    return services.act(agent, service, action)


@hookimpl
def register_service(agent: Agent, program: str) -> bool:
    """Write a unit or an init script, enable it and start it."""
    from waagent_distro.steps import registration

    return registration.register(agent, program)


@hookimpl
def unregister_service(agent: Agent) -> bool:
    """Stop and disable it, and remove what registering wrote."""
    from waagent_distro.steps import registration

    return registration.unregister(agent)


@hookimpl
def read_vm_id(agent: Agent) -> str:
    """Read the firmware's system UUID."""
    from waagent_distro.steps import identity

    return identity.vm_id(agent)


@hookimpl
def read_machine() -> dict[str, str | int]:
    """Ask the C library."""
    from waagent_distro.steps import identity

    return identity.machine()


@hookimpl
def read_package_lock(agent: Agent) -> str:
    """Look who holds the lock files of the known package managers."""
    from waagent_distro.steps import packagelock

    return packagelock.holder(agent)


@hookimpl
def supports_remote_access() -> bool:
    """Accounts work, so just-in-time accounts do."""
    return True


@hookimpl
def find_resolver_files(agent: Agent) -> tuple[str, ...]:
    """``/etc/resolv.conf``, unless it is a link: then something else makes it at each boot."""
    from waagent_distro.steps import identity

    return identity.resolver_files(agent)


# ---- Host name, network ----------------------------------------------------------------------------------------------


@hookimpl
def set_hostname(agent: Agent, hostname: str) -> bool:
    """Ask hostnamed; without it, write ``/etc/hostname`` and tell the kernel."""
    from waagent_distro.steps import hostnames

    return hostnames.set_hostname(agent, hostname)


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
def find_primary_interface(agent: Agent) -> str:
    """Read the kernel's routing table."""
    from waagent_distro.steps import interfaces

    return interfaces.primary(agent)


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool:
    """Take the link down and up: the last resort, where no known tool runs the interface."""
    from waagent_distro.steps import interfaces

    return interfaces.bounce(agent, interface)


@hookimpl
def start_network(agent: Agent) -> bool:
    """Start the network service that is enabled here."""
    from waagent_distro.steps import interfaces

    return interfaces.start_network(agent)


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...]:
    """Look for processes with the names of DHCP clients."""
    from waagent_distro.steps import processes

    return processes.named(agent, processes.DHCP_CLIENTS)


@hookimpl
def must_pause_dhcp() -> bool:
    """No: the usual clients share the port."""
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
def dhcp_lease_endpoint(agent: Agent) -> str:
    """Look through the lease files of every known client."""
    from waagent_distro.steps import leasefiles

    return leasefiles.endpoint(agent, leasefiles.EVERYWHERE)


@hookimpl
def is_default_route_missing(agent: Agent) -> bool:
    """Read the kernel's routing table."""
    from waagent_distro.steps import interfaces

    return interfaces.default_interface(agent) == ""


@hookimpl
def add_route(agent: Agent, network: str, prefix: int, gateway: str, interface: str) -> bool:
    """Run ``ip route replace``."""
    from waagent_distro.steps import interfaces

    return interfaces.add_route(agent, network, prefix, gateway, interface)


@hookimpl
def add_broadcast_route(agent: Agent, interface: str) -> bool:
    """Run ``ip route replace``."""
    agent.run(("ip", "route", "replace", "255.255.255.255/32", "dev", interface), check=True)
    return True


@hookimpl
def delete_broadcast_route(agent: Agent, interface: str) -> bool:
    """Run ``ip route del``."""
    from waagent_distro.steps import interfaces

    return interfaces.delete_broadcast_route(agent, interface)


@hookimpl
def open_dhcp_port() -> bool:
    """Nothing stands in the way."""
    return True


@hookimpl
def close_dhcp_port() -> bool:
    """Nothing was opened."""
    return True


@hookimpl
def read_firewall(agent: Agent, endpoint: str, uid: int) -> str:
    """Ask iptables, or nft where there is no iptables."""
    from waagent_distro.steps import firewall

    return firewall.read(agent, endpoint, uid)


@hookimpl
def set_firewall(agent: Agent, endpoint: str, uid: int) -> bool:
    """Replace the rules in one transaction."""
    from waagent_distro.steps import firewall

    return firewall.write(agent, endpoint, uid)


@hookimpl
def persist_firewall(agent: Agent, endpoint: str, uid: int) -> bool:
    """Hand the rules to firewalld, else to a unit that runs before the network."""
    from waagent_distro.steps import firewallboot

    return firewallboot.persist(agent, endpoint, uid)


@hookimpl
def remove_firewall(agent: Agent, endpoint: str, uid: int) -> bool:
    """Delete the rules here, in firewalld and for the next boot."""
    from waagent_distro.steps import firewall, firewallboot

    firewallboot.forget(agent, endpoint, uid)
    return firewall.remove(agent, endpoint, uid)


@hookimpl
def move_persistent_net_rules(agent: Agent) -> bool:
    """Move udev's files into ``Lib.Dir``."""
    from waagent_distro.steps import netrules

    return netrules.move(agent)


@hookimpl
def restore_persistent_net_rules(agent: Agent) -> bool:
    """Move udev's files back."""
    from waagent_distro.steps import netrules

    return netrules.restore(agent)


# ---- Disks -----------------------------------------------------------------------------------------------------------


@hookimpl
def find_provisioning_media(agent: Agent, but: tuple[str, ...]) -> str:
    """Look for an optical drive."""
    from waagent_distro.steps import media

    return media.find(agent, but=but)


@hookimpl
def mount_provisioning_media(agent: Agent, device: str, mount_point: str) -> bool:
    """Run ``mount``, five times at most."""
    from waagent_distro.steps import media

    return media.mount(agent, device, mount_point)


@hookimpl
def unmount_provisioning_media(agent: Agent, mount_point: str) -> bool:
    """Run ``umount``."""
    from waagent_distro.steps import media

    return media.unmount(agent, mount_point)


@hookimpl
def eject_provisioning_media(agent: Agent, device: str) -> bool:
    """Ask the drive, else run ``eject``."""
    from waagent_distro.steps import media

    return media.eject(agent, device)


@hookimpl
def set_scsi_timeout(agent: Agent, seconds: int) -> bool:
    """Write it for every ``sd*`` disk where it differs."""
    from waagent_distro.steps import disks

    return disks.set_scsi_timeout(agent, seconds)
