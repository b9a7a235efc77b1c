"""Faults: what can go wrong between an agent and its platform, by request and by number of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

KINDS = ("latency", "drop", "reset", "status", "garbage", "truncate", "stale", "outage", "oversize", "replace")
SERVERS = ("wireserver", "hostplugin", "imds", "blobs")


def _statuses(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


@attrs.define(eq=False)
class Fault:
    """One fault; a request is hit by the first one that matches it and is not used up.

    Attributes:
        kind: ``latency`` (answer after ``seconds``), ``drop`` (no answer for ``seconds``, then the connection ends),
            ``reset`` (RST without an answer), ``status`` (one of ``statuses`` in turn, the last one repeated while
            ``times`` lasts), ``garbage`` (200 with bytes that are no document), ``truncate`` (the right length
            announced, half the body sent), ``stale`` (the goal state of the incarnation before), ``outage`` (nobody
            listens; for ``seconds``, or until cleared), ``oversize`` (200 with ``size`` bytes), ``replace`` (200 with
            ``body``).
        server: one of :data:`SERVERS`; ``None`` for all.
        method: exact; ``None`` for all.
        path: substring of path and query; ``None`` for all.
        times: how many requests it hits; ``None`` until cleared. ``status`` without it: once per code.
        skip: how many matching requests pass before.
        seconds: for latency, drop and outage.
        statuses: codes for ``status``.
        retry_after: ``Retry-After`` header of those answers.
        body: of ``status`` and ``replace``.
        size: of ``oversize``, bytes.
        hits: how many requests it hit so far.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(KINDS))
    server: str | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.in_(SERVERS))
    )
    method: str | None = attrs.field(default=None, kw_only=True)
    path: str | None = attrs.field(default=None, kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    skip: int = attrs.field(default=0, kw_only=True)
    seconds: float | None = attrs.field(default=None, kw_only=True)
    statuses: Sequence[int] = attrs.field(default=(503,), kw_only=True, converter=_statuses)
    retry_after: int | str | None = attrs.field(default=None, kw_only=True)
    body: bytes = attrs.field(default=b"", kw_only=True, converter=_bytes)
    size: int = attrs.field(default=64 * 1024 * 1024, kw_only=True)
    hits: int = attrs.field(default=0, init=False)
    _passed: int = attrs.field(default=0, init=False)

    def matches(self, server: str, method: str, path: str) -> bool:
        """Whether the request is one of those this fault is about."""
        return (
            self.kind != "outage"
            and self.server in (None, server)
            and self.method in (None, method)
            and (self.path is None or self.path in path)
        )

    @property
    def spent(self) -> bool:
        """Whether it has hit as often as it should."""
        limit = self.times
        if limit is None and self.kind == "status" and len(self.statuses) > 1:
            limit = len(self.statuses)
        return limit is not None and self.hits >= limit

    def take(self) -> bool:
        """Count one matching request; return whether it is hit."""
        if self.spent:
            return False
        if self._passed < self.skip:
            self._passed += 1
            return False
        self.hits += 1
        return True

    def status_now(self) -> int:
        """The code of the current hit."""
        return self.statuses[min(self.hits, len(self.statuses)) - 1]


class FaultBoard:
    """The faults in force, in the order they were injected. Not locked: the owner does that."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put *fault* in force."""
        self._faults.append(fault)

    def clear(self) -> None:
        """End all faults."""
        self._faults.clear()

    def pick(self, server: str, method: str, path: str) -> Fault | None:
        """Return the fault that hits this request, counted, or ``None``."""
        for fault in self._faults:
            if fault.matches(server, method, path) and fault.take():
                return fault
        return None
