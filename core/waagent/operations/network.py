"""Operations on the network: interfaces, DHCP, routes, firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.markers import changes, reads

if TYPE_CHECKING:
    from waagent.agent import Agent


@reads()
def find_primary_interface(agent: Agent) -> str | None:
    """Name the interface that the default route uses. Reading.

    When: the host name is published; the network is watched.
    Arguments: ``agent``.
    Returns: the interface's name (``eth0``): that of the default route with the lowest metric, without one the first
        interface with hardware behind it; an empty text when there is none.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def find_primary_interface(agent):
            return first_ethernet(agent.run(("ifconfig", "-l", "ether"), check=True).stdout)
    """


@changes(deadline=300.0)
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """Make the interface ask DHCP again, with as little loss of connection as the tools allow. Changing.

    When: the host name has to reach the DHCP server.
    Arguments: ``agent``; ``interface``: its name.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 300 s.
    Again: yes.
    Example::

        @hookimpl
        def restart_interface(agent, interface):
            agent.run(("networkctl", "reconfigure", interface), check=True)
            return True
    """


@changes()
def start_network(agent: Agent) -> bool | None:
    """Start networking. Changing.

    When: provisioning finds no network.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def start_network(agent):
            return agent.distro.service_action("systemd-networkd", "start")
    """


@reads()
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """Find the DHCP client. Reading.

    When: the network is watched: a new process means a new lease.
    Arguments: ``agent``.
    Returns: process ids in ascending order; none when no client runs.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def find_dhcp_processes(agent):
            return tuple(sorted(processes_named("wickedd-dhcp4")))
    """


@reads()
def must_pause_dhcp(agent: Agent) -> bool | None:
    """Tell whether the DHCP client has to be stopped while the agent asks DHCP itself. Reading.

    When: before the agent's own DHCP exchange.
    Arguments: ``agent``.
    Returns: ``True`` or ``False``.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def must_pause_dhcp():
            return True
    """


@changes()
def stop_dhcp(agent: Agent) -> bool | None:
    """Stop the DHCP client. Changing.

    When: before the agent's own DHCP exchange, where ``must_pause_dhcp`` says so.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def stop_dhcp(agent):
            return agent.distro.service_action("systemd-networkd", "stop")
    """


@changes()
def start_dhcp(agent: Agent) -> bool | None:
    """Start the DHCP client again. Changing.

    When: after the agent's own DHCP exchange.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def start_dhcp(agent):
            return agent.distro.service_action("systemd-networkd", "start")
    """


@reads()
def dhcp_lease_endpoint(agent: Agent) -> str | None:
    """Read the platform's address (option 245) from the DHCP client's lease. Reading.

    When: the endpoint is looked for and no route leads to the usual one.
    Arguments: ``agent``.
    Returns: an IPv4 address, or an empty text when the leases are there and none names one.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def dhcp_lease_endpoint(agent):
            leases = glob.glob(agent.paths.at("/run/systemd/netif/leases/*"))
            return next(filter(None, map(option_245, leases)), "")
    """


@reads()
def is_default_route_missing(agent: Agent) -> bool | None:
    """Tell whether there is no default route. Reading.

    When: before the agent's own DHCP exchange.
    Arguments: ``agent``.
    Returns: ``True`` or ``False``.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def is_default_route_missing(agent):
            return "default" not in agent.run(("ip", "route", "show"), check=True).stdout
    """


@changes()
def add_route(agent: Agent, network: str, prefix: int, gateway: str, interface: str) -> bool | None:
    """Add a route. Changing.

    When: after the agent's own DHCP exchange, for the routes that the answer names.
    Arguments: ``agent``; ``network``: an IPv4 address; ``prefix``: its length in bits; ``gateway``: an IPv4 address;
        ``interface``: its name.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def add_route(agent, network, prefix, gateway):
            agent.run(("ip", "route", "add", f"{network}/{prefix}", "via", gateway), check=True)
            return True
    """


@changes()
def add_broadcast_route(agent: Agent, interface: str) -> bool | None:
    """Route 255.255.255.255 through an interface, so that DHCP packets can leave without a default route. Changing.

    When: before the agent's own DHCP exchange, when there is no default route.
    Arguments: ``agent``; ``interface``: its name.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def add_broadcast_route(agent, interface):
            agent.run(("ip", "route", "add", "255.255.255.255", "dev", interface), check=True)
            return True
    """


@changes()
def delete_broadcast_route(agent: Agent, interface: str) -> bool | None:
    """Take the broadcast route away again. Changing.

    When: after the agent's own DHCP exchange, when it was added.
    Arguments: ``agent``; ``interface``: its name.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def delete_broadcast_route(agent, interface):
            agent.run(("ip", "route", "del", "255.255.255.255", "dev", interface))
            return True
    """


@changes()
def open_dhcp_port(agent: Agent) -> bool | None:
    """Let DHCP answers (UDP port 68) through the firewall. Changing.

    When: before the agent's own DHCP exchange.
    Arguments: ``agent``.
    Returns: ``True`` when it is done, or when nothing stands in the way.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def open_dhcp_port(agent):
            return True
    """


@changes()
def close_dhcp_port(agent: Agent) -> bool | None:
    """Undo what ``open_dhcp_port`` did. Changing.

    When: after the agent's own DHCP exchange.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def close_dhcp_port(agent):
            return True
    """


@reads()
def read_firewall(agent: Agent, endpoint: str, uid: int) -> str | None:
    """Tell the state of the rules that keep other users from the platform's endpoint (distro §5.6). Reading.

    When: at start and every ``OS.EnableFirewallPeriod``.
    Arguments: ``agent``; ``endpoint``: an IPv4 address; ``uid``: the agent's user id.
    Returns: ``present``, ``absent``, or what is wrong with them in one line.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def read_firewall(agent, endpoint):
            done = agent.run(("pfctl", "-a", "waagent", "-sr"))
            return "present" if endpoint in done.stdout else "absent"
    """


@changes()
def set_firewall(agent: Agent, endpoint: str, uid: int) -> bool | None:
    """Write these rules, whole and in order. Changing.

    When: ``read_firewall`` does not say ``present`` and ``OS.EnableFirewall`` is on.
    Arguments: ``agent``; ``endpoint``: an IPv4 address; ``uid``: the agent's user id.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def set_firewall(agent, endpoint, uid):
            agent.run(("nft", "-f", "-"), input=rules(endpoint, uid).encode(), check=True)
            return True
    """


@changes(deadline=300.0)
def persist_firewall(agent: Agent, endpoint: str, uid: int) -> bool | None:
    """See to it that the rules are there early at the next boot. Changing.

    When: after ``set_firewall``, at the start of the worker.
    Arguments: ``agent``; ``endpoint``: an IPv4 address; ``uid``: the agent's user id.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 300 s.
    Again: yes.
    Example::

        @hookimpl
        def persist_firewall(agent):
            return agent.distro.service_action("waagent-firewall", "enable")
    """


@changes(deadline=300.0)
def remove_firewall(agent: Agent, endpoint: str, uid: int) -> bool | None:
    """Take the rules away, now and for the next boot. Changing.

    When: ``OS.EnableFirewall`` was switched off; the service is unregistered.
    Arguments: ``agent``; ``endpoint``: an IPv4 address; ``uid``: the agent's user id.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 300 s.
    Again: yes.
    Example::

        @hookimpl
        def remove_firewall(agent):
            agent.run(("nft", "delete", "table", "ip", "walinuxagent"))
            return True
    """


@changes()
def move_persistent_net_rules(agent: Agent) -> bool | None:
    """Move udev's persistent interface names out of the way: they may be another machine's. Changing.

    When: at start, and in deprovisioning.
    Arguments: ``agent``.
    Returns: ``True`` when they are in ``Lib.Dir``, or when there are none.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def move_persistent_net_rules():
            return True
    """


@changes()
def restore_persistent_net_rules(agent: Agent) -> bool | None:
    """Put these files back. Changing.

    When: the service is unregistered.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def restore_persistent_net_rules():
            return True
    """
