"""Operations on the system as a whole: places, services, host name, identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.markers import changes, reads

if TYPE_CHECKING:
    from waagent.agent import Agent


@reads()
def configuration_path(agent: Agent) -> str | None:
    """Name the agent's main configuration file. Reading.

    When: a command shows or writes the configuration.
    Arguments: ``agent``.
    Returns: an absolute path (``/etc/waagent.conf``).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def configuration_path(agent):
            return agent.paths.at("/usr/local/etc/waagent.conf")
    """


@reads()
def service_name(agent: Agent) -> str | None:
    """Name the agent's own service. Reading.

    When: the agent restarts itself or is registered.
    Arguments: ``agent``.
    Returns: the name without suffix (``waagent``, ``walinuxagent``).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def service_name():
            return "walinuxagent"
    """


@reads()
def unit_directory(agent: Agent) -> str | None:
    """Name the directory for units that are written at run time. Reading.

    When: a feature needs a unit of its own.
    Arguments: ``agent``.
    Returns: an absolute path (``/etc/systemd/system``; ``/usr`` may be read-only).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def unit_directory(agent):
            return agent.paths.at("/etc/systemd/system")
    """


@reads()
def binary_directory(agent: Agent) -> str | None:
    """Name the directory where the distribution keeps the agent's program. Reading.

    When: the agent is registered as a service.
    Arguments: ``agent``.
    Returns: an absolute path (``/usr/sbin``).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def binary_directory(agent):
            return agent.paths.at("/usr/bin")
    """


@changes()
def service_action(agent: Agent, service: str, action: str) -> bool | None:
    """Act on a service. Changing.

    When: a feature starts, stops or reloads a service.
    Arguments: ``agent``; ``service``: its name without suffix; ``action``: ``start``, ``stop``, ``restart``,
        ``reload``, ``enable``, ``disable``, ``mask`` or ``unmask``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def service_action(agent, service, action):
            agent.run(("rc-service", service, action), check=True)
            return True
    """


@changes(deadline=400.0)
def register_service(agent: Agent, program: str) -> bool | None:
    """Install, enable and start the agent's own service. Changing.

    When: ``waagent -register-service``.
    Arguments: ``agent``; ``program``: absolute path of the ``waagent`` program that the service runs.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 400 s.
    Again: yes: a later call changes the program.
    Example::

        @hookimpl
        def register_service(agent, program):
            write_unit(agent.distro.unit_directory(), program)
            return agent.distro.service_action(agent.distro.service_name(), "enable")
    """


@changes(deadline=300.0)
def unregister_service(agent: Agent) -> bool | None:
    """Stop and disable the agent's own service and remove what registering wrote. Changing.

    When: ``waagent -unregister-service``.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 300 s.
    Again: yes.
    Example::

        @hookimpl
        def unregister_service(agent):
            return agent.distro.service_action(agent.distro.service_name(), "disable")
    """


@changes()
def set_hostname(agent: Agent, hostname: str) -> bool | None:
    """Give the machine its name: in the kernel and for the next boot. Changing.

    When: provisioning, and when the name has to be restored.
    Arguments: ``agent``; ``hostname``: a valid name, without domain as a rule.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def set_hostname(agent, hostname):
            agent.run(("hostnamectl", "set-hostname", "--static", hostname), check=True)
            return True
    """


@changes(interface=None)
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> bool | None:
    """Make the DHCP client send the host name. Changing.

    When: the name is published.
    Arguments: ``agent``; ``hostname``; ``interface``: a network interface, ``None`` for the primary one.
    Returns: ``True`` when it is done, or when the client sends the system's name by itself.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def set_dhcp_hostname(hostname):
            set_value("/etc/sysconfig/network/dhcp", "DHCLIENT_HOSTNAME_OPTION", hostname)
            return True
    """


@changes(deadline=600.0)
def publish_hostname(agent: Agent, hostname: str) -> bool | None:
    """Make the host name known to the platform's DNS. Changing.

    When: the host name was set or changed.
    Arguments: ``agent``; ``hostname``.
    Returns: ``True`` when the DHCP server was told; the caller records the published name.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 600 s.
    Again: yes.
    Example::

        @hookimpl
        def publish_hostname(agent, hostname):
            agent.distro.set_dhcp_hostname(hostname)
            return agent.distro.restart_interface(agent.distro.find_primary_interface())
    """


@reads()
def read_vm_id(agent: Agent) -> str | None:
    """Read the machine's unique id. Reading.

    When: at every start, to notice a clone; for telemetry.
    Arguments: ``agent``.
    Returns: an upper-case GUID as the platform writes it (first three groups byte-swapped where the firmware needs it),
        or an empty text when the firmware tells none.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def read_vm_id(agent):
            return agent.run(("sysctl", "-n", "hw.uuid"), check=True).stdout.strip().upper()
    """


@reads()
def read_machine(agent: Agent) -> dict[str, str | int] | None:
    """Read the size of the machine. Reading.

    When: for telemetry.
    Arguments: ``agent``.
    Returns: ``{"memory_mib": int, "processors": int, "architecture": str}``, the last as ``uname -m`` has it.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def read_machine():
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
            return {"memory_mib": memory, "processors": os.cpu_count(), "architecture": os.uname().machine}
    """


@reads()
def read_package_lock(agent: Agent) -> str | None:
    """Tell who holds the package manager's lock. Reading.

    When: before install and enable of an extension, when ``Extensions.WaitForPackageLock`` is set.
    Arguments: ``agent``.
    Returns: who holds it, for the log; an empty text when it is free.
    Answers: the first.
    Failure: the next plugin is asked; without an answer nobody waits.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def read_package_lock(agent):
            return lock_holder(agent.paths.at("/var/lib/dpkg/lock-frontend"))
    """


@reads()
def supports_remote_access(agent: Agent) -> bool | None:
    """Tell whether just-in-time accounts work here. Reading.

    When: a goal state names remote access users.
    Arguments: ``agent``.
    Returns: ``True`` or ``False``.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def supports_remote_access():
            return True
    """


@reads()
def find_resolver_files(agent: Agent) -> tuple[str, ...] | None:
    """Name the resolver files that deprovisioning removes. Reading.

    When: ``waagent -deprovision``, before it shows its warnings.
    Arguments: ``agent``.
    Returns: absolute paths; none where the resolver configuration is kept (it is a link, or made at each boot).
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def find_resolver_files(agent):
            path = agent.paths.at("/etc/resolv.conf")
            return () if os.path.islink(path) else (path,)
    """
