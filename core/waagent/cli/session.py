"""What a command works with, each made when it is first asked for: paths, configuration, log, agent."""

from __future__ import annotations

from waagent.errors import ConfigError
from waagent.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.cli.grammar import Invocation
    from waagent.conffile import RawConfig
    from waagent.config import Config
    from waagent.log import Log
    from waagent.records import Command


class Session:
    """One run of the command line.

    Attributes:
        invocation: the command line, understood.
    """

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self._raw: RawConfig | None = None
        self._log: Log | None = None
        self._agent: Agent | None = None
        self._agent_failed = False
        self._config: Config | None = None

    @property
    def raw(self) -> RawConfig:
        """What the configuration files say.

        Raises:
            ConfigError: the file named on the command line does not exist.
        """
        if self._raw is None:
            from waagent.conffile import read_chain

            self._raw = read_chain(self.invocation.root, self.invocation.conf)
        return self._raw

    @property
    def paths(self) -> Paths:
        """The agent's places that no option moves."""
        return Paths(self.invocation.root)

    @property
    def log(self) -> Log:
        """The log of a command: standard error only, so that standard output holds results only (cli §7.1)."""
        if self._log is None:
            from waagent.log import make_log

            self._log = make_log("", verbose=self.invocation.verbose)
        return self._log

    @property
    def agent(self) -> Agent:
        """The agent with its plugins.

        Raises:
            ConfigError: the file named on the command line does not exist.
        """
        if self._agent is None:
            from waagent.agent import make_agent

            self._agent = make_agent(
                role="cli",
                root=self.invocation.root,
                conf=self.invocation.conf,
                verbose=self.invocation.verbose,
            )
        return self._agent

    @property
    def agent_if_any(self) -> Agent | None:
        """The agent, or ``None`` when it cannot be made: what only reads goes on without plugins, and says so once."""
        if self._agent is None and not self._agent_failed:
            try:
                return self.agent
            except ConfigError:
                raise
            except Exception as problem:
                self._agent_failed = True
                self.log.warning(f"Plugins are left out: {type(problem).__name__}: {problem}")
        return self._agent

    @property
    def config(self) -> Config:
        """The configuration with the options of every plugin that is on."""
        if self._config is None:
            agent = self.agent_if_any
            if agent is not None:
                self._config = agent.config
            else:
                from waagent.config import Config

                self._config = Config(self.raw)
        return self._config

    def plugin_commands(self) -> list[tuple[str, Command]]:
        """Return the commands that plugins bring, each with its plugin's name; none when plugins cannot be had."""
        agent = self.agent_if_any
        return [] if agent is None else agent.hooks.declare_commands()

    def plugin_states(self) -> dict[str, str]:
        """Return the state of every installed plugin by its name; nothing when plugins cannot be had."""
        agent = self.agent_if_any
        if agent is None:
            return {}
        return {info.name: info.state for info in agent.plugins.listing()}
