"""Verify the signature of a package: who signed it, that nothing was changed, and when (extensions §16)."""

from __future__ import annotations

import binascii
import os
import time
from typing import TYPE_CHECKING

import attrs

from waagent import StateError, read_limited, write_atomic
from waagent_signatures import anchors, openssl, timestamp
from waagent_signatures.der import DerError
from waagent_signatures.scratch import CONTENT, SIGNATURE, TOKEN, clear

if TYPE_CHECKING:
    from waagent import Agent, Package

VERDICT, ELSE = "PackageSignatureResult", "SignatureValidation"
_LIMIT = 1 << 20


@attrs.frozen(eq=False, repr=False)
class Verdict:
    """What came of a check.

    Attributes:
        valid: the package is what its signer signed.
        operation: the word for events: openssl's verdict, or that it did not come to one.
        message: for people.
    """

    valid: bool
    operation: str
    message: str


class Clock:
    """What is left of the time for one check."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, none or less when it is used up."""
        return self._end - time.monotonic()


def check(agent: Agent, package: Package, seconds: float) -> Verdict:
    """Verify *package* against its signature within *seconds*.

    Raises:
        TooSlow: the time did not suffice.
        OSError: the disk refused.
    """
    try:
        signature = binascii.a2b_base64(package.signature.encode("ascii"))
    except (ValueError, UnicodeEncodeError) as problem:
        return Verdict(False, ELSE, f"the signature is not base64: {problem}")
    if not 0 < len(signature) <= _LIMIT:
        return Verdict(False, ELSE, f"the signature has {len(signature)} bytes")
    try:
        anchor = anchors.for_packages(agent)
    except anchors.NoAnchor as problem:
        return Verdict(False, ELSE, str(problem))
    clock = Clock(seconds)
    stem = agent.paths.lib(os.path.basename(package.path))
    try:
        write_atomic(stem + SIGNATURE, signature, durable=False)
        common = ("-in", stem + SIGNATURE, "-content", package.path, "-purpose", "any", "-CAfile", anchor)
        # Without -out the whole package would be written to us as well.
        nowhere = ("-out", os.devnull)
        wrong = openssl.verify(agent, (*common, "-no_check_time", *nowhere), clock.left)
        if wrong is not None:
            return Verdict(False, VERDICT, wrong)
        signed_at, why = signing_time(agent, signature, stem, clock)
        if signed_at is None:
            return Verdict(True, VERDICT, f"the signature is valid; when it was made is not attested: {why}")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(signed_at))
        wrong = openssl.verify(agent, (*common, "-attime", str(signed_at), *nowhere), clock.left)
        if wrong is not None:
            return Verdict(False, VERDICT, f"not valid when it was signed, at {when}: {wrong}")
        return Verdict(True, VERDICT, f"the signature is valid and was made at {when}")
    finally:
        clear(stem)


def signing_time(agent: Agent, signature: bytes, stem: str, clock: Clock) -> tuple[int | None, str]:
    """Return when *signature* was made (seconds since 1970) by its timestamp, else ``None`` and why not."""
    try:
        stamped = timestamp.find(signature)
        if stamped is None:
            return None, "it has no timestamp"
        claimed = timestamp.claimed(stamped.token)
        anchor = anchors.for_timestamps(agent)
        write_atomic(stem + TOKEN, stamped.token, durable=False)
        purpose = ("-purpose", "timestampsign", "-CAfile", anchor, "-attime", str(claimed.seconds))
        wrong = openssl.verify(agent, ("-in", stem + TOKEN, *purpose, "-out", stem + CONTENT), clock.left)
        if wrong is not None:
            return None, f"its timestamp cannot be verified: {wrong}"
        # What openssl verified counts, not what was read out of the message before.
        attested = timestamp.read(read_limited(stem + CONTENT, _LIMIT))
        if attested.seconds != claimed.seconds or not attested.is_about(stamped.value):
            return None, "its timestamp belongs to another signature"
        return attested.seconds, ""
    except (DerError, anchors.NoAnchor, StateError) as problem:
        return None, f"its timestamp cannot be verified: {problem}"
