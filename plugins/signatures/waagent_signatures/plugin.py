"""The signatures plugin: its hooks. The check itself is loaded with the first signed package."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from waagent import HealthCheck, Option, Veto, hookimpl, write_atomic

if TYPE_CHECKING:
    from waagent import Agent, GoalState, Package
    from waagent_signatures.verifier import Verdict

MARK = "package_validated"
"""Made in a package's directory once its signature and its signing information are verified (extensions §16)."""
REFUSED = 1009
LONGEST = 25.0
"""Seconds for one check at most: the hook's own deadline would refuse the package."""

_ENABLED = "Debug.EnableExtSignatureValidation"
_HARMLESS = "This failure can be safely ignored; will continue processing the package."


class SignaturesPlugin:
    """Whether packages are signed by whom they should be."""

    def __init__(self) -> None:
        self._usable: bool | None = None
        self._verified: set[tuple[str, str]] = set()

    @hookimpl
    def declare_options(self) -> list[Option]:
        """Let administrators trust certificates of their own."""
        return [
            Option(
                "Signatures.TrustAnchor",
                "text",
                None,
                "PEM file of the root certificates of package signatures, instead of Microsoft's",
            ),
            Option(
                "Signatures.TimestampAnchor",
                "text",
                None,
                "PEM file of the root certificates of their timestamps, instead of Microsoft's",
            ),
        ]

    @hookimpl
    def on_start(self, agent: Agent) -> None:
        """Write the root certificate, and clear what a check left that was cut off."""
        if not agent.config.boolean(_ENABLED):
            return
        from waagent_signatures import anchors, scratch

        scratch.clear_all(agent.paths.lib_dir)
        try:
            anchors.for_packages(agent)
        except anchors.NoAnchor as problem:
            agent.log.warning(f"Package signatures cannot be verified: {problem}")
            self._event(agent, "SignatureValidation", False, str(problem))

    @hookimpl
    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Say which wanted packages are not signed."""
        extensions = goal_state.extensions
        wanted = [handler for handler in extensions.handlers if handler.state != "uninstall"]
        unsigned = [handler for handler in wanted if not handler.signature]
        if not unsigned or not agent.config.boolean(_ENABLED):
            return
        if extensions.channel != "WireServer" and len(unsigned) == len(wanted):
            return  # host plugins before 1.0.8.159 leave every signature out
        names = ", ".join(f"{handler.name}-{handler.version}" for handler in unsigned)
        agent.log.info(f"Packages without a signature in {extensions.id}: {names}")
        for handler in unsigned:
            self._event(agent, "ExtensionSigned", False, "The package is not signed", handler.name, handler.version)

    @hookimpl
    def verify_package(self, agent: Agent, package: Package) -> Veto | None:
        """Verify the signature; what fails is reported, and refused only when the configuration says so."""
        key = (package.handler_name, package.version)
        self._verified.discard(key)
        if not package.signature or not agent.config.boolean(_ENABLED) or not self._is_usable(agent):
            return None
        from waagent_signatures.verifier import ELSE, Verdict

        began = time.monotonic()
        try:
            verdict = self._check(agent, package)
        except Exception as problem:  # a failure here is no reason to refuse a package
            verdict = Verdict(False, ELSE, f"{type(problem).__name__}: {problem}")
        milliseconds = int((time.monotonic() - began) * 1000)
        name, version = key
        self._event(agent, verdict.operation, verdict.valid, verdict.message, name, version, milliseconds)
        if verdict.valid:
            agent.log.info(f"The package of {name}-{version} was verified: {verdict.message}")
            self._verified.add(key)
            return None
        self._event(agent, verdict.operation, False, f"Signature: {package.signature}", name, version)
        return self._failed(agent, f"The signature of the package of {name}-{version} is not valid: {verdict.message}.")

    @hookimpl
    def accept_package(self, agent: Agent, package: Package, directory: str) -> Veto | None:
        """Compare what the verified package says it is with what was asked for, and mark it."""
        key = (package.handler_name, package.version)
        if key not in self._verified:
            return None
        self._verified.discard(key)
        from waagent_signatures import signinginfo

        name, version = key
        wrong = signinginfo.problem(directory, name, version)
        if wrong is None:
            try:
                write_atomic(os.path.join(directory, MARK), b"", 0o644)
            except OSError as problem:
                wrong = f"the mark cannot be written: {problem}"
        self._event(agent, "PackageSigningInfoResult", wrong is None, wrong or "signingInfo is right", name, version)
        if wrong is None:
            return None
        return self._failed(agent, f"The signing information of {name}-{version} is not valid: {wrong}.")

    @hookimpl
    def check_health(self, agent: Agent) -> list[HealthCheck]:
        """Tell whether signatures can be verified here."""
        if not agent.config.boolean(_ENABLED):
            return [HealthCheck("signatures.validation", "ok", f"switched off ({_ENABLED})")]
        from waagent_signatures import health

        return health.checks(agent)

    def _check(self, agent: Agent, package: Package) -> Verdict:
        from waagent_signatures import openssl, verifier

        wanted = agent.config.integer("Debug.SignatureValidationTimeout")
        seconds = min(float(wanted), LONGEST) if wanted > 0 else LONGEST
        try:
            return verifier.check(agent, package, seconds)
        except openssl.TooSlow:
            self._usable = False
            return verifier.Verdict(
                False,
                verifier.ELSE,
                f"it took longer than {seconds:g} s, and no more signatures are verified until the agent starts again",
            )

    def _is_usable(self, agent: Agent) -> bool:
        if self._usable is None:
            from waagent_signatures import openssl

            reason = openssl.unusable(agent)
            self._usable = reason is None
            if reason is not None:
                agent.log.warning(f"Package signatures are not verified: {reason}")
                self._event(agent, "SignatureValidation", False, reason)
        return self._usable

    @staticmethod
    def _failed(agent: Agent, text: str) -> Veto | None:
        if agent.config.boolean("Debug.IgnoreExtSignatureValidationErrors"):
            agent.log.warning(f"{text} {_HARMLESS}")
            return None
        return Veto(text, REFUSED)

    @staticmethod
    def _event(
        agent: Agent,
        operation: str,
        success: bool,
        message: str,
        name: str | None = None,
        version: str | None = None,
        milliseconds: int = 0,
    ) -> None:
        """Send an event, until the day from which nobody wants to know any more."""
        last = agent.config.text("Debug.SignatureValidationTelemetryExpiryTime") or "9999"
        if time.strftime("%Y-%m-%d", time.gmtime()) >= last:
            return
        who = {} if name is None else {"name": name}
        agent.events.add(
            operation, success=success, message=message, version=version, duration_ms=milliseconds, logged=True, **who
        )


plugin = SignaturesPlugin()
