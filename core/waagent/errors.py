"""Every error that crosses a border of the agent; each message says what was tried, on what, and what came back."""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""


class ConfigError(AgentError):
    """The configuration cannot be used at all (a named file is missing); bad values only warn."""


class StateError(AgentError):
    """A state file of ours cannot be read or written; names the file."""


class CommandError(AgentError):
    """A command of the operating system failed; carries what it said.

    Attributes:
        argv: the command, as started.
        returncode: its exit status; negative for a signal, ``None`` when it could not be started or was out of time.
        output: the head and tail of what it printed.
    """

    def __init__(
        self, message: str, argv: tuple[str, ...] = (), returncode: int | None = None, output: str = ""
    ) -> None:
        super().__init__(message)
        self.argv = argv
        self.returncode = returncode
        self.output = output


class PluginError(AgentError):
    """A plugin could not be loaded or called; names the plugin."""

    def __init__(self, message: str, plugin: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.hook = hook


class NoAnswer(PluginError):
    """No implementation of an operation answered; names each one that failed."""


class NotOnThisRoot(AgentError):
    """A changing operation was asked for under another root than ``/`` (ruling 7)."""


class ProtocolError(AgentError):
    """The platform's answer is missing, refused or malformed; names the request (wireserver §3.5)."""


class ProtocolNotFound(ProtocolError):
    """No endpoint speaks a version this agent speaks (wireserver §5)."""


class OvfError(ProtocolError):
    """The provisioning document cannot be used; names the element and what was expected (provisioning §3.3)."""


class HttpError(ProtocolError):
    """A request ended without a success status.

    Attributes:
        status: the last status code, ``None`` when no answer came.
        retry_after: seconds the server asked to wait, ``None`` when it did not say.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Throttled(HttpError):
    """The platform asked for fewer requests (403 without a denial, 429, 503); nothing slept (ruling 25)."""


class ResourceGone(HttpError):
    """410: the container id or role configuration is stale; the goal state has to be read again."""


class InvalidContainer(HttpError):
    """400 with ``InvalidContainerConfiguration``: same cure as :class:`ResourceGone`."""


class ExtensionsConfigError(ProtocolError):
    """The ExtensionsConfig document cannot be parsed (wireserver §8)."""


class VmSettingsNotSupported(ProtocolError):
    """The host plugin serves no vmSettings (wireserver §14.3)."""


class VmSettingsSupportStopped(VmSettingsNotSupported):
    """The host plugin served vmSettings before and does no longer.

    Attributes:
        timestamp: created-on of the last fast-track goal state, ``YYYY-MM-DDTHH:MM:SS.ffffffZ``.
    """

    def __init__(self, timestamp: str) -> None:
        super().__init__(f"the host plugin stopped serving vmSettings; last fast-track goal state: {timestamp}")
        self.timestamp = timestamp


class VmSettingsParseError(ProtocolError):
    """A vmSettings document breaks a rule of wireserver §10.

    Attributes:
        etag: the document's etag.
        redacted: the document without its secrets, or the reason why it could not be redacted.
    """

    def __init__(self, message: str, etag: str, redacted: str) -> None:
        super().__init__(message)
        self.etag = etag
        self.redacted = redacted


class ExtensionDownloadError(ProtocolError):
    """A manifest or package could not be had from any of its locations (extensions §13.2).

    Attributes:
        code: the error code for the status blob.
    """

    def __init__(self, message: str, code: int = 1001) -> None:
        super().__init__(message)
        self.code = code


class DhcpError(ProtocolError):
    """The DHCP exchange or a lease file gave no endpoint (wireserver §2)."""


class CryptError(ProtocolError):
    """A certificate document or protected value cannot be opened (wireserver §11).

    Attributes:
        passing: this machine was in the way (a full disk, no memory), not what was to be opened: another try may do.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
