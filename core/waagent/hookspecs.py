"""Every hook of the agent: the page a plugin author reads first. Distribution operations are in ``waagent.operations``.

Implement a hook by a function of the same name, marked ``@hookimpl``, that takes the arguments it needs of those listed
(any subset, by name, without defaults): arguments may be added later without breaking anybody. One plugin's failure is
logged under its name and never keeps the next plugin from being called. Order: events and contributions
run the distribution's plugins, our features, then third parties by name; decisions run third parties first, then the
distribution's plugins from the most special to the most general, then our features. ``tryfirst`` and ``trylast`` have
no effect, and wrappers are refused.

Each hook says: when it fires, its arguments, what it returns, whether one answer or all count, what a failure means,
its deadline, whether it can run twice, and an example. ``agent`` is always :class:`waagent.Agent`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

from waagent.markers import HOOK_API, contribution, decision, event, hookimpl, hookspec

if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.plan import Plan
    from waagent.platform.models import GoalState, Handler, StatusReport
    from waagent.records import (
        Command,
        CommandResult,
        HandlerCommand,
        HealthCheck,
        Launch,
        LogSource,
        Option,
        Package,
        Periodic,
        Veto,
    )

    Plans = Union[Plan, Iterable[Plan], None]

__all__ = ["HOOK_API", "hookimpl", "hookspec"]

# ---- Events: the life of the service --------------------------------------------------------------------------------


@event()
def on_boot(agent: Agent) -> Plans:
    """Say what has to be done at the start of the service.

    When: at every start of the service, in the boot stage, after all plugins are loaded.
    Arguments: ``agent``: the boot stage's agent.
    Returns: a plan, several, or ``None``; each with its phase: ``early``, then ``disk`` beside ``provision``, then
        ``after`` (the default); ``background`` when all of them are through, and nobody waits for it.
    Answers: all; the plans run by phase, within a phase in call order.
    Failure: logged and counted; the other plugins' plans run, and the failure is in the status.
    Deadline: 30 s for making the plans; their steps have deadlines of their own.
    Again: yes, at every start: a plan's probe finds what is done already.
    Example::

        @hookimpl
        def on_boot(agent):
            def missing(facts):
                return [] if facts["there"] else [Step("motd", "write the greeting", write_greeting)]
            return Plan("motd", probe=look_for_greeting, planner=missing, phase="after")
    """


@event()
def on_start(agent: Agent) -> None:
    """Begin work in the worker.

    When: the worker has its plugins, before it acts on the first goal state.
    Arguments: ``agent``: the worker's agent.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted; the worker goes on.
    Deadline: 30 s.
    Again: yes, at every start of the worker, also after it was killed.
    Example::

        @hookimpl
        def on_start(agent):
            agent.lane("acme").submit(warm_up, name="warm up")
    """


@event(deadline=10.0)
def on_stop(agent: Agent) -> None:
    """End work in the worker.

    When: the worker was asked to stop; ``agent.stopping`` is set already.
    Arguments: ``agent``: the worker's agent.
    Returns: nothing.
    Answers: all.
    Failure: logged; the worker stops.
    Deadline: 10 s, then the worker stops without waiting.
    Again: no; and it does not run when the worker is killed: nothing may depend on it.
    Example::

        @hookimpl
        def on_stop(agent):
            close_connections()
    """


@event()
def on_goal_state(agent: Agent, goal_state: GoalState) -> None:
    """Take note of a new desired state.

    When: a new goal state was fetched and validated, and the boot stage has ended.
    Arguments: ``agent``; ``goal_state``: a frozen :class:`waagent.GoalState`.
    Returns: nothing; long work goes to a lane of the plugin's own.
    Answers: all.
    Failure: logged and counted; the other plugins are called.
    Deadline: 30 s.
    Again: yes, with the same goal state after a restart of the worker.
    Example::

        @hookimpl
        def on_goal_state(agent, goal_state):
            agent.log.info(f"{len(goal_state.extensions.handlers)} handlers wanted")
    """


@event()
def on_hostname_change(agent: Agent, old: str, new: str) -> Plans:
    """React to a changed host name.

    When: the kernel's host name differs from the published one and was stable for 5 s.
    Arguments: ``agent``; ``old``: the published name; ``new``: the present one.
    Returns: a plan, several, or ``None``.
    Answers: all; the plans run in call order.
    Failure: logged and counted; the other plugins' plans run.
    Deadline: 30 s for making the plans.
    Again: yes, when publishing did not succeed.
    Example::

        @hookimpl
        def on_hostname_change(agent, new):
            agent.log.info(f"this machine is called {new} now")
    """


@event()
def on_network_change(agent: Agent) -> Plans:
    """React to a changed network.

    When: the DHCP client was restarted or the address of the primary interface changed.
    Arguments: ``agent``.
    Returns: a plan, several, or ``None``.
    Answers: all; the plans run in call order.
    Failure: logged and counted; the other plugins' plans run.
    Deadline: 30 s for making the plans.
    Again: yes; several changes may come as one.
    Example::

        @hookimpl
        def on_network_change(agent):
            agent.log.info(f"network changed on {agent.distro.find_primary_interface()}")
    """


@event()
def on_vm_identity_change(agent: Agent, old: str, new: str) -> Plans:
    """React to being another virtual machine than before.

    When: at a start of the service, before ``on_boot``: the machine's unique id differs from the recorded one: it is a
        copy, or was moved.
    Arguments: ``agent``; ``old``, ``new``: the unique ids, upper-case GUIDs.
    Returns: a plan, several, or ``None``.
    Answers: all; the plans run in call order.
    Failure: logged and counted; the other plugins' plans run.
    Deadline: 30 s for making the plans.
    Again: only when the agent was killed or stopped before the new id was recorded, which is after the plans, also
        after plans that failed.
    Example::

        @hookimpl
        def on_vm_identity_change(agent, old, new):
            forget_licence_of(old)
    """


@event(deadline=3660.0)
def before_extensions(agent: Agent) -> None:
    """Wait for what extensions rely on.

    When: before the first command of a goal state, in the lane of extensions.
    Arguments: ``agent``.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted; the extensions run.
    Deadline: 3660 s: this hook is for waiting. A wait ends when ``agent.stopping`` is set.
    Again: yes, once per goal state.
    Example::

        @hookimpl
        def before_extensions(agent):
            agent.run(("cloud-init", "status", "--wait"), timeout=600)
    """


@event(deadline=3660.0)
def before_handler_command(agent: Agent, command: HandlerCommand) -> None:
    """Wait for what a handler's command relies on.

    When: before a command of a handler is started and before ``allow_command`` is asked, in the lane of extensions; not
        when a running one is taken up after a restart.
    Arguments: ``agent``; ``command``: a :class:`waagent.HandlerCommand`.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted; the command runs.
    Deadline: 3660 s: this hook is for waiting. A wait ends when ``agent.stopping`` is set, and the command does
        not run then.
    Again: yes, also for the same command when the agent was stopped or killed before it was started.
    Example::

        @hookimpl
        def before_handler_command(agent, command):
            while command.operation == "install" and backup_runs() and not agent.stopping.wait(5):
                agent.log.info(f"{command.handler_name} waits for the backup")
    """


@event()
def after_handler_command(agent: Agent, command: HandlerCommand, result: CommandResult) -> None:
    """Take note of how a handler's command ended.

    When: a command of a handler has ended or could not be started; in the lane of extensions, before its outcome is
        acted on.
    Arguments: ``agent``; ``command``: a :class:`waagent.HandlerCommand`; ``result``: a :class:`waagent.CommandResult`.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted; the outcome counts all the same.
    Deadline: 30 s.
    Again: yes, when the agent is killed before the outcome is on record. Not called for a command that outlived its
        goal state together with the agent process that had started it.
    Example::

        @hookimpl
        def after_handler_command(agent, command, result):
            if result.timed_out:
                agent.log.warning(f"{command.operation} of {command.handler_name} took over {command.timeout:g} s")
    """


@event()
def on_extension_status(agent: Agent, handler: str, extension: str | None, status: str) -> None:
    """Take note of an extension's new status.

    When: the status that an extension reports changed.
    Arguments: ``agent``; ``handler``: its name; ``extension``: its name in a multi-config handler, else ``None``;
        ``status``: ``transitioning``, ``warning``, ``error`` or ``success``.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted.
    Deadline: 30 s.
    Again: yes, the last status comes again after a restart of the worker.
    Example::

        @hookimpl
        def on_extension_status(agent, handler, status):
            if status == "error":
                page_somebody(handler)
    """


@event()
def on_resource_disk_ready(agent: Agent, mount_point: str, device: str, filesystem: str) -> None:
    """Use the resource disk: it is mounted.

    When: after the steps of the disk phase, also when it had been mounted before.
    Arguments: ``agent``; ``mount_point``: an absolute path; ``device``: the partition; ``filesystem``: its type.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted.
    Deadline: 30 s.
    Again: yes, at every start of the service. The disk is empty after a redeployment.
    Example::

        @hookimpl
        def on_resource_disk_ready(agent, mount_point):
            os.makedirs(os.path.join(mount_point, "scratch"), exist_ok=True)
    """


@event()
def on_resource_disk_failed(agent: Agent, reason: str) -> None:
    """Do without the resource disk.

    When: after the steps of the disk phase, when they failed or were vetoed.
    Arguments: ``agent``; ``reason``: one line for people.
    Returns: nothing.
    Answers: all.
    Failure: logged and counted.
    Deadline: 30 s.
    Again: yes, at every start of the service.
    Example::

        @hookimpl
        def on_resource_disk_failed(agent, reason):
            use_scratch_on_root_disk()
    """


@event()
def on_deprovision(agent: Agent, delete_user: bool) -> Plans:
    """Say what has to be removed before the machine becomes an image.

    When: ``waagent -deprovision`` or ``-deprovision+user``, before anything is shown or done.
    Arguments: ``agent``: the command's agent; ``delete_user``: the provisioned user goes too.
    Returns: a plan, several, or ``None``; what people must know before stands in the steps' ``warning``.
    Answers: all; the warnings are shown first, then the plans run in call order.
    Failure: the command stops before it removes anything and names the plugin.
    Deadline: 30 s for making the plans.
    Again: yes: an interrupted deprovision is taken up by calling it again.
    Example::

        @hookimpl
        def on_deprovision(agent):
            def missing(facts):
                return [Step("licence", "remove the licence", drop, warning="The licence is removed.")] if facts else []
            return Plan("licence", probe=find_licence, planner=missing)
    """


# ---- Contributions: what a plugin has --------------------------------------------------------------------------------


@contribution()
def declare_options() -> Iterable[Option] | Option | None:
    """Name the plugin's configuration options.

    When: right after the plugins are loaded, in every process.
    Arguments: none: nothing is known yet.
    Returns: an :class:`waagent.Option`, several, or ``None``.
    Answers: all; the first plugin that declares a name has it.
    Failure: logged and counted; the plugin goes without its options.
    Deadline: 30 s.
    Again: yes, once per process; always the same answer.
    Example::

        @hookimpl
        def declare_options():
            return Option("Acme.Interval", "int", 60, "Seconds between two looks at the licence", minimum=1)
    """


@contribution()
def declare_commands() -> Iterable[Command] | Command | None:
    """Name the plugin's commands.

    When: ``waagent`` was called with a word that is not one of the core's, or with ``help``.
    Arguments: none.
    Returns: a :class:`waagent.Command`, several, or ``None``.
    Answers: all; a name that the core has is refused, of two plugins the first in order has it.
    Failure: logged; the command is not there.
    Deadline: 30 s.
    Again: yes, once per process.
    Example::

        @hookimpl
        def declare_commands():
            return Command("licence", "Show the licence", run=lambda agent, arguments: show(agent))
    """


@contribution()
def declare_periodic(agent: Agent) -> Iterable[Periodic] | Periodic | None:
    """Name the plugin's periodic duties.

    When: once, at the start of the worker, after ``on_start``.
    Arguments: ``agent``: the worker's agent.
    Returns: a :class:`waagent.Periodic`, several, or ``None``.
    Answers: all.
    Failure: logged and counted; the plugin goes without its duties.
    Deadline: 30 s; each run of a duty has the same.
    Again: yes, at every start of the worker. After 5 failures in a row a duty is called less often until it succeeds.
    Example::

        @hookimpl
        def declare_periodic(agent):
            return Periodic("licence", "Acme.Interval", run=check_licence)
    """


@contribution(deadline=10.0, periodic=True)
def report_status(agent: Agent) -> StatusReport | None:
    """Give the plugin's part of the status.

    When: before each upload of the status, in the lane of the status: other hooks may run at the same time.
    Arguments: ``agent``: the worker's agent.
    Returns: a :class:`waagent.StatusReport`, or ``None``: nothing to say. It comes from memory, without waiting.
    Answers: all; the parts are joined in call order.
    Failure: logged and counted; the status goes without this part and names the plugin. After 5 failures in a row the
        plugin is asked less often, until it succeeds.
    Deadline: 10 s.
    Again: yes, every period.
    Example::

        @hookimpl
        def report_status(agent):
            return StatusReport(details={"licence": "valid"})
    """


@contribution()
def declare_log_files(agent: Agent) -> Iterable[LogSource] | LogSource | None:
    """Name what the log collector should take along.

    When: at each run of the log collector.
    Arguments: ``agent``.
    Returns: a :class:`waagent.LogSource`, several, or ``None``. Nothing that holds secrets.
    Answers: all.
    Failure: logged; the archive goes without them.
    Deadline: 30 s.
    Again: yes.
    Example::

        @hookimpl
        def declare_log_files(agent):
            return LogSource("file", "/var/log/acme/*.log")
    """


@contribution()
def check_health(agent: Agent) -> Iterable[HealthCheck] | HealthCheck | None:
    """Examine what the plugin needs.

    When: ``waagent doctor``.
    Arguments: ``agent``: the command's agent; not necessarily root.
    Returns: a :class:`waagent.HealthCheck`, several, or ``None``. It changes nothing.
    Answers: all.
    Failure: shown as a failed check of that plugin.
    Deadline: 30 s.
    Again: yes.
    Example::

        @hookimpl
        def check_health(agent):
            return HealthCheck("acme.licence", "warning", "ends tomorrow", "renew it")
    """


# ---- Decisions: the first answer, or a veto --------------------------------------------------------------------------


@decision()
def select_provisioner(agent: Agent) -> str | None:
    """Choose who provisions the machine.

    When: in the boot stage, when ``Provisioning.Agent`` is ``auto``.
    Arguments: ``agent``.
    Returns: ``waagent``, ``cloud-init`` or ``disabled``; ``None``: not mine to say.
    Answers: the first.
    Failure: the next plugin is asked; when nobody answers, provisioning fails and names the plugins.
    Deadline: 30 s.
    Again: yes, at every start of the service until the machine is provisioned.
    Example::

        @hookimpl
        def select_provisioner(agent):
            return "cloud-init" if os.path.exists(agent.paths.at("/usr/bin/cloud-init")) else None
    """


@decision()
def allow_extension(agent: Agent, handler: Handler, operation: str) -> Veto | None:
    """Object to an operation on a handler.

    When: before each operation on a handler.
    Arguments: ``agent``; ``handler``: a :class:`waagent.Handler`; ``operation``: ``install``, ``update``, ``enable``,
        ``disable`` or ``uninstall``.
    Returns: a :class:`waagent.Veto`, or ``None``: no objection.
    Answers: the first veto.
    Failure: the next plugin is asked; when nobody objects, the failure itself refuses the operation.
    Deadline: 30 s.
    Again: yes.
    Example::

        @hookimpl
        def allow_extension(handler, operation):
            if operation == "install" and not handler.name.startswith("Acme."):
                return Veto(f"{handler.name} is not on the list")
    """


@decision()
def verify_package(agent: Agent, package: Package) -> Veto | None:
    """Object to a downloaded package.

    When: after the download, before anything is unpacked.
    Arguments: ``agent``; ``package``: a :class:`waagent.Package`.
    Returns: a :class:`waagent.Veto`, or ``None``: no objection.
    Answers: the first veto.
    Failure: the next plugin is asked; when nobody objects, the failure itself refuses the package.
    Deadline: 30 s.
    Again: yes, also for the same file.
    Example::

        @hookimpl
        def verify_package(package):
            return None if package.signature else Veto("unsigned packages are refused here")
    """


@decision()
def accept_package(agent: Agent, package: Package, directory: str) -> Veto | None:
    """Object to an unpacked package, or leave a note in its directory.

    When: after a package was unpacked, before any command of a handler runs on its account.
    Arguments: ``agent``; ``package``: a :class:`waagent.Package`, as ``verify_package`` saw it; its file may be gone;
        ``directory``: where it lies now, with ``HandlerManifest.json`` at its top.
    Returns: a :class:`waagent.Veto`, or ``None``: no objection. What is refused is removed.
    Answers: the first veto.
    Failure: the next plugin is asked; when nobody objects, the failure itself refuses the package.
    Deadline: 30 s.
    Again: yes, also for the same package: each time it was unpacked.
    Example::

        @hookimpl
        def accept_package(directory):
            if os.path.exists(os.path.join(directory, "setup.exe")):
                return Veto("this package is for another system")
    """


@decision()
def allow_command(agent: Agent, command: HandlerCommand) -> Veto | None:
    """Object to a handler's command, or prepare something for it.

    When: before a command of a handler is started; not when a running one is taken up after a restart.
    Arguments: ``agent``; ``command``: a :class:`waagent.HandlerCommand`.
    Returns: a :class:`waagent.Veto`, or ``None``: no objection. A refused command counts as failed.
    Answers: the first veto.
    Failure: the next plugin is asked; when nobody objects, the failure itself refuses the command.
    Deadline: 30 s.
    Again: yes, also for the same command when the agent was killed before it was started.
    Example::

        @hookimpl
        def allow_command(command):
            if command.operation == "install" and is_maintenance_window_closed():
                return Veto("nothing is installed before 22:00")
    """


@decision()
def decide_resource_disk(agent: Agent, facts: dict[str, Any]) -> Veto | None:
    """Object to what would be done to the resource disk.

    When: in the disk phase, before the first write.
    Arguments: ``agent``; ``facts``: what the probe found (``device``, ``partitions``, ``filesystem``, ``contents``, …),
        with ``action``: what would be done (``format``, ``mount``, ``wait`` for others to mount it, ``adopt`` their
        mount, ``swap``), and ``reason``.
    Returns: a :class:`waagent.Veto`, or ``None``: no objection.
    Answers: the first veto.
    Failure: the next plugin is asked; when nobody objects, the failure itself keeps the disk untouched.
    Deadline: 30 s.
    Again: yes, at every start of the service.
    Example::

        @hookimpl
        def decide_resource_disk(facts):
            return Veto("database files on it") if "pgdata" in facts.get("contents", ()) else None
    """


@decision()
def launch(agent: Agent, command: HandlerCommand) -> Launch | None:
    """Choose how a handler's command is started.

    When: before a command of a handler is started; not when a running one is taken up after a restart.
    Arguments: ``agent``; ``command``: a :class:`waagent.HandlerCommand`.
    Returns: a :class:`waagent.Launch`, or ``None``: not mine.
    Answers: the first; without one the command is a plain process in its own session.
    Failure: the next plugin is asked; when nobody answers, the command is a plain process and the failure is logged. A
        launcher that fails before the command begins is left out, and ``after_handler_command`` says so.
    Deadline: 30 s.
    Again: yes.
    Example::

        @hookimpl
        def launch(command):
            if command.handler_name == "Acme.Backup":
                return Launch(prefix=("nice", "-n", "10"), scope=None)
    """
