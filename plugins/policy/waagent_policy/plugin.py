"""The policy plugin: its hooks. Everything else is loaded when it is first needed, not when the plugin is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command, HealthCheck, LogSource, StatusReport, Veto, hookimpl

if TYPE_CHECKING:
    from waagent import Agent, Handler, HandlerCommand, Package
    from waagent_policy.source import Found, Source


class PolicyPlugin:
    """Which extensions the owner of the machine accepts (extensions §15)."""

    def __init__(self) -> None:
        self._source: Source | None = None

    def _found(self, agent: Agent, *, afresh: bool = False) -> Found | None:
        if self._source is None:
            from waagent_policy.source import Source

            self._source = Source()
        if afresh:
            self._source.forget()
        return self._source.current(agent)

    @hookimpl
    def before_extensions(self, agent: Agent) -> None:
        """Read the file afresh for this goal state, say what holds, and keep a copy in the history."""
        found = self._found(agent, afresh=True)
        if found is None:
            return
        if found.policy is None:
            agent.log.error(f"The extension policy {found.path} is invalid: {found.problem}")
        else:
            agent.log.info(f"The extension policy {found.path} (version {found.policy.version}) is in force")
        if agent.platform is not None and found.content:
            agent.platform.history.save("waagent_policy.json", found.content)

    @hookimpl
    def allow_extension(self, agent: Agent, handler: Handler, operation: str) -> Veto | None:
        """Refuse what the policy does not allow; everything while the policy is invalid."""
        found = self._found(agent)
        if found is None:
            return None
        from waagent_policy import verdicts

        return verdicts.on_extension(found, handler, operation, agent.paths.lib_dir)

    @hookimpl
    def accept_package(self, agent: Agent, package: Package, directory: str) -> Veto | None:
        """Refuse a package whose signature is required and not verified, or that would ignore its runtime policy."""
        found = self._found(agent)
        if found is None:
            return None
        from waagent_policy import verdicts

        return verdicts.on_package(found, package.handler_name, package.version, bool(package.signature), directory)

    @hookimpl
    def allow_command(self, agent: Agent, command: HandlerCommand) -> Veto | None:
        """Write the handler's runtime policy before each enable."""
        if command.operation != "enable":
            return None
        from waagent_policy import runtimepolicy

        found = self._found(agent)
        if found is None:
            runtimepolicy.remove(command.cwd)
            return None
        from waagent_policy import manifest, verdicts

        policy = found.policy
        if policy is None:
            return verdicts.invalid(found, command.operation)
        veto = verdicts.on_runtime_policy(found, policy, command.handler_name, command.handler_version, command.cwd)
        if veto is not None or not manifest.supports_policy(command.cwd):
            return veto
        rule = policy.rule(command.handler_name)
        try:
            runtimepolicy.write(command.cwd, rule.runtime if rule is not None and rule.has_runtime else {})
        except OSError as problem:
            return Veto(
                f"The runtime policy of {command.handler_name} cannot be written: {problem}", verdicts.ENABLE_REFUSED
            )
        return None

    @hookimpl
    def report_status(self, agent: Agent) -> StatusReport | None:
        """Say that there is a policy, and what is wrong with it."""
        found = self._found(agent)
        if found is None:
            return None
        details = {"file": found.path, "valid": found.policy is not None}
        if found.policy is not None:
            return StatusReport(details=details)
        details["problem"] = found.problem
        return StatusReport(problems=(f"The extension policy is invalid: {found.problem}",), details=details)

    @hookimpl
    def declare_commands(self) -> Command:
        """Offer a check of a policy file before it is put in place."""
        from waagent_policy import command

        return command.CHECK

    @hookimpl
    def declare_log_files(self, agent: Agent) -> LogSource | None:
        """Name the policy file."""
        from waagent_policy.source import path_of

        path = path_of(agent)
        return LogSource("file", path, 40) if path is not None else None

    @hookimpl
    def check_health(self, agent: Agent) -> HealthCheck:
        """Tell whether the policy can be used."""
        from waagent_policy import health

        return health.check(agent, self._found(agent, afresh=True))


plugin = PolicyPlugin()
