"""Moments as the platform and people read them."""

from __future__ import annotations

import time


def utc(moment: float | None = None) -> str:
    """Return *moment* (seconds since the epoch, default now) as ``YYYY-MM-DDTHH:MM:SSZ``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
