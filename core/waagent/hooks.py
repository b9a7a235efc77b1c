"""One typed method per hook: the only place that calls plugins' hooks, in the order of ruling 20.

Nobody outside this module touches pluggy's relay. Every implementation runs contained (:mod:`waagent.containment`), its
answer is checked inside the call, and a plugin without an implementation costs nothing. All methods may be called from
any thread and block for at most the deadlines of the implementations that hang.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from waagent.containment import Containment, Outcome
from waagent.errors import NoAnswer, PluginError
from waagent.markers import HOOK_DEADLINE, OPERATION, Traits
from waagent.records import Command, HealthCheck, Launch, LogSource, Option, Periodic, Veto
from waagent.registry import Implementation, Registry

if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.plan import Plan
    from waagent.platform.models import GoalState, Handler, StatusReport
    from waagent.records import CommandResult, HandlerCommand, Package

_Record = TypeVar("_Record")


class Hooks:
    """The façade that the core fires hooks through.

    Args:
        registry: the registered plugins.
        containment: how they are called.
    """

    def __init__(self, registry: Registry, containment: Containment) -> None:
        self._registry = registry
        self._containment = containment

    # ---- Events ----

    def on_boot(self, agent: Agent) -> list[tuple[str, Plan]]:
        """Return what plugins want done at the start of the service, as (plugin, plan)."""
        return self._plans("on_boot", agent=agent)

    def on_start(self, agent: Agent) -> None:
        """Tell that the worker starts."""
        self._tell("on_start", agent=agent)

    def on_stop(self, agent: Agent) -> None:
        """Tell that the worker is asked to stop; returns within 10 s for each plugin that hangs."""
        self._tell("on_stop", agent=agent)

    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Tell that a new desired state was fetched."""
        self._tell("on_goal_state", agent=agent, goal_state=goal_state)

    def on_hostname_change(self, agent: Agent, old: str, new: str) -> list[tuple[str, Plan]]:
        """Return what plugins want done about a changed host name."""
        return self._plans("on_hostname_change", agent=agent, old=old, new=new)

    def on_network_change(self, agent: Agent) -> list[tuple[str, Plan]]:
        """Return what plugins want done about a changed network."""
        return self._plans("on_network_change", agent=agent)

    def on_vm_identity_change(self, agent: Agent, old: str, new: str) -> list[tuple[str, Plan]]:
        """Return what plugins want done about the machine being another one."""
        return self._plans("on_vm_identity_change", agent=agent, old=old, new=new)

    def before_extensions(self, agent: Agent) -> None:
        """Let plugins wait for what extensions rely on."""
        self._tell("before_extensions", agent=agent)

    def before_handler_command(self, agent: Agent, command: HandlerCommand) -> None:
        """Let plugins wait for what a handler's command relies on."""
        self._tell("before_handler_command", agent=agent, command=command)

    def after_handler_command(self, agent: Agent, command: HandlerCommand, result: CommandResult) -> None:
        """Tell how a handler's command ended."""
        self._tell("after_handler_command", agent=agent, command=command, result=result)

    def on_extension_status(self, agent: Agent, handler: str, extension: str | None, status: str) -> None:
        """Tell that the status of an extension changed."""
        self._tell("on_extension_status", agent=agent, handler=handler, extension=extension, status=status)

    def on_resource_disk_ready(self, agent: Agent, mount_point: str, device: str, filesystem: str) -> None:
        """Tell that the resource disk is mounted."""
        self._tell("on_resource_disk_ready", agent=agent, mount_point=mount_point, device=device, filesystem=filesystem)

    def on_resource_disk_failed(self, agent: Agent, reason: str) -> None:
        """Tell that there is no resource disk to use."""
        self._tell("on_resource_disk_failed", agent=agent, reason=reason)

    def on_deprovision(self, agent: Agent, delete_user: bool) -> list[tuple[str, Plan]]:
        """Return what plugins want removed.

        Raises:
            NoAnswer: a plugin failed: nothing may be removed then.
        """
        found, failed = self._ask_all("on_deprovision", self._plan_type(), agent=agent, delete_user=delete_user)
        if failed:
            raise _no_answer("on_deprovision", failed)
        return found

    # ---- Contributions ----

    def declare_options(self) -> list[tuple[str, Option]]:
        """Return plugins' options as (plugin, option)."""
        return self._ask_all("declare_options", Option)[0]

    def declare_commands(self) -> list[tuple[str, Command]]:
        """Return plugins' commands as (plugin, command)."""
        return self._ask_all("declare_commands", Command)[0]

    def declare_periodic(self, agent: Agent) -> list[tuple[str, Periodic]]:
        """Return plugins' periodic duties as (plugin, duty); run each through :meth:`run_duty`."""
        return self._ask_all("declare_periodic", Periodic, agent=agent)[0]

    def report_status(self, agent: Agent) -> list[tuple[str, StatusReport]]:
        """Return plugins' parts of the status; what is missing on account of failures is in :meth:`problems`."""
        from waagent.platform.models import StatusReport

        return self._ask_all("report_status", StatusReport, agent=agent)[0]

    def declare_log_files(self, agent: Agent) -> list[tuple[str, LogSource]]:
        """Return what plugins want collected."""
        return self._ask_all("declare_log_files", LogSource, agent=agent)[0]

    def check_health(self, agent: Agent) -> list[tuple[str, HealthCheck]]:
        """Return plugins' checks; a plugin that fails in its check is itself a failed one."""
        found, failed = self._ask_all("check_health", HealthCheck, agent=agent)
        for outcome in failed:
            remedy = f"see the log, or switch it off: waagent plugins disable {outcome.plugin}"
            check = HealthCheck(f"plugins.{outcome.plugin}", "failed", f"check_health: {outcome.error}", remedy)
            found.append((outcome.plugin, check))
        return found

    # ---- Decisions ----

    def select_provisioner(self, agent: Agent) -> str | None:
        """Return who provisions, or ``None`` when no plugin says.

        Raises:
            NoAnswer: no plugin says, and one that might have failed.
        """
        return self._decide("select_provisioner", str, agent=agent)

    def allow_extension(self, agent: Agent, handler: Handler, operation: str) -> Veto | None:
        """Return a plugin's objection to an operation on a handler, or ``None``.

        Raises:
            NoAnswer: nobody objected, and a plugin that might have failed: do not go on.
        """
        return self._decide("allow_extension", Veto, agent=agent, handler=handler, operation=operation)

    def verify_package(self, agent: Agent, package: Package) -> Veto | None:
        """Return a plugin's objection to a package, or ``None``.

        Raises:
            NoAnswer: nobody objected, and a plugin that might have failed: do not go on.
        """
        return self._decide("verify_package", Veto, agent=agent, package=package)

    def accept_package(self, agent: Agent, package: Package, directory: str) -> Veto | None:
        """Return a plugin's objection to an unpacked package, or ``None``.

        Raises:
            NoAnswer: nobody objected, and a plugin that might have failed: do not go on.
        """
        return self._decide("accept_package", Veto, agent=agent, package=package, directory=directory)

    def allow_command(self, agent: Agent, command: HandlerCommand) -> Veto | None:
        """Return a plugin's objection to a handler's command, or ``None``.

        Raises:
            NoAnswer: nobody objected, and a plugin that might have failed: do not go on.
        """
        return self._decide("allow_command", Veto, agent=agent, command=command)

    def decide_resource_disk(self, agent: Agent, facts: dict[str, Any]) -> Veto | None:
        """Return a plugin's objection to changing the resource disk, or ``None``.

        Raises:
            NoAnswer: nobody objected, and a plugin that might have failed: do not go on.
        """
        return self._decide("decide_resource_disk", Veto, agent=agent, facts=facts)

    def launch(self, agent: Agent, command: HandlerCommand) -> Launch | None:
        """Return how to start a handler's command; ``None``: as a plain process, also when a plugin failed."""
        try:
            return self._decide("launch", Launch, agent=agent, command=command)
        except NoAnswer:
            return None

    # ---- Distribution operations, duties ----

    def operation(self, name: str) -> Traits | None:
        """Return what is known of the distribution operation *name*, ``None`` when there is none."""
        traits = self._registry.traits.get(name)
        return traits if traits is not None and traits.kind == OPERATION else None

    @property
    def any_root(self) -> bool:
        """Whether a plugin is here that changes nothing outside the agent's root (ruling 7)."""
        return self._registry.any_root

    def call_operation(self, name: str, arguments: Mapping[str, Any], *, any_root_only: bool = False) -> Any:
        """Return the first answer to the distribution operation *name*.

        Args:
            name: a name of ``waagent.operations``.
            arguments: every argument of the operation.
            any_root_only: ask only plugins that change nothing outside the agent's root (ruling 7).

        Raises:
            NoAnswer: nobody answered; names each plugin that failed.
        """
        answer, failed, asked = self._first(name, None, arguments, any_root_only)
        if answer is None:
            raise _no_answer(name, failed, asked)
        return answer

    def implementations(self, name: str) -> tuple[Implementation, ...]:
        """Return the implementations of a hook in the order in which they are called."""
        return self._registry.implementations(name)

    def run_duty(self, plugin: str, duty: Periodic, agent: Agent, deadline: float = HOOK_DEADLINE) -> Outcome:
        """Run a periodic duty of *plugin* once, contained; one that keeps failing is left out now and then."""
        return self._containment.call(
            plugin, f"periodic {duty.name}", lambda: duty.run(agent), deadline=deadline, periodic=True
        )

    # ---- What went wrong ----

    def failing(self, hook: str) -> dict[str, str]:
        """Return the plugins whose last call of *hook* failed, each with the error."""
        return self._containment.failing(hook)

    def problems(self) -> list[str]:
        """Return one line per plugin that hangs or whose last call of some hook failed, for the status."""
        stuck = self._containment.stuck()
        lines = [f"plugin {name} hangs in {hook}" for name, hook in stuck.items()]
        lines += [f"plugin {name}: {text}" for name, text in self._containment.failing().items() if name not in stuck]
        return sorted(lines)

    # ---- Calling ----

    def _tell(self, hook: str, **arguments: Any) -> None:
        self._call(hook, self._registry.implementations(hook), arguments, _ignore)

    def _plan_type(self) -> type[Plan]:
        from waagent.plan import Plan

        return Plan

    def _plans(self, hook: str, **arguments: Any) -> list[tuple[str, Plan]]:
        if not self._registry.implementations(hook):
            return []
        return self._ask_all(hook, self._plan_type(), **arguments)[0]

    def _ask_all(
        self, hook: str, record: type[_Record], **arguments: Any
    ) -> tuple[list[tuple[str, _Record]], list[Outcome]]:
        found: list[tuple[str, _Record]] = []
        failed = []
        implementations = self._registry.implementations(hook)
        for outcome in self._call(hook, implementations, arguments, lambda answer: _records(answer, record)):
            if outcome.answered:
                found += [(outcome.plugin, one) for one in outcome.value]
            else:
                failed.append(outcome)
        return found, failed

    def _decide(self, hook: str, record: type[_Record], **arguments: Any) -> _Record | None:
        answer, failed, _asked = self._first(hook, record, arguments)
        if answer is None and failed:
            raise _no_answer(hook, failed)
        found: _Record | None = answer
        return found

    def _first(
        self, hook: str, record: type[_Record] | None, arguments: Mapping[str, Any], any_root_only: bool = False
    ) -> tuple[Any, list[Outcome], int]:
        failed = []
        asked = 0
        for implementation in self._registry.implementations(hook):
            if any_root_only and not implementation.any_root:
                continue
            asked += 1
            outcome = self._call(hook, (implementation,), arguments, lambda answer: _answer(answer, record))[0]
            if not outcome.answered:
                failed.append(outcome)
            elif outcome.value is not None:
                return outcome.value, failed, asked
        return None, failed, asked

    def _call(
        self,
        hook: str,
        implementations: Sequence[Implementation],
        arguments: Mapping[str, Any],
        check: Callable[[Any], Any],
    ) -> list[Outcome]:
        if not implementations:
            return []
        traits = self._registry.traits[hook]
        return self._containment.call_in_turn(
            [(one.plugin, _bound(one, arguments, check)) for one in implementations],
            hook,
            deadline=traits.deadline,
            periodic=traits.periodic,
        )


def _bound(
    implementation: Implementation, arguments: Mapping[str, Any], check: Callable[[Any], Any]
) -> Callable[[], Any]:
    given = [arguments[name] for name in implementation.arguments]
    return lambda: check(implementation.function(*given))


def _ignore(answer: Any) -> None:
    return None


def _records(answer: Any, record: type[_Record]) -> tuple[_Record, ...]:
    """Return *answer* as a tuple of records. Runs inside the call: a generator's body is the plugin's code too."""
    if answer is None:
        return ()
    if isinstance(answer, record):
        return (answer,)
    if isinstance(answer, (str, bytes, Mapping)) or not hasattr(answer, "__iter__"):
        raise PluginError(f"returned {type(answer).__name__} instead of {record.__name__}")
    found = tuple(answer)
    for one in found:
        if not isinstance(one, record):
            raise PluginError(f"returned {type(one).__name__} among its {record.__name__}s")
    return found


def _answer(answer: Any, record: type[_Record] | None) -> Any:
    """Return *answer*; ``False`` for a veto is a mistake that must not pass for "no objection"."""
    if answer is not None and record is not None and not isinstance(answer, record):
        raise PluginError(f"answered {type(answer).__name__} instead of {record.__name__} or None")
    return answer


def _no_answer(hook: str, failed: Sequence[Outcome], asked: int = 1) -> NoAnswer:
    if failed:
        reasons = "; ".join(f"{outcome.plugin}: {outcome.error}" for outcome in failed)
        return NoAnswer(f"{hook}: no plugin answered; {reasons}", ", ".join(one.plugin for one in failed), hook)
    reason = "every plugin left it to another" if asked else "no plugin implements it here"
    return NoAnswer(f"{hook}: {reason}", hook=hook)
